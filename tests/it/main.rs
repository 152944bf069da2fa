//! Integration tests on the real program, a real kernel and real images. One binary: `make test`.
#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod archives;
mod basics;
mod bench;
mod crowd;
mod events;
mod files;
mod files_outside;
mod files_vm;
mod guest;
mod hostile;
mod images;
mod killed;
mod killed_lives;
mod late;
mod life;
mod limits;
mod machine;
mod models;
mod network;
mod network_life;
mod networks;
mod networks_copies;
mod networks_killed;
mod networks_policy;
mod networks_traffic;
mod orphans;
mod outcomes;
mod own_machine;
mod pipes;
mod power;
mod privileges;
mod reference;
mod reference_lives;
mod registry;
mod servers;
mod signals;
mod silent;
mod snapshots;
mod systems;
mod table;
mod templates;
mod terminal;
mod timing;
mod volumes;
mod waits;
mod words;
