//! An archive may have more layers than a process has descriptors.

mod common;

use common::archive::Layout;
use common::testing::TarBuilder;
use hullbox_image::{LoadOptions, Source, Store};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::process::Command;

/// Layers that need those below: each removes something.
fn dependent(image: usize, layer: usize) -> Vec<u8> {
    TarBuilder::default()
        .file(&format!("{image}-{layer}"), b"x")
        .file(".wh.gone", b"")
        .finish()
}

#[test]
#[ignore = "a child process of another test"]
fn child_that_loads() {
    if std::env::var_os("FEW_DESCRIPTORS").is_none() {
        return;
    }
    let few = Rlimit {
        current: Some(300),
        maximum: Some(300),
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let mut layout = Layout::new();
    let mut images = Vec::new();
    for image in 0..5 {
        let layers: Vec<_> = (0..100).map(|layer| dependent(image, layer)).collect();
        let layers: Vec<&[u8]> = layers.iter().map(|layer| &layer[..]).collect();
        let mut descriptor = layout.image(&layers, |_| {});
        let name = format!("test:{image}");
        descriptor["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
        images.push(descriptor);
    }
    layout.index(&images);
    let archive = layout.tar();
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let mut stream = &archive[..];
    let source = Source::Stream(&mut stream);
    let loaded = store
        .load(source, &LoadOptions::default(), &mut |_| {})
        .unwrap();
    assert_eq!(loaded.len(), 5);
    println!("loaded five images");
}

#[test]
fn five_hundred_dependent_layers_are_loaded_with_few_descriptors() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_loads", "--ignored", "--nocapture"])
        .env("FEW_DESCRIPTORS", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("loaded five images"), "{text}{error}");
}
