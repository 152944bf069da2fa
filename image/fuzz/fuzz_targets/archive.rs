//! Any bytes as an archive.
#![no_main]

mod bed;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| bed::with_store(|store| bed::load(store, data)));
