//! What becomes of a container's networks while it runs: what they refused it, what they are called, and
//! what is left of them when their process is killed.

use crate::events::told_of;
use crate::life::Kept;
use crate::networks_traffic::{Net, ask, listens, resolve, serve};
use hullbox_tests::{both_modes, hullbox};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

fn sh(box_: &Kept, script: &str) -> String {
    box_.exec(&["sh", "-c", script]).text()
}

/// The refusals that were told of a container, in order.
fn told(box_: &Kept, format: &str) -> Vec<String> {
    told_of(&box_.name, &["--filter", "event=refuse"], format)
}

/// The network's process tells by itself: there is nothing to ask for, and nothing to wait for but that.
fn until_told(box_: &Kept, format: &str, wanted: &[&str]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let told = told(box_, format);
        if told == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{told:?}, not {wanted:?}");
    }
}

const IDLE: [&str; 3] = ["busybox", "sleep", "1000000"];
const REFUSE: &str = "nc -w 20 192.0.2.7 80 < /dev/null; nc -w 20 192.0.2.7 80 < /dev/null; \
     nc -w 20 198.51.100.7 81 < /dev/null; true";

both_modes! {
    fn what_is_refused_is_shown_and_told_once(mode) {
        let box_ = Kept::new("refused", mode);
        let rules = "deny:192.0.2.0/24,203.0.113.0/24:443";
        let id = box_.run(&[&["--egress", rules][..], &IDLE].concat());
        assert_eq!(box_.inspect("{{json .NetworkSettings.Refused}}"), "null");
        let _ = sh(&box_, REFUSE);
        let line = "{{.Type}} {{.Actor.Attributes.name}} {{.Actor.Attributes.target}} \
                    {{.Actor.Attributes.rule}}";
        let wanted = [
            "network bridge tcp 192.0.2.7:80 deny:192.0.2.0/24",
            "network bridge tcp 198.51.100.7:81 <no value>",
        ];
        until_told(&box_, line, &wanted);
        assert_eq!(told(&box_, "{{.Actor.Attributes.container}}"), [id.as_str(), &id]);
        let counts = "{{with .NetworkSettings.Refused}}{{.Connections}} {{.Names}}{{range .Targets}} \
                      [{{.Network}} {{.Target}} {{.Rule}} {{.Count}}]{{end}}{{end}}";
        let shown = "3 0 [bridge tcp 192.0.2.7:80 deny:192.0.2.0/24 2] \
                     [bridge tcp 198.51.100.7:81 <nil> 1]";
        assert_eq!(box_.inspect(counts), shown);
        // A scan is counted, and told in part.
        let scan = "for port in $(seq 1000 1079); do nc -w 20 192.0.2.8 $port < /dev/null; done; true";
        let _ = sh(&box_, scan);
        assert_eq!(box_.inspect("{{.NetworkSettings.Refused.Connections}}"), "83");
        let _ = sh(&box_, REFUSE);
        let told_in_all = told(&box_, "{{.Action}}").len();
        assert!((30..50).contains(&told_in_all), "{told_in_all}");
        // What was counted last is there when the container has ended, until it runs again.
        let _ = hullbox(["kill", &box_.name]).exits(0);
        let _ = hullbox(["wait", &box_.name]).exits(0);
        assert_eq!(box_.inspect("{{.NetworkSettings.Refused.Connections}}"), "86");
        let _ = hullbox(["start", &box_.name]).exits(0);
        assert_eq!(box_.inspect("{{json .NetworkSettings.Refused}}"), "null");
    }
}

both_modes! {
    fn members_of_a_network_are_refused_each_their_own(mode) {
        let net = Net::new("refusing", mode, &[]);
        let network = ["--network", net.0.as_str()];
        let (open, closed) = (Kept::new("refusing-open", mode), Kept::new("refusing-closed", mode));
        open.run(&[&network[..], &IDLE].concat());
        closed.run(&[&network[..], &["--egress", "none"], &IDLE].concat());
        for box_ in [&open, &closed] {
            let _ = sh(box_, "nc -w 1 203.0.113.9 9 < /dev/null; nslookup example.test; true");
        }
        let line = "{{.Actor.Attributes.name}} {{.Actor.Attributes.target}}";
        let deadline = Instant::now() + LIMIT;
        while told(&closed, line).len() < 2 {
            assert!(Instant::now() < deadline, "{:?}", told(&closed, line));
        }
        let first = format!("{} tcp 203.0.113.9:9", net.0);
        let names = format!("{} name example.test", net.0);
        let told_of = told(&closed, line);
        assert!(told_of.contains(&first) && told_of.contains(&names), "{told_of:?}");
        assert_eq!(told(&open, line), Vec::<String>::new());
        let target = "{{(index .NetworkSettings.Refused.Targets 0).Network}}";
        assert_eq!(closed.inspect(target), net.0);
        assert_eq!(open.inspect("{{json .NetworkSettings.Refused}}"), "null");
    }
}

