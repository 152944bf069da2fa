//! What is true of any bytes as DNS messages.

use super::answers::{addresses, shorten};
use super::message::{Code, MAX_QUERY_BYTES, Malformed, Query, is_final, is_response, refuse};
use super::reverse;
use std::net::Ipv4Addr;

const ASKED: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";

/// Any bytes as a question, to which all that is made of it fits, and as the response to another one.
pub fn messages(data: &[u8]) {
    match Query::parse(data) {
        Ok(query) => question(&query),
        Err(Malformed::Answer(code)) => assert!(refuse(data, code).len() >= 12),
        Err(Malformed::Silent) => {}
    }
    let Ok(asked) = Query::parse(ASKED) else {
        return;
    };
    let _ = (is_response(data, &asked, 7), is_final(data));
    let before = addresses(data, &asked);
    let mut short = data.to_vec();
    shorten(&mut short, 60);
    assert_eq!(short.len(), data.len());
    let after = addresses(&short, &asked);
    // Nothing but times changes, and none is long.
    match (before, after) {
        (Some(before), Some(after)) => {
            assert_eq!(before.all, after.all);
            assert_eq!(before.own.len(), after.own.len());
            assert!(after.own.iter().all(|(_, seconds)| *seconds <= 60));
            assert!(before.own.len() <= before.all.len() * 17);
        }
        (None, None) => {}
        other => assert!(other.0.is_some() == other.1.is_some(), "{other:?}"),
    }
}

fn question(query: &Query<'_>) {
    assert!(query.bytes.len() <= MAX_QUERY_BYTES && query.name.len() < 255);
    let _ = reverse::address(&query.name);
    let plain = query.plain();
    assert!(plain.len() <= query.bytes.len() + 11);
    let again = Query::parse(&plain);
    let again = again.map(|again| (again.name.clone(), again.kind, again.plain()));
    assert_eq!(again, Ok((query.name.clone(), query.kind, plain.clone())));
    let id = u16::from_be_bytes([plain[0], plain[1]]);
    for response in [
        query.respond(Code::Refused),
        query.answer(&[Ipv4Addr::LOCALHOST.into()]),
        query.point("a.b"),
    ] {
        assert!(is_response(&response, query, id));
        assert!(addresses(&response, query).is_some());
    }
}
