//! Any bytes as a TCP segment, and as what a member says of a flow's numbers.
#![no_main]

use hullbox_net::probes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    probes::segment(data);
    probes::numbers(data);
});
