//! Whether a member may have the response to a query that was passed on, and what it may do with it.

use super::answers::{addresses, shorten};
use super::message::{Code, Query};
use crate::core::{Core, MemberId};
use crate::counters::{Cause, Target};
use crate::policy::{SECONDS, embedded, is_reserved};

/// The response that a member gets. Under rules with names its addresses are kept as those of the name,
/// and one that would lead into somebody's own network is refused: whoever owns a public name could
/// otherwise lead there (DNS rebinding).
pub fn admit(
    core: &mut Core,
    asker: MemberId,
    query: &Query<'_>,
    mut response: Vec<u8>,
) -> Vec<u8> {
    let now_ns = core.now_ns;
    let Some(member) = core.members.get_mut(asker) else {
        return response;
    };
    if !member.policy.has_names() {
        return response;
    }
    let Some(answers) = addresses(&response, query) else {
        return query.respond(Code::ServerFailure);
    };
    let config = &core.config;
    let is_own = |address| is_reserved(embedded(address)) || config.is_on_link(address);
    let is_foul = |&address: &_| {
        is_own(address) && (config.is_on_link(address) || !member.policy.names_range_of(address))
    };
    if answers.all.iter().any(is_foul) {
        core.refuse(asker, Target::Name(query.name.clone()), Cause::Rebound);
        return query.respond(Code::Refused);
    }
    let public: Vec<_> = answers
        .own
        .into_iter()
        .filter(|&(address, _)| !is_own(address))
        .collect();
    member.pins.add(&query.name, &public, now_ns);
    shorten(&mut response, *SECONDS.end());
    response
}
