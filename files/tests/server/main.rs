//! The process itself, started as a monitor starts it, and talked to as a guest's kernel does: this program
//! is `hullbox __files` when it is told so.
//!
//! Needs root for most of it; says so and passes elsewhere.
#![forbid(unsafe_code)]

mod client;
mod data;
mod files;
mod guest;
mod host;
mod hostile;
mod locks;
mod mounted;
mod user;

use std::ffi::OsString;
use std::process::ExitCode;

type Case = (&'static str, fn() -> anyhow::Result<()>);

macro_rules! case {
    ($room:ident::$name:ident) => {
        (
            concat!(stringify!($room), "::", stringify!($name)),
            $room::$name,
        )
    };
}

const CASES: &[Case] = &[
    case!(files::files_are_read_and_written),
    case!(files::appends_go_to_the_end_and_pages_to_their_place),
    case!(hostile::names_lead_nowhere),
    case!(hostile::a_deleted_directory_takes_nothing),
    case!(hostile::a_directory_that_was_moved_out_leads_no_further),
    case!(hostile::numbers_of_others_are_nothing),
    case!(hostile::the_root_is_fixed),
    case!(hostile::symbolic_links_are_texts),
    case!(hostile::a_read_only_export_stays_as_it_is),
    case!(hostile::there_is_no_window_into_the_hosts_cache),
    case!(hostile::devices_are_not_made),
    case!(hostile::sizes_and_numbers_may_lie),
    case!(hostile::a_message_that_is_none_ends_the_stream),
    case!(hostile::chance_finds_no_way_out),
    case!(guest::its_names_lead_nowhere),
    case!(guest::it_changes_nothing_that_is_read_only),
    case!(guest::its_queue_may_lie),
    case!(locks::record_locks_hold_among_guests),
    case!(locks::whole_locks_hold_with_the_host),
    case!(locks::who_waits_gets_it_or_is_called_back),
    case!(locks::waiting_is_bounded),
    case!(host::swaps_lead_nowhere),
    case!(host::what_the_host_removes_is_an_error),
    case!(host::a_full_disk_is_told),
    case!(host::what_hangs_holds_nothing_else),
    case!(host::it_has_few_rights_and_sees_nothing_else),
    case!(host::it_ends_with_its_stream),
    case!(host::what_is_not_there_is_told),
    case!(mounted::programs_find_what_they_know),
    case!(mounted::what_is_made_belongs_to_who_makes_it),
    case!(mounted::attributes_and_locks_are_the_hosts),
    case!(mounted::repositories_and_databases_work),
    case!(mounted::an_exclusive_volume_is_written_later),
    case!(mounted::a_server_that_is_gone_is_an_error),
    case!(data::what_is_written_is_read),
    case!(data::what_is_written_later_is_read),
    case!(locks::a_wal_index_is_one_guests_or_the_hosts),
    case!(mounted::databases_of_several_stay_whole),
    case!(user::the_callers_files_are_the_guests_roots),
    case!(user::a_volume_keeps_the_guests_owners),
    case!(user::its_rights_are_the_users),
];

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args
        .first()
        .is_some_and(|word| word == hullbox_files::ENTRY)
    {
        return hullbox_files::main(&args[1..]);
    }
    let words: Vec<_> = args.iter().filter_map(|word| word.to_str()).collect();
    let wanted = words.iter().find(|word| !word.starts_with('-'));
    if words.contains(&"--list") {
        for (name, _) in CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root");
        return ExitCode::SUCCESS;
    }
    // Mounts of these tests are nobody else's.
    let apart = hullbox_host::sys::mounts::Apart {
        mounts: true,
        ..Default::default()
    };
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    let alone = hullbox_host::sys::mounts::unshare(apart)
        .and_then(|()| Ok(rustix::mount::mount_change("/", private)?));
    if let Err(error) = alone {
        eprintln!("skipped: no mount namespace: {error}");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, case) in CASES {
        if wanted.is_some_and(|wanted| !name.contains(*wanted)) {
            continue;
        }
        let outcome = case();
        println!(
            "test {name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        if let Err(error) = outcome {
            println!("  {error:#}");
            failed += 1;
        }
    }
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
