//! What passes in networks that containers share: names, aliases, both walls in one network, what an internal
//! network refuses, and changes while a container runs.

use crate::life::Kept;
use hullbox_tests::{Done, Mode, both_modes, hullbox, run};
use std::net::TcpListener;

/// A network that is removed with its test.
pub(crate) struct Net(pub(crate) String);

impl Net {
    pub(crate) fn new(name: &str, mode: Mode, flags: &[&str]) -> Self {
        let name = format!("{name}-{}", if mode == Mode::Vm { "vm" } else { "ns" });
        let _ = hullbox(["network", "rm", "-f", &name]);
        let mut args = vec!["network", "create"];
        args.extend(flags);
        args.push(&name);
        let _ = hullbox(args).exits(0);
        Self(name)
    }

    pub(crate) fn connect(&self, box_: &Kept, flags: &[&str]) -> Done {
        let mut args = vec!["network", "connect"];
        args.extend(flags);
        args.extend([self.0.as_str(), &box_.name]);
        hullbox(args)
    }

    pub(crate) fn disconnect(&self, box_: &Kept) -> Done {
        hullbox(["network", "disconnect", &self.0, &box_.name])
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = hullbox(["network", "rm", "-f", &self.0]);
    }
}

/// A script that prints the address of a name, if it has one. Busybox asks the name server itself: what needs
/// glibc's name services does not run in its image. Of several name servers it asks the first one alone,
/// where a resolver goes on to the next when that one does not know (SERVFAIL).
pub(crate) fn resolve(name: &str) -> String {
    format!(
        "for server in $(sed -n 's/^nameserver //p' /etc/resolv.conf); do \
         nslookup -type=a {name} $server 2>&1 | sed -n '/^Name:/,$s/^Address[^:]*: *\\([0-9.]*\\)$/\\1/p'; \
         done | head -n 1"
    )
}

/// A script that prints the line that a server in the network says.
pub(crate) fn ask(name: &str) -> String {
    format!("nc -w 20 $({}) 7777 < /dev/null", resolve(name))
}

/// A server that says a line to everybody. It goes on listening (`-ll`) while it does.
pub(crate) fn serve(box_: &Kept, flags: &[&str], line: &str) {
    let mut args = flags.to_vec();
    args.extend(["busybox", "nc", "-ll", "-p", "7777", "-e", "echo", line]);
    box_.run(&args);
    listens(box_);
}

pub(crate) fn listens(box_: &Kept) {
    let wait = "until netstat -ltn | grep -q ':7777 '; do :; done";
    let _ = box_.exec(&["sh", "-c", wait]).exits(0);
}

