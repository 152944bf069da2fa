//! Any text as each of the documents of both formats, in an archive that is otherwise sound.
#![no_main]

mod bed;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, data) in files {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fuzz_target!(|data: &[u8]| {
    let blob = format!("blobs/sha256/{}", hex(data));
    let docker = serde_json::json!([{"Config": blob, "Layers": []}]).to_string();
    let descriptor =
        serde_json::json!({"digest": format!("sha256:{}", hex(data)), "size": data.len()});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string();
    bed::with_store(|store| {
        bed::load(store, &tar(&[("manifest.json", data)]));
        bed::load(store, &tar(&[("index.json", data)]));
        bed::load(
            store,
            &tar(&[("manifest.json", docker.as_bytes()), (&blob, data)]),
        );
        bed::load(
            store,
            &tar(&[("index.json", index.as_bytes()), (&blob, data)]),
        );
    });
});
