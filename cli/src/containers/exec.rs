//! `exec` and `attach`.

use super::join::{
    MONITOR_DIED, check_terminal, detach, join, join_or_leave, own_streams, own_terminal_size,
};
use super::timing as account;
use crate::args::container::{AttachArgs, ExecArgs};
use crate::engine;
use crate::output::failure::Failure;
use hullbox_engine::containers::{ContainerError, ExecOrder};
use hullbox_engine::plan::environment;
use hullbox_engine::state::{self, Record};
use hullbox_engine::timing::{Phase, Zero};
use hullbox_protocol::Stream;
use hullbox_session::client::{AttachOptions, Outcome};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// The failure of an `exec` whose connection broke before the process ended.
const CONTAINER_GONE: &str = "the container ended";

pub(crate) fn exec(args: ExecArgs, zero: Zero) -> Result<u8, Failure> {
    let timing = account::since(args.timing, zero);
    timing.mark(Phase::Cli);
    let attached = !args.detach;
    if attached {
        check_terminal(args.tty, args.interactive)?;
    }
    let engine = engine::open()?;
    let mut words = args.words.into_iter();
    let name = words.next().unwrap_or_default();
    let record = engine.find(&name.to_string_lossy())?;
    check_running(&record)?;
    let mut env = Vec::new();
    for path in &args.env_file {
        env.extend(environment::from_file(path, &environment::own)?);
    }
    for argument in args.env {
        env.push(environment::from_argument(
            &argument.into_vec(),
            &environment::own,
        )?);
    }
    let order = ExecOrder {
        argv: words.map(OsString::into_vec).collect(),
        env,
        workdir: args.workdir,
        user: args.user,
        terminal: args.tty.then(|| own_terminal_size().unwrap_or_default()),
        interactive: args.interactive && attached,
        privileged: args.privileged,
    };
    timing.mark(Phase::Store);
    let own = own_streams(args.interactive, args.tty || args.detach || timing.is_on())?;
    let joined = engine.exec(&record, order, args.detach, &timing, own)?;
    timing.mark(Phase::Order);
    let keys = detach(args.detach_keys.unwrap_or_default());
    let options = AttachOptions {
        stdin: args.interactive && attached && !joined.direct.contains(Stream::Stdin),
        tty: args.tty && attached,
        sig_proxy: attached,
        detach: keys.filter(|_| args.tty && args.interactive && attached),
        ..AttachOptions::default()
    };
    let join = if options.tty { join_or_leave } else { join };
    let joint = join(joined.connection, options)?;
    timing.mark(Phase::Wait);
    account::show(args.timing, &timing, joint.timing.as_ref());
    if args.detach && joint.started {
        return Ok(0);
    }
    if joint.answer.is_none() && matches!(joint.outcome, Outcome::Disconnected) {
        // What still ran in the container was killed with it.
        return Err(Failure::new(CONTAINER_GONE).with_code(128 + 9));
    }
    joint.code(CONTAINER_GONE)
}

pub(crate) fn attach(args: AttachArgs) -> Result<u8, Failure> {
    let engine = engine::open()?;
    let record = engine.find(&args.name)?;
    check_running(&record)?;
    let tty = record.spec.process.terminal.is_some();
    let stdin = record.spec.process.stdin && !args.no_stdin;
    check_terminal(tty, stdin)?;
    let joined = engine.attach(&record, stdin)?;
    let keys = detach(args.detach_keys.unwrap_or_default());
    let options = AttachOptions {
        stdin,
        // Others may have used up the credit that a new process grants.
        input_credit: 0,
        tty,
        sig_proxy: args.sig_proxy,
        detach: keys.filter(|_| tty && stdin),
        ..AttachOptions::default()
    };
    join_or_leave(joined.connection, options)?.code(MONITOR_DIED)
}

fn check_running(record: &Record) -> Result<(), Failure> {
    match record.phase {
        state::Phase::Running | state::Phase::Starting => Ok(()),
        state::Phase::Paused => Err(Failure::new(format!("container {} is paused", record.name))
            .with_hint(format!(
                "let it go on with 'hullbox unpause {}'",
                record.name
            ))),
        state::Phase::Restarting => Err(Failure::new(format!(
            "container {} is restarting: wait until it runs",
            record.name
        ))),
        state::Phase::Created | state::Phase::Exited => {
            Err(ContainerError::NotRunning(record.name.clone()).into())
        }
    }
}