/// Runs a script in a container of its own.
pub(crate) fn script(mode: Mode, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["-m", "128m"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    run(mode, args)
}

both_modes! {
    fn containers_find_each_other_by_name_and_alias(mode) {
        let net = Net::new("talk", mode, &[]);
        let server = Kept::new("talk-server", mode);
        let network = ["--network", net.0.as_str()];
        serve(&server, &[&network[..], &["--network-alias", "web"]].concat(), "hello");
        for name in [server.name.as_str(), "web", "WEB"] {
            let said = script(mode, &network, &ask(name)).exits(0);
            assert_eq!(said.text(), "hello", "{name}");
        }
        assert_eq!(script(mode, &network, &resolve("nobody")).text(), "");
        // The name goes with the container, and others in no such network have never known it.
        assert_eq!(script(mode, &[], &resolve("web")).text(), "");
        let _ = hullbox(["rm", "-f", &server.name]).exits(0);
        assert_eq!(script(mode, &network, &resolve("web")).text(), "");
    }
}

/// Both walls in one network; without VMs on this host, in the helper machine.
#[test]
#[ignore = "needs the built program: make test"]
fn a_vm_and_a_namespace_container_are_in_one_network() {
    let net = Net::new("walls", Mode::Vm, &[]);
    let network = ["--network", net.0.as_str()];
    let vm = Kept::new("walls-a", Mode::Vm);
    let container = Kept::new("walls-b", Mode::Container);
    serve(&vm, &network, "from-the-vm");
    serve(&container, &network, "from-the-container");
    for (from, to, line) in [
        (&vm, &container, "from-the-container"),
        (&container, &vm, "from-the-vm"),
    ] {
        let said = from.exec(&["sh", "-c", &ask(&to.name)]).exits(0);
        assert_eq!(said.text(), line);
    }
}

both_modes! {
    fn an_internal_network_leads_nowhere_else(mode) {
        let net = Net::new("inside", mode, &["--internal"]);
        let server = Kept::new("inside-server", mode);
        let network = ["--network", net.0.as_str()];
        serve(&server, &network, "inside");
        let said = script(mode, &network, &ask(&server.name)).exits(0);
        assert_eq!(said.text(), "inside");
        let shown = script(mode, &network, "ip route; ip -6 route show default").exits(0);
        assert!(!shown.text().contains("default"), "{}", shown.text());
        let host = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = host.local_addr().unwrap().port();
        // By the gateway, whose address ends in 1, to whoever is there.
        let out = format!(
            "gateway=$(sed -n 's/^nameserver //p' /etc/resolv.conf | head -n 1)
             ip route add default via $gateway 2> /dev/null
             for to in $gateway 192.0.2.1; do nc -w 2 $to {port} < /dev/null && echo reached $to; done
             {}", resolve("example.com")
        );
        let tried = script(mode, &[&network[..], &["--cap-add", "NET_ADMIN"]].concat(), &out);
        assert_eq!(tried.text(), "");
        host.set_nonblocking(true).unwrap();
        assert!(host.accept().is_err(), "somebody came");
    }
}

both_modes! {
    fn a_running_container_is_put_into_a_network_and_taken_out(mode) {
        let (first, second) = (Net::new("first", mode, &[]), Net::new("second", mode, &[]));
        let (one, two) = (Kept::new("change-one", mode), Kept::new("change-two", mode));
        serve(&one, &["--network", &first.0], "one");
        serve(&two, &["--network", &second.0], "two");
        let in_one = |script: &str| one.exec(&["sh", "-c", script]);
        assert_eq!(in_one(&resolve(&two.name)).text(), "");
        let _ = second.connect(&one, &["--alias", "guest"]).exits(0);
        let interfaces = "ls /sys/class/net | grep eth";
        assert_eq!(in_one(interfaces).exits(0).text(), "eth0\neth1");
        assert_eq!(in_one(&resolve(&two.name)).text().lines().count(), 1);
        let there = two.exec(&["sh", "-c", &ask("guest")]).exits(0);
        assert_eq!(there.text(), "one");
        let address = two.inspect(&format!(
            "{{{{(index .NetworkSettings.Networks {:?}).IPAddress}}}}", second.0
        ));
        let line = format!("nc -w 20 {address} 7777 < /dev/null");
        assert_eq!(in_one(&line).exits(0).text(), "two");
        // The way out is the second one's when the first is gone.
        let _ = first.disconnect(&one).exits(0);
        assert_eq!(in_one(&line).exits(0).text(), "two");
        let _ = second.disconnect(&one).exits(0);
        assert_ne!(in_one(&line).code, 0);
        assert_eq!(two.exec(&["sh", "-c", &resolve("guest")]).text(), "");
        let _ = first.connect(&one, &[]).exits(0);
        let back = script(mode, &["--network", &first.0], &ask(&one.name)).exits(0);
        assert_eq!(back.text(), "one");
    }
}

both_modes! {
    fn a_container_begins_in_several_networks(mode) {
        let nets = ["a", "b"].map(|name| Net::new(&format!("several-{name}"), mode, &[]));
        let servers = ["a", "b"].map(|name| Kept::new(&format!("several-{name}"), mode));
        for (net, server) in nets.iter().zip(&servers) {
            serve(server, &["--network", &net.0], &server.name);
        }
        let both = Kept::new("several", mode);
        let flags = ["--network", nets[0].0.as_str(), "--network", &nets[1].0];
        serve(&both, &flags, "both");
        for server in &servers {
            let said = both.exec(&["sh", "-c", &ask(&server.name)]).exits(0);
            assert_eq!(said.text(), server.name);
            let said = server.exec(&["sh", "-c", &ask(&both.name)]).exits(0);
            assert_eq!(said.text(), "both");
        }
        // They do not see each other through it.
        let across = servers[0].exec(&["sh", "-c", &resolve(&servers[1].name)]);
        assert_eq!(across.text(), "");
    }
}
