//! What Docker, Podman and we answer to the same commands: about containers (`lives`), networks and volumes
//! (modules of their names).
//!
//! The answers of docker 26.1.5 and podman 5.4.2 (Debian 13's packages, run with a busybox image and the file
//! events backend) were recorded with these very tables. Where either is named by `HULLBOX_TEST_DOCKER` or
//! `HULLBOX_TEST_PODMAN` (a command, such as `docker -H unix:///run/d.sock`) the record is compared with it; the
//! image `busybox` must be there.
//!
//! An answer is standard output, with `~` for a newline and one blank for several, and the exit code.
//! Where Podman differs from Docker, we have Docker's answer; where ours differs, the reason is told.

mod lives;
mod networks;
mod volumes;

use std::process::{Command, Stdio};

struct Case {
    /// A shell's command line.
    command: &'static str,
    docker: &'static str,
    podman: Option<&'static str>,
    ours: Option<&'static str>,
}

const fn case(command: &'static str, docker: &'static str) -> Case {
    Case {
        command,
        docker,
        podman: None,
        ours: None,
    }
}

impl Case {
    const fn podman(mut self, answer: &'static str) -> Self {
        self.podman = Some(answer);
        self
    }

    /// Ours differs on purpose.
    const fn ours(mut self, answer: &'static str, _reason: &'static str) -> Self {
        self.ours = Some(answer);
        self
    }
}

/// What is asked of each engine.
struct Table {
    /// Before all cases, in the same shell; `h` is the engine there, `$R` flags of `run` and `create`, and names
    /// begin with `$P`.
    setup: &'static str,
    /// What stands before each command.
    verb: &'static str,
    cases: &'static [Case],
    cleanup: &'static str,
}

impl Table {
    /// What `engine` answers to each case.
    fn answers(&self, engine: &str, flags: &str, prefix: &str) -> Vec<String> {
        let mut script = format!(
            "h() {{ {engine} \"$@\"; }}\nR='{flags}' P={prefix}\n{}",
            self.setup
        );
        for case in self.cases {
            script.push_str(&format!(
                "{{ {}{}\n}} 2>/dev/null </dev/null; printf ' rc=%s\\0' $?\n",
                self.verb, case.command
            ));
        }
        script.push_str(self.cleanup);
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).stdin(Stdio::null());
        let output = shell.output().expect("bash runs").stdout;
        let mut text = String::from_utf8_lossy(&output).replace(&format!("{prefix}-"), "t-");
        // Ports and ranges of each prefix's own, because several may be tried at a time.
        for digit in 1..=4 {
            let own = [
                (format!("10.14{digit}."), "10.N."),
                (format!("1814{digit}"), "PORT"),
            ];
            for (own, common) in own {
                text = text.replace(&own, common);
            }
        }
        text.split_terminator('\0').map(plain).collect()
    }

    fn compare(&self, answers: &[String], wanted: impl Fn(&Case) -> Option<&'static str>) {
        assert_eq!(answers.len(), self.cases.len(), "{answers:#?}");
        let differences: Vec<_> = self
            .cases
            .iter()
            .zip(answers)
            .filter_map(|(case, answer)| {
                let wanted = wanted(case)?;
                let text = format!(
                    "{}\n    wanted: {wanted}\n    answer: {answer}",
                    case.command
                );
                (wanted != answer).then_some(text)
            })
            .collect();
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    /// Ours are Docker's, or what is told beside them.
    fn compare_ours(&self, flags: &str, prefix: &str) {
        let answers = self.answers("\"$HULLBOX_BIN\"", flags, prefix);
        self.compare(&answers, |case| Some(case.ours.unwrap_or(case.docker)));
    }

    fn compare_docker(&self, flags: &str, prefix: &str) {
        if let Ok(docker) = std::env::var("HULLBOX_TEST_DOCKER") {
            self.compare(&self.answers(&docker, flags, prefix), |case| {
                Some(case.docker)
            });
        }
    }

    fn compare_podman(&self, flags: &str, prefix: &str) {
        if let Ok(podman) = std::env::var("HULLBOX_TEST_PODMAN") {
            // Its events have fields of their own.
            let wanted = |case: &Case| {
                let is_events = case.command.starts_with("events");
                (!is_events).then_some(case.podman.unwrap_or(case.docker))
            };
            self.compare(&self.answers(&podman, flags, prefix), wanted);
        }
    }
}

/// One line, with one blank for several, and no ids.
fn plain(answer: &str) -> String {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let lines = answer.lines().map(|line| {
        let words = line.split_ascii_whitespace();
        let words = words.map(|word| if is_id(&word) { "ID" } else { word });
        words.collect::<Vec<_>>().join(" ")
    });
    let text = lines.collect::<Vec<_>>().join("~");
    // The code of what ended its output with a newline is on a line of its own.
    text.replace("~rc=", " rc=").trim().to_owned()
}
