//! `start`, `stop` and the other commands that change the state of a container.

use super::join::{MONITOR_DIED, check_terminal, detach, join, join_or_leave};
use super::order::without_slash;
use super::timing as account;
use crate::args::container::{
    ConditionArg, KillArgs, NamesArgs, RenameArgs, StartArgs, StopArgs, UpdateArgs, WaitArgs,
};
use crate::engine;
use crate::output::failure::{FAILED, Failure, one_of};
use crate::output::stdout;
use hullbox_engine::containers::{Condition, ContainerError, Engine, Launch};
use hullbox_engine::monitor::control::Answer;
use hullbox_engine::monitor::{Mode, ended_by_kill_now};
use hullbox_engine::plan::HostFacts;
use hullbox_engine::plan::life::STOP_TIMEOUT_S;
use hullbox_engine::plan::units::NanoCpus;
use hullbox_engine::state::{KILLED, Record};
use hullbox_engine::timing::{Phase, Timing, Zero};
use hullbox_model::event::Verb;
use hullbox_protocol::CgroupLimits;
use hullbox_session::client::{AttachOptions, Outcome};
use hullbox_session::direct::Descriptors;

/// Does the same to each container; prints the names of those it was done to.
fn each(
    names: &[String],
    mut act: impl FnMut(&mut Engine, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut engine = engine::open()?;
    let mut failures = Vec::new();
    for name in names {
        match act(&mut engine, name) {
            Ok(()) => stdout::print(&format!("{name}\n"))?,
            Err(failure) => failures.push(failure),
        }
    }
    one_of(failures)
}

pub(crate) fn start(args: StartArgs, debug: bool, zero: Zero) -> Result<u8, Failure> {
    if args.attach || args.interactive {
        if args.names.len() > 1 {
            return Err(Failure::new("only one container can be attached to"));
        }
        return start_attached(args, debug, zero);
    }
    account::refuse(args.timing, "attach to it with -a")?;
    each(&args.names, |engine, name| {
        match start_detached(engine, name, debug) {
            // As Docker: what runs has been started.
            Err(StartError::Engine(ContainerError::RunningAlready(_))) => {
                let record = engine.find(name)?;
                Ok(engine.wait_for_start(&record)?)
            }
            Err(StartError::Engine(error)) => Err(error.into()),
            Err(StartError::Said(failure)) => Err(failure),
            Ok(()) => Ok(()),
        }
    })?;
    Ok(0)
}

enum StartError {
    Engine(ContainerError),
    Said(Failure),
}

impl From<ContainerError> for StartError {
    fn from(error: ContainerError) -> Self {
        Self::Engine(error)
    }
}

fn start_detached(engine: &mut Engine, name: &str, debug: bool) -> Result<(), StartError> {
    let record = engine.find(name)?;
    let timing = Timing::default();
    let launch = Launch::prepare_for(engine.roots(), &record, debug, &timing)?;
    let created = engine.take(launch)?;
    let monitor = engine.start(created, Mode::Detached, Descriptors::default())?;
    let joint = join(monitor.connection, AttachOptions::default()).map_err(StartError::Said)?;
    if matches!(joint.answer, Some(Answer::Done)) {
        return Ok(());
    }
    let failure = match joint.code(MONITOR_DIED) {
        Ok(_) => Failure::new(format!("container {name} did not start")),
        // Docker's `start` has one exit code for all reasons.
        Err(failure) => failure.with_code(FAILED),
    };
    Err(StartError::Said(failure))
}

fn start_attached(args: StartArgs, debug: bool, zero: Zero) -> Result<u8, Failure> {
    let timing = account::since(args.timing, zero);
    timing.mark(Phase::Cli);
    let mut engine = engine::open()?;
    let record = engine.find(&args.names[0])?;
    let tty = record.spec.process.terminal.is_some();
    let stdin = args.interactive && record.spec.process.stdin;
    check_terminal(tty, stdin)?;
    let launch = Launch::prepare_for(engine.roots(), &record, debug, &timing)?;
    timing.mark(Phase::Spawn);
    let created = engine.take(launch)?;
    timing.mark(Phase::Store);
    let mut monitor = engine.start(created, Mode::Attached { stdin }, Descriptors::default())?;
    timing.mark(Phase::Order);
    let keys = detach(args.detach_keys.unwrap_or_default());
    let options = AttachOptions {
        stdin,
        tty,
        sig_proxy: true,
        detach: keys.filter(|_| tty && stdin),
        ..AttachOptions::default()
    };
    let joint = join_or_leave(monitor.connection, options)?;
    timing.mark(Phase::Wait);
    account::show(args.timing, &timing, joint.timing.as_ref());
    if matches!(joint.outcome, Outcome::Disconnected) {
        let ended = monitor.process.wait();
        engine.recover()?;
        if ended.is_ok_and(ended_by_kill_now) {
            return Ok(KILLED);
        }
    }
    if let Outcome::Failed(failure) = joint.outcome {
        // It did not start, which is not an end of the workload's: as in Docker.
        return Err(Failure::new(failure.message));
    }
    joint.code(MONITOR_DIED)
}

/// How long to wait before SIGKILL: as typed, else as the container is configured, else Docker's default.
fn timeout_ms(typed_s: Option<i64>, record: &Record) -> Option<u64> {
    let seconds = typed_s
        .or(record.spec.life.stop_timeout_s)
        .unwrap_or_else(|| STOP_TIMEOUT_S.into());
    // A negative number is no end.
    let seconds = u64::try_from(seconds).ok()?;
    Some(seconds.saturating_mul(1000))
}

fn stop_one(engine: &Engine, name: &str, args: &StopArgs) -> Result<(), Failure> {
    let record = engine.find(name)?;
    let timeout_ms = timeout_ms(args.timeout_s, &record);
    let signal = args.signal.map(|signal| signal.0);
    Ok(engine.stop(&record, signal, timeout_ms)?)
}

pub(crate) fn stop(args: &StopArgs) -> Result<(), Failure> {
    each(&args.names, |engine, name| stop_one(engine, name, args))
}

pub(crate) fn restart(args: &StopArgs, debug: bool) -> Result<(), Failure> {
    each(&args.names, |engine, name| {
        stop_one(engine, name, args)?;
        engine.recover()?;
        match start_detached(engine, name, debug) {
            Ok(()) => {
                let record = engine.find(name)?;
                engine.note(&record, Verb::Restart);
                Ok(())
            }
            Err(StartError::Engine(error)) => Err(error.into()),
            Err(StartError::Said(failure)) => Err(failure),
        }
    })
}

pub(crate) fn kill(args: &KillArgs) -> Result<(), Failure> {
    each(&args.names, |engine, name| {
        let record = engine.find(name)?;
        Ok(engine.signal(&record, args.signal.0)?)
    })
}

pub(crate) fn pause(args: &NamesArgs, pause: bool) -> Result<(), Failure> {
    let verb = if pause { "pause" } else { "unpause" };
    each(&args.names, |engine, name| {
        let record = engine.find(name)?;
        // The monitor's refusal does not name the container.
        engine.pause(&record, pause).map_err(|error| match error {
            ContainerError::Refused(_) => Failure::of(format!("cannot {verb} {name}"), &error),
            error => error.into(),
        })
    })
}

pub(crate) fn wait(args: &WaitArgs) -> Result<(), Failure> {
    let engine = engine::open()?;
    let condition = match args.condition {
        ConditionArg::NotRunning => Condition::NotRunning,
        ConditionArg::NextExit => Condition::NextExit,
        ConditionArg::Removed => Condition::Removed,
    };
    // All of them first: what happens to the last while the first is waited for counts.
    let arm = |name: &String| engine.arm(&engine.find(name)?, condition);
    let armed: Vec<_> = args.names.iter().map(arm).collect();
    let mut failures = Vec::new();
    for armed in armed {
        match armed.and_then(|armed| engine.wait_armed(armed)) {
            Ok(code) => stdout::print(&format!("{code}\n"))?,
            Err(error) => failures.push(error.into()),
        }
    }
    one_of(failures)
}

pub(crate) fn rename(args: &RenameArgs) -> Result<(), Failure> {
    Ok(engine::open()?.rename(&args.name, without_slash(&args.new_name))?)
}

/// 0 leaves a limit as it is.
fn limits(args: &UpdateArgs) -> CgroupLimits {
    CgroupLimits {
        memory_bytes: args.memory.map_or(0, |bytes| bytes.0),
        pids: match args.pids_limit {
            // As Docker has it, 0 and less take the limit away.
            Some(..=0) => u64::MAX,
            Some(limit) => u64::try_from(limit).unwrap_or(0),
            None => 0,
        },
        cpu_quota_us: args.cpus.map_or(0, NanoCpus::quota_us),
    }
}

pub(crate) fn update(args: &UpdateArgs) -> Result<(), Failure> {
    let limits = limits(args);
    if let Some(cpus) = args.cpus {
        HostFacts::probe().check_cpus(cpus)?;
    }
    let limited = limits != CgroupLimits::default();
    if !limited && args.restart.is_none() {
        return Err(Failure::new("nothing to update")
            .with_hint("give --memory, --cpus, --pids-limit or --restart"));
    }
    each(&args.names, |engine, name| {
        let record = engine.find(name)?;
        if limited {
            engine.update(&record, limits)?;
        }
        if let Some(restart) = args.restart {
            engine.set_restart(&record, restart)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: UpdateArgs,
    }

    #[test]
    fn limits_are_those_that_run_would_set() {
        let of = |flags: &str| {
            let words = ["update"].into_iter().chain(flags.split(' '));
            limits(&Line::try_parse_from(words).unwrap().args)
        };
        for (cpus, quota_us) in [("1.5", 150_000), ("0.005", 1000), ("0", 0)] {
            let typed: NanoCpus = cpus.parse().unwrap();
            let asked = of(&format!("--cpus {cpus} box"));
            assert_eq!(asked.cpu_quota_us, quota_us, "{cpus}");
            assert_eq!(asked.cpu_quota_us, typed.quota_us(), "{cpus}");
        }
        assert_eq!(of("-m 64m box").memory_bytes, 64 << 20);
        assert_eq!(of("--pids-limit -1 box").pids, u64::MAX);
        assert_eq!(of("--restart no box"), CgroupLimits::default());
    }
}
