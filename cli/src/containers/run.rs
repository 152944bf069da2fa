//! `run` and `create`.

use super::cidfile::CidFile;
use super::join::{
    MONITOR_DIED, check_terminal, detach as detach_by, join, join_or_leave, own_streams,
    own_terminal_size,
};
use super::order::order;
use super::timing as account;
use crate::args::run::{PullArg, RunArgs};
use crate::engine;
use crate::output::failure::{FAILED, Failure, RUN_FAILED};
use crate::output::stdout;
use crate::registry::fetch::{self, At, Wish};
use hullbox_engine::containers::{ContainerError, Launch};
use hullbox_engine::is_in_machine;
use hullbox_engine::monitor::control::Answer;
use hullbox_engine::monitor::{Mode, ended_by_kill_now};
use hullbox_engine::paths::Roots;
use hullbox_engine::state::KILLED;
use hullbox_engine::timing::{Phase, Zero};
use hullbox_protocol::Stream;
use hullbox_session::client::{AttachOptions, Outcome};
use std::io::Write;

pub(crate) fn run(mut args: RunArgs, debug: bool, zero: Zero) -> Result<u8, Failure> {
    let shown = args.timing;
    let timing = account::since(shown, zero);
    timing.mark(Phase::Cli);
    let (tty, interactive, sig_proxy) = (args.tty, args.interactive, args.sig_proxy);
    let detach = args.detach;
    if !detach {
        check_terminal(tty, interactive).map_err(|failure| failure.or_code(FAILED))?;
    }
    let cidfile = args.cidfile().map(CidFile::create).transpose()?;
    let keys = args.detach_keys.take().unwrap_or_default();
    let mut fetch = Fetch::of(&mut args)?;
    let mut order = order(args, detach)?;
    let warnings = order.request.network.warnings(is_in_machine());
    order.request.terminal_size = tty.then(own_terminal_size).flatten();
    let roots = Roots::from_env()?;
    let launch = Launch::prepare(&roots, &order, debug, &timing)?;
    timing.mark(Phase::Spawn);
    let mut engine = engine::open_at(roots.clone())?;
    let created = match engine.create(launch, order.clone()) {
        Err(error) if fetch.helps(&error) => {
            order.image = fetch.fetch()?;
            let launch = Launch::prepare(&roots, &order, debug, &timing)?;
            engine.create(launch, order)
        }
        other => other,
    };
    let created = created.map_err(explain)?;
    warn(&warnings);
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
    let own = own_streams(interactive, tty || detach || timing.is_on())?;
    // As Docker does, whether it can be started or not: it was made.
    let tell = || match detach {
        true => stdout::print(&format!("{id}\n")),
        false => Ok(()),
    };
    let mut monitor = match engine.start(created, mode, own) {
        Ok(monitor) => monitor,
        Err(error) => {
            // Why it was not started is worth more than why that cannot be told.
            let _ = tell();
            return Err(error.into());
        }
    };
    timing.mark(Phase::Order);
    let options = AttachOptions {
        stdin: interactive && !detach && !monitor.direct.contains(Stream::Stdin),
        tty: tty && !detach,
        sig_proxy: sig_proxy && !detach,
        detach: detach_by(keys).filter(|_| tty && interactive && !detach),
        ..AttachOptions::default()
    };
    // With a terminal, an output that nobody reads any more is reported as a hang-up.
    let join = if options.tty { join_or_leave } else { join };
    let joint = join(monitor.connection, options)?;
    timing.mark(Phase::Wait);
    account::show(shown, &timing, joint.timing.as_ref());
    let told = tell();
    if detach && matches!(joint.answer, Some(Answer::Done)) {
        return told.map(|()| 0);
    }
    match joint.outcome {
        // The connection is closed, so the monitor kills the workload and tidies up. Its process may
        // stay longer than that, for other clients that have not read all.
        Outcome::Interrupted(_) | Outcome::Unread => engine.wait_until_let_go(&record)?,
        Outcome::Disconnected => {
            // Reaped, it no longer holds the container's lock.
            let ended = monitor.process.wait();
            engine.recover()?;
            if ended.is_ok_and(ended_by_kill_now) {
                return Ok(KILLED);
            }
        }
        _ => {}
    }
    joint.code(MONITOR_DIED)
}

/// `create`.
pub(crate) fn create(mut args: RunArgs) -> Result<(), Failure> {
    account::refuse(args.timing, "give it to run or start")?;
    let cidfile = args.cidfile().map(CidFile::create).transpose()?;
    let mut fetch = Fetch::of(&mut args)?;
    let mut order = order(args, false).map_err(|failure| failure.or_code(RUN_FAILED))?;
    let warnings = order.request.network.warnings(is_in_machine());
    let mut engine = engine::open()?;
    let record = match engine.create_only(order.clone()) {
        Err(error) if fetch.helps(&error) => {
            order.image = fetch.fetch()?;
            engine.create_only(order)
        }
        other => other,
    };
    let record = record.map_err(explain)?;
    warn(&warnings);
    if let Some(mut file) = cidfile {
        file.write(&record.id)?;
    }
    stdout::print(&format!("{}\n", record.id))
}

/// What is done about an image that is not there.
struct Fetch {
    wish: Option<Wish>,
    /// The process that has forwarded this command does it.
    by_caller: bool,
}

impl Fetch {
    /// Fetches the image at once where that is asked for.
    fn of(args: &mut RunArgs) -> Result<Self, Failure> {
        let wish = Wish::of(args);
        if let (PullArg::Always, Some(wish), Some(image)) =
            (args.pull, &wish, args.words.first_mut())
        {
            *image = wish.fetch(At::Here)?.into();
        }
        Ok(Self {
            wish: wish.filter(|wish| wish.policy == PullArg::Missing),
            by_caller: args.is_fetched_by_caller,
        })
    }

    /// Whether fetching may be the remedy.
    const fn helps(&self, error: &ContainerError) -> bool {
        self.wish.is_some()
            && matches!(
                error,
                ContainerError::NoImage(_) | ContainerError::OtherPlatform { .. }
            )
    }

    /// Fetches the image, once, and gives its name.
    fn fetch(&mut self) -> Result<String, Failure> {
        match self.wish.take() {
            Some(_) if self.by_caller => Err(fetch::leave_to_caller()),
            Some(wish) => wish.fetch(At::Here),
            None => Err(Failure::new("there is no image to fetch")),
        }
    }
}

/// Says what was not done of what was asked for.
fn warn(warnings: &[&str]) {
    for warning in warnings {
        // A warning that cannot be written is no reason to fail.
        let _ = writeln!(std::io::stderr(), "hullbox: warning: {warning}");
    }
}

fn explain(error: ContainerError) -> Failure {
    let hint = match &error {
        ContainerError::NoImage(_) => {
            Some("get it with 'hullbox pull' or 'hullbox load -i FILE'".to_owned())
        }
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
