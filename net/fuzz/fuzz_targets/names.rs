//! Any bytes as the beginning of a connection that has to tell a name.
#![no_main]

use hullbox_net::probes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| probes::names(data));
