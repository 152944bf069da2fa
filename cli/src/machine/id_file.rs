//! `--cidfile` of a forwarded command. This process chooses the id beforehand, and writes the file when
//! the machine's events show that the container was created.

use crate::args::forwarded::Forwarded;
use crate::containers::cidfile::CidFile;
use crate::output::failure::{FAILED, Failure, RUN_FAILED};
use hullbox_engine::state;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// Runs the command in the machine with `run`, and writes the id to `path`; `early`: while the command
/// still runs.
///
/// # Errors
/// Of `run`, or the file exists or cannot be written.
pub(super) fn write(
    path: &Path,
    early: bool,
    run: impl FnOnce(&Forwarded) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let mut file = CidFile::create(path)?;
    let id = state::new_id().map_err(|error| Failure::of("cannot make a container id", &error))?;
    let forwarded = Forwarded {
        container_id: Some(id.clone()),
        ..Forwarded::default()
    };
    if !early {
        let code = run(&forwarded)?;
        if code == 0 || was_created(&id) {
            file.write(&id)?;
        }
        return Ok(code);
    }
    let watch = Watch::begin(file, id.clone());
    let result = run(&forwarded);
    let mut file = watch.end()?;
    let ran = matches!(result, Ok(code) if code != RUN_FAILED && code != FAILED);
    if !file.is_written() && (ran || was_created(&id)) {
        file.write(&id)?;
    }
    result
}

/// `events` of this program, to find out whether a container was created.
fn events(id: &str, more: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["events", "--since", "24h", "--filter", "event=create"])
        .args([
            "--filter",
            &format!("container={id}"),
            "--format",
            "{{.Action}}",
        ])
        .args(more)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}

fn was_created(id: &str) -> bool {
    events(id, &["--until", "0"])
        .and_then(|mut command| command.output())
        .is_ok_and(|output| !output.stdout.is_empty())
}

/// Writes the file as soon as the container is created.
struct Watch {
    writer: JoinHandle<Result<CidFile, Failure>>,
    events: Option<Child>,
}

impl Watch {
    fn begin(mut file: CidFile, id: String) -> Self {
        let spawned = events(&id, &[]).and_then(|mut c| c.stdout(Stdio::piped()).spawn());
        // Without it, the file is written at the end.
        let mut events = spawned.ok();
        let output = events.as_mut().and_then(|child| child.stdout.take());
        let writer = std::thread::spawn(move || {
            let mut line = String::new();
            let read = output.map(|output| BufReader::new(output).read_line(&mut line));
            if matches!(read, Some(Ok(1..))) {
                file.write(&id)?;
            }
            Ok(file)
        });
        Self { writer, events }
    }

    fn end(mut self) -> Result<CidFile, Failure> {
        if let Some(mut child) = self.events.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.writer
            .join()
            .unwrap_or_else(|_| Err(Failure::new("cannot write the container id file")))
    }
}
