//! Networks that containers share, as far as no traffic is needed: made, listed, removed (`records`); addresses
//! that are asked for, given and taken, names, and what is refused (`members`); and changes (`changes`).

mod changes;
mod members;
mod records;

use hullbox_tests::{Done, Mode, hullbox};

/// A network that is removed with its test.
struct Net {
    name: String,
    id: String,
}

impl Net {
    fn new(name: &str, flags: &[&str]) -> Self {
        let _ = hullbox(["network", "rm", "-f", name]);
        let id = create(name, flags).exits(0).text();
        assert_eq!(id.len(), 64, "{id}");
        let name = name.to_owned();
        Self { name, id }
    }

    fn inspect(&self, template: &str) -> String {
        hullbox(["network", "inspect", "-f", template, &self.name])
            .exits(0)
            .text()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = hullbox(["network", "rm", "-f", &self.name]);
    }
}

fn create(name: &str, flags: &[&str]) -> Done {
    let mut args = vec!["network", "create"];
    args.extend(flags);
    args.push(name);
    hullbox(args)
}

/// A name of the test's own behind this wall.
fn named(name: &str, mode: Mode) -> String {
    format!("{name}-{}", if mode == Mode::Vm { "vm" } else { "ns" })
}

/// A subnet of the test's own behind this wall: the walls may be tested on one data directory.
fn subnet(third: u8, mode: Mode) -> String {
    format!("10.{}.{third}", if mode == Mode::Vm { 201 } else { 202 })
}

fn lines(done: Done) -> Vec<String> {
    done.exits(0).text().lines().map(str::to_owned).collect()
}

fn ls(filters: &[&str]) -> Vec<String> {
    let mut args = vec!["network", "ls", "--format", "{{.Name}}"];
    for filter in filters {
        args.extend(["--filter", filter]);
    }
    lines(hullbox(args))
}
