//! The process itself, started as a monitor starts it: this program is `hullbox __net` when it is told so.
//!
//! Needs root, /dev/net/tun and iproute2; says so and passes elsewhere. The host is a network namespace of
//! the test's own.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod bed;
mod hostile;
mod jail;
mod life;
mod relay;
mod shared;
mod traffic;

use std::ffi::OsString;
use std::process::ExitCode;

type Case = (&'static str, fn() -> anyhow::Result<()>);

const CASES: &[Case] = &[
    (
        "traffic::a_container_and_its_host_reach_each_other",
        traffic::a_container_and_its_host_reach_each_other,
    ),
    (
        "traffic::names_are_asked_of_the_hosts_resolver",
        traffic::names_are_asked_of_the_hosts_resolver,
    ),
    (
        "traffic::another_policy_holds_from_then_on",
        traffic::another_policy_holds_from_then_on,
    ),
    (
        "jail::it_has_no_rights_and_few_descriptors",
        jail::it_has_no_rights_and_few_descriptors,
    ),
    (
        "jail::one_that_containers_share_has_no_more",
        jail::one_that_containers_share_has_no_more,
    ),
    (
        "hostile::a_guest_that_sends_the_worst_costs_others_nothing",
        hostile::a_guest_that_sends_the_worst_costs_others_nothing,
    ),
    (
        "life::it_ends_with_its_control_connection_and_frees_its_ports",
        life::it_ends_with_its_control_connection_and_frees_its_ports,
    ),
    ("life::its_end_is_no_fault", life::its_end_is_no_fault),
    (
        "life::it_ends_with_its_member",
        life::it_ends_with_its_member,
    ),
    (
        "life::a_taken_port_is_told_in_one_line",
        life::a_taken_port_is_told_in_one_line,
    ),
    (
        "life::what_makes_no_sense_is_told",
        life::what_makes_no_sense_is_told,
    ),
    (
        "relay::a_container_in_the_machine_has_the_hosts_network",
        relay::a_container_in_the_machine_has_the_hosts_network,
    ),
    (
        "relay::no_frame_is_lost_or_cut_whoever_is_slow",
        relay::no_frame_is_lost_or_cut_whoever_is_slow,
    ),
    (
        "traffic::what_is_refused_is_told_once",
        traffic::what_is_refused_is_told_once,
    ),
    (
        "relay::refusals_are_told_through_the_relay",
        relay::refusals_are_told_through_the_relay,
    ),
    (
        "relay::it_ends_with_the_host_and_tells_its_words",
        relay::it_ends_with_the_host_and_tells_its_words,
    ),
    (
        "shared::members_reach_each_other_and_leave_nothing",
        shared::members_reach_each_other_and_leave_nothing,
    ),
    (
        "shared::names_are_answered_while_members_come_and_go",
        shared::names_are_answered_while_members_come_and_go,
    ),
    (
        "shared::a_killed_process_is_followed_by_another_that_all_join",
        shared::a_killed_process_is_followed_by_another_that_all_join,
    ),
    (
        "shared::many_that_join_at_once_are_in_one_network",
        shared::many_that_join_at_once_are_in_one_network,
    ),
    (
        "shared::who_does_not_fit_is_told",
        shared::who_does_not_fit_is_told,
    ),
    (
        "relay::containers_in_the_machine_share_a_network_outside",
        relay::containers_in_the_machine_share_a_network_outside,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some((command, rest)) = arguments.split_first()
        && command == hullbox_netproc::ENTRY
    {
        return hullbox_netproc::main(rest);
    }
    let texts: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    if texts.contains(&"--list") {
        CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&&str> = texts.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(**part));
    let Some(_host) = bed::become_host() else {
        return ExitCode::SUCCESS;
    };
    let mut failures = 0;
    for (name, case) in CASES.iter().filter(|(name, _)| wanted(name)) {
        // A case that panics has failed like one that says so.
        let result = std::panic::catch_unwind(case);
        match result {
            Ok(Ok(())) => println!("test {name} ... ok"),
            Ok(Err(error)) => {
                failures += 1;
                println!("test {name} ... FAILED\n{error:?}");
            }
            Err(_) => {
                failures += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
