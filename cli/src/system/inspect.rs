//! `inspect`: everything that is known, under Docker's keys and in Docker's order.

use crate::args::system::{InspectArgs, Kind};
use crate::engine;
use crate::output::failure::{Failure, one_of};
use crate::output::stdout;
use crate::output::template::Template;
use hullbox_engine::containers::{ContainerError, Engine};
use hullbox_engine::state::StateError;
use hullbox_image::ResolveError;
use hullbox_model::exec::ExecInspect;
use hullbox_model::{container, image, network, volume};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

/// What was found.
#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Container(Box<container::Inspect>),
    Image(Box<image::Inspect>),
    Network(Box<network::Inspect>),
    Volume(Box<volume::Volume>),
    Exec(Box<ExecInspect>),
}

impl Found {
    fn to_template(&self) -> serde_json::Result<Value> {
        match self {
            Self::Container(container) => container.to_template(),
            Self::Image(image) => image.to_template(),
            Self::Network(network) => serde_json::to_value(network),
            Self::Volume(volume) => serde_json::to_value(volume),
            Self::Exec(exec) => serde_json::to_value(exec),
        }
    }
}

pub(crate) fn inspect(args: &InspectArgs, kind: Kind) -> Result<(), Failure> {
    let engine = engine::open()?;
    // As Docker: an empty one is none.
    let format = args.format.as_deref().filter(|text| !text.is_empty());
    let template = match format {
        None | Some("json") => None,
        Some(text) => {
            let parsed = Template::parse(text);
            // Docker's code for a template that is none.
            Some(parsed.map_err(|error| Failure::of("invalid --format", &error).with_code(64))?)
        }
    };
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &args.names {
        match look_up(&engine, name, kind, args.size) {
            Ok(one) => found.push(one),
            Err(failure) => missing.push(failure),
        }
    }
    let text = match (template, format) {
        (Some(template), _) => {
            let mut text = String::new();
            for one in &found {
                let rendered = template.render(&one.to_template()?);
                text.push_str(
                    &rendered.map_err(|error| Failure::of("cannot apply --format", &error))?,
                );
                text.push('\n');
            }
            text
        }
        (None, Some(_)) => format!("{}\n", serde_json::to_string(&found)?),
        (None, None) => pretty(&found)?,
    };
    stdout::print(&text)?;
    one_of(missing)
}

/// As Docker indents.
fn pretty(found: &[Found]) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let mut to = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    found.serialize(&mut to)?;
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn look_up(engine: &Engine, name: &str, kind: Kind, size: bool) -> Result<Found, Failure> {
    if matches!(kind, Kind::Container | Kind::Any) {
        match engine.find(name) {
            Ok(record) => {
                let inspect = engine.inspect_container(&record, size);
                return Ok(Found::Container(Box::new(inspect)));
            }
            Err(ContainerError::State(StateError::NotFound(_))) if kind == Kind::Any => {}
            Err(error) => return Err(error.into()),
        }
    }
    if matches!(kind, Kind::Image | Kind::Any) {
        match engine.images()?.inspect(name) {
            Ok(inspect) => return Ok(Found::Image(Box::new(inspect))),
            Err(ResolveError::NotFound(_)) if kind == Kind::Any => {}
            Err(error) => return Err(error.into()),
        }
    }
    if matches!(kind, Kind::Network | Kind::Any) {
        match engine.inspect_network(name) {
            Ok(inspect) => return Ok(Found::Network(Box::new(inspect))),
            Err(ContainerError::State(StateError::NetworkNotFound(_))) if kind == Kind::Any => {}
            Err(error) => return Err(error.into()),
        }
    }
    if matches!(kind, Kind::Volume | Kind::Any) {
        match engine.inspect_volume(name) {
            Ok(volume) => return Ok(Found::Volume(Box::new(volume))),
            Err(ContainerError::State(StateError::VolumeNotFound(_))) if kind == Kind::Any => {}
            Err(error) => return Err(error.into()),
        }
    }
    match engine.inspect_exec(name) {
        Ok(exec) => Ok(Found::Exec(Box::new(exec))),
        Err(ContainerError::NoExec(_)) if kind == Kind::Any => Err(Failure::new(format!(
            "no such container, image, network or volume: {name}"
        ))),
        Err(error) => Err(error.into()),
    }
}
