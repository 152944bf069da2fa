//! `volume create`, `rm` and `update`.

use crate::args::network::KeyValue;
use crate::args::volume::{VolumeCreateArgs, VolumeRmArgs, VolumeUpdateArgs};
use crate::engine;
use crate::output::failure::{Failure, one_of};
use crate::output::stdout;
use hullbox_engine::containers::ContainerError;
use hullbox_engine::state::StateError;
use hullbox_engine::volumes::VolumeOrder;

pub(super) fn create(args: VolumeCreateArgs) -> Result<(), Failure> {
    let options = args.options();
    let name = match (args.name, args.named) {
        (Some(_), Some(_)) => {
            return Err(Failure::new(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            ));
        }
        (name, named) => name.or(named).unwrap_or_default(),
    };
    let order = VolumeOrder {
        name,
        driver: args.driver,
        labels: args.label.into_iter().map(|l| (l.key, l.value)).collect(),
        options,
        outside: args.outside,
    };
    let name = engine::open()?.create_volume(order)?;
    stdout::print(&format!("{name}\n"))
}

pub(super) fn remove(args: &VolumeRmArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let mut failures = Vec::new();
    for name in &args.names {
        match engine.remove_volume(name) {
            Ok(()) => stdout::print(&format!("{name}\n"))?,
            // As in Docker.
            Err(ContainerError::State(StateError::VolumeNotFound(_))) if args.force => {
                stdout::print(&format!("{name}\n"))?;
            }
            Err(error) => failures.push(error.into()),
        }
    }
    one_of(failures)
}

pub(super) fn update(args: &VolumeUpdateArgs) -> Result<(), Failure> {
    let mut size = None;
    for KeyValue(key, value) in &args.opt {
        match key.as_str() {
            "size" => size = Some(value),
            key => return Err(Failure::new(format!("option {key:?} cannot be changed"))),
        }
    }
    if let Some(size) = size {
        engine::open()?.grow_volume(&args.name, size)?;
    }
    stdout::print(&format!("{}\n", args.name))
}
