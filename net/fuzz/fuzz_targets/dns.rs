//! Any bytes as a DNS question, and as the response to another one.
#![no_main]

use hullbox_net::probes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| probes::dns(data));
