//! `run` and `create`.

use crate::cidfile::CidFile;
use crate::failure::{FAILED, Failure, RUN_FAILED};
use crate::join::{check_terminal, join, join_or_leave, own_terminal_size};
use crate::run_args::RunArgs;
use crate::{forward, output, system};
use hullbox_engine::containers::{ContainerError, Launch};
use hullbox_engine::monitor::control::Answer;
use hullbox_engine::monitor::{Mode, ended_as_told};
use hullbox_engine::paths::Roots;
use hullbox_engine::state::KILLED;
use hullbox_engine::timing::{Phase, Zero};
use hullbox_protocol::INITIAL_CREDIT;
use hullbox_session::client::{AttachOptions, Outcome};

/// What a container looks like that its monitor cannot tell about.
pub(crate) const MONITOR_DIED: &str = "the container's monitor was killed";

pub(crate) fn run(mut args: RunArgs, debug: bool, zero: Zero) -> Result<u8, Failure> {
    let shown = args.timing;
    let timing = shown.since(zero);
    timing.mark(Phase::Cli);
    let (tty, interactive, sig_proxy) = (args.tty, args.interactive, args.sig_proxy);
    let detach = args.detach;
    if !detach {
        check_terminal(tty, interactive).map_err(|failure| failure.or_code(FAILED))?;
    }
    let cidfile = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let keys = args.detach_keys.take().unwrap_or_default();
    let mut order = args.order(detach)?;
    order.request.terminal_size = tty.then(own_terminal_size).flatten();
    let roots = Roots::from_env()?;
    let launch = Launch::prepare(&roots, &order, debug, &timing)?;
    timing.mark(Phase::Spawn);
    let mut engine = system::open(roots)?;
    let created = engine.create(launch, order).map_err(explain)?;
    timing.mark(Phase::Store);
    let record = created.record.clone();
    let id = &record.id;
    if let Some(mut file) = cidfile {
        file.write(id)?;
    }
    let mode = if detach {
        Mode::Detached
    } else {
        Mode::Foreground
    };
    let mut monitor = engine.start(created, mode)?;
    timing.mark(Phase::Order);
    let options = AttachOptions {
        session: 0,
        stdin: interactive && !detach,
        input_credit: INITIAL_CREDIT,
        tty: tty && !detach,
        sig_proxy: sig_proxy && !detach,
        detach: keys.detach().filter(|_| tty && interactive && !detach),
    };
    // What a terminal writes to nobody is told of: it hangs up.
    let join = if options.tty { join_or_leave } else { join };
    let joint = join(monitor.connection, options)?;
    timing.mark(Phase::Wait);
    shown.show(&timing, joint.timing.as_ref());
    if detach && matches!(joint.answer, Some(Answer::Done)) {
        output::print(&format!("{id}\n"))?;
        return Ok(0);
    }
    match joint.outcome {
        // The connection is closed, so the monitor kills the workload and tidies up. Its process may
        // stay longer than that, for other clients that have not read all.
        Outcome::Interrupted(_) | Outcome::Unread => engine.wait_until_let_go(&record)?,
        Outcome::Disconnected => {
            // Reaped, it no longer holds the container's lock.
            let ended = monitor.process.wait();
            engine.recover()?;
            if ended.is_ok_and(ended_as_told) {
                return Ok(KILLED);
            }
        }
        _ => {}
    }
    joint.code(MONITOR_DIED)
}

/// `create`.
pub(crate) fn create(args: RunArgs) -> Result<(), Failure> {
    args.timing.refuse("give it to run or start")?;
    let cidfile = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let order = args
        .order(false)
        .map_err(|failure| failure.or_code(RUN_FAILED))?;
    let record = system::engine()?.create_only(order).map_err(explain)?;
    if let Some(mut file) = cidfile {
        file.write(&record.id)?;
    }
    output::print(&format!("{}\n", record.id))
}

fn explain(error: ContainerError) -> Failure {
    let hint = match &error {
        ContainerError::NoImage(_) => Some(
            "there is no registry support yet: load the image with 'hullbox load -i FILE', \
             and see 'hullbox images'"
                .to_owned(),
        ),
        ContainerError::State(hullbox_engine::state::StateError::NameInUse { name, .. }) => Some(
            format!("remove it with 'hullbox rm {name}', or choose another name"),
        ),
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// Whether a command line is to be forwarded with its terminal and input: see [`forward`].
pub(crate) fn wants(args: &RunArgs) -> forward::Streams {
    forward::Streams {
        stdin: args.interactive && !args.detach,
        terminal: args.tty && !args.detach,
    }
}
