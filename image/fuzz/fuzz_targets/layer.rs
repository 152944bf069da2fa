//! Any bytes as a layer. Checksums of headers are mended first, else nothing would get past them.
#![no_main]

mod bed;

use hullbox_image::{ImportOptions, Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut tar = data.to_vec();
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bed::with_store(|store| {
        let mut stream = &tar[..];
        let source = Source::Stream(&mut stream);
        if let Ok(id) = store.import(source, &ImportOptions::default(), &mut |_| {}) {
            store
                .resolve(&id.hex())
                .expect("what was imported is there");
        }
    });
});