both_modes! {
    fn the_files_of_names_follow_the_networks(mode) {
        let (first, second) = (Net::new("files-a", mode, &[]), Net::new("files-b", mode, &[]));
        let (box_, other) = (Kept::new("files", mode), Kept::new("files-other", mode));
        box_.run(&[&["--network", first.0.as_str(), "-h", "files-box"][..], &IDLE].concat());
        serve(&other, &["--network", &second.0], "other");
        let servers = || sh(&box_, "grep -c ^nameserver /etc/resolv.conf");
        let own = || sh(&box_, "grep -c files-box /etc/hosts");
        assert_eq!((servers().as_str(), own().as_str()), ("1", "1"));
        let _ = second.connect(&box_, &[]).exits(0);
        assert_eq!((servers().as_str(), own().as_str()), ("2", "2"));
        assert_eq!(sh(&box_, &ask(&other.name)), "other");
        let _ = second.disconnect(&box_).exits(0);
        assert_eq!((servers().as_str(), own().as_str()), ("1", "1"));
        // What the workload has written stays; its hosts file learns of the address all the same.
        let _ = sh(&box_, "echo nameserver 192.0.2.53 > /etc/resolv.conf; echo 192.0.2.9 mine >> /etc/hosts");
        let _ = second.connect(&box_, &[]).exits(0);
        assert_eq!(sh(&box_, "cat /etc/resolv.conf"), "nameserver 192.0.2.53");
        assert_eq!((own().as_str(), sh(&box_, "grep -c mine /etc/hosts").as_str()), ("2", "1"));
        // At its next start they are new.
        let _ = hullbox(["restart", "-t", "0", &box_.name]).exits(0);
        assert_eq!((servers().as_str(), own().as_str()), ("2", "2"));
    }
}

both_modes! {
    fn another_name_is_one_in_its_networks_at_once(mode) {
        let net = Net::new("naming", mode, &[]);
        let network = ["--network", net.0.as_str()];
        let (before, after) = (Kept::new("naming-before", mode), Kept::new("naming-after", mode));
        let asker = Kept::new("naming-asker", mode);
        serve(&before, &[&network[..], &["--network-alias", "alias"]].concat(), "hello");
        asker.run(&[&network[..], &IDLE].concat());
        assert_eq!(sh(&asker, &ask(&before.name)), "hello");
        let _ = hullbox(["rename", &before.name, &after.name]).exits(0);
        assert_eq!(sh(&asker, &resolve(&before.name)), "");
        for name in [after.name.as_str(), "alias"] {
            assert_eq!(sh(&asker, &ask(name)), "hello", "{name}");
        }
        // And at the next start.
        let _ = hullbox(["restart", "-t", "0", &after.name]).exits(0);
        listens(&after);
        assert_eq!(sh(&asker, &resolve(&before.name)), "");
        assert_eq!(sh(&asker, &ask(&after.name)), "hello");
    }
}

/// The file that a network's process is named in, which is on the host of the network.
fn lock_of(dir: &Path, id: &str) -> Option<PathBuf> {
    let name = format!("{id}.lock");
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.find_map(|path| match path.is_dir() {
        true => lock_of(&path, id),
        false => path.ends_with(&name).then_some(path),
    })
}

both_modes! {
    fn when_a_networks_process_is_killed_its_link_goes_down_and_comes_back(mode) {
        let net = Net::new("killed-net", mode, &[]);
        let network = ["--network", net.0.as_str()];
        let (server, asker) = (Kept::new("killed-server", mode), Kept::new("killed-asker", mode));
        serve(&server, &network, "still there");
        asker.run(&[&network[..], &IDLE].concat());
        let link = || sh(&server, "cd /sys/class/net/eth0; echo $(cat carrier carrier_down_count address)");
        let before = link();
        let mut words = before.split(' ').skip(1);
        let downs: u32 = words.next().and_then(|count| count.parse().ok()).expect("a count");
        let address = words.next().expect("an address");
        let id = hullbox(["network", "inspect", "-f", "{{.Id}}", &net.0]).exits(0).text();
        let runtime = std::env::var_os("HULLBOX_RUNTIME").expect("a runtime directory");
        let lock = lock_of(Path::new(&runtime), &id).expect("the network's process");
        let pid = std::fs::read_to_string(lock).expect("its number");
        let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("a process");
        kill_process(pid, Signal::KILL).expect("it runs");
        let wanted = format!("1 {} {address}", downs + 1);
        let deadline = Instant::now() + LIMIT;
        while link() != wanted {
            assert!(Instant::now() < deadline, "{}, not {wanted}", link());
        }
        assert_eq!(sh(&asker, &ask(&server.name)), "still there");
    }
}
