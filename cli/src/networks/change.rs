//! `network create`, `rm`, `connect` and `disconnect`.

use crate::args::network::{
    KeyValue, NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkRmArgs,
};
use crate::engine;
use crate::output::failure::{Failure, one_of};
use crate::output::stdout;
use hullbox_engine::containers::ContainerError;
use hullbox_engine::networks::NetworkOrder;
use hullbox_engine::plan::ipam::PoolRequest;
use hullbox_engine::plan::network::Attachment;
use hullbox_engine::state::StateError;

pub(super) fn create(args: NetworkCreateArgs) -> Result<(), Failure> {
    let pair = |KeyValue(key, value): KeyValue| (key, value);
    let order = NetworkOrder {
        name: args.name,
        driver: args.driver,
        pools: PoolRequest {
            subnets: args.subnet,
            ranges: args.ip_range,
            gateways: args.gateway,
            auxiliary: args.aux_address.into_iter().map(pair).collect(),
            ipv6: args.ipv6,
        },
        internal: args.internal,
        attachable: args.attachable,
        labels: args.label.into_iter().map(|l| (l.key, l.value)).collect(),
        options: args.opt.into_iter().map(pair).collect(),
    };
    let id = engine::open()?.create_network(order)?;
    stdout::print(&format!("{id}\n"))
}

pub(super) fn remove(args: &NetworkRmArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let mut failures = Vec::new();
    for name in &args.names {
        match engine.remove_network(name) {
            Ok(()) => stdout::print(&format!("{name}\n"))?,
            // As in Docker: not even a word.
            Err(ContainerError::State(StateError::NetworkNotFound(_))) if args.force => {}
            Err(error) => failures.push(error.into()),
        }
    }
    one_of(failures)
}

pub(super) fn connect(args: NetworkConnectArgs) -> Result<(), Failure> {
    let typed = Attachment {
        aliases: args.alias,
        ipv4: args.ip,
        ipv6: args.ip6,
        ..Attachment::default()
    };
    Ok(engine::open()?.connect_network(&args.network, &args.container, &typed)?)
}

pub(super) fn disconnect(args: &NetworkDisconnectArgs) -> Result<(), Failure> {
    Ok(engine::open()?.disconnect_network(&args.network, &args.container)?)
}
