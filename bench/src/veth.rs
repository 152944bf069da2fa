//! The network of a peer's container: a pair of virtual Ethernet devices, one end in a network namespace of
//! its own and one on the host, as engines make it. With a server at the host's end.

use crate::server::Server;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// Beginning of the host's interfaces' names, which have 15 bytes.
const INTERFACE: &str = "hbb";

/// The namespace, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Veth {
    namespace: String,
    interface: String,
    server: Option<Server>,
}

impl Veth {
    /// Makes all of it under this name, or says in one line why not.
    pub(crate) fn make(namespace: String) -> Result<Self, String> {
        let interface = format!("{INTERFACE}{}", std::process::id());
        remove(&namespace, &interface);
        let mut veth = Self {
            namespace,
            interface,
            server: None,
        };
        let (namespace, interface) = (&veth.namespace, &veth.interface);
        // Of the range that is set aside for benchmarks (RFC 2544).
        let (third, fourth) = (fastrand::u8(..), fastrand::u8(..) & !3);
        let address = |last: u8| Ipv4Addr::new(198, 18, third, fourth | last);
        let (host, container) = (address(1), address(2));
        ip(&format!("netns add {namespace}"))?;
        ip(&format!(
            "link add {interface} type veth peer name eth0 netns {namespace}"
        ))?;
        ip(&format!("addr add {host}/30 dev {interface}"))?;
        ip(&format!("link set {interface} up"))?;
        ip(&format!("-n {namespace} addr add {container}/30 dev eth0"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} route add default via {host}"))?;
        let server = Server::at(IpAddr::V4(host));
        veth.server = Some(server.map_err(|error| format!("no server at {host}: {error}"))?);
        Ok(veth)
    }

    /// The namespace, as a file.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(NAMESPACES).join(&self.namespace)
    }

    /// The port of the server at its gateway.
    pub(crate) fn port(&self) -> u16 {
        self.server.as_ref().map_or(0, Server::port)
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        self.server = None;
        remove(&self.namespace, &self.interface);
    }
}

/// The namespace that a killed benchmark left. The pair goes with it.
pub(crate) fn remove_stale(namespace: &str) {
    if Path::new(NAMESPACES).join(namespace).exists() {
        let _ = ip(&format!("netns del {namespace}"));
    }
}

/// What is not there needs no removal. The device first: the namespace is taken down in the kernel's own
/// time.
fn remove(namespace: &str, interface: &str) {
    let _ = ip(&format!("link del {interface}"));
    let _ = ip(&format!("netns del {namespace}"));
}

fn ip(words: &str) -> Result<(), String> {
    let done = Command::new("ip")
        .args(words.split(' '))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run ip: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let why = crate::runner::one_line(&done.stderr);
    Err(format!("ip {words}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_leads_to_its_server_and_goes_with_its_value() {
        if !rustix::process::geteuid().is_root() {
            // Only root makes one, which the benchmark then says.
            assert!(Veth::make(format!("hullbox-test-{}", std::process::id())).is_err());
            return;
        }
        let name = format!("hullbox-test-{}", std::process::id());
        let veth = Veth::make(name.clone()).unwrap();
        assert!(veth.path().exists());
        let script = format!(
            "gateway=$(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'); \
             exec 3<>/dev/tcp/$gateway/{}; printf 'e\\1\\0\\0\\0hello' >&3; head -c 5 <&3",
            veth.port()
        );
        let asked = Command::new("ip")
            .args(["netns", "exec", &name, "bash", "-c", &script])
            .output()
            .unwrap();
        assert_eq!(asked.stdout, b"hello", "{asked:?}");
        let path = veth.path();
        drop(veth);
        assert!(!path.exists());
        assert!(ip(&format!("link show {INTERFACE}{}", std::process::id())).is_err());
        remove_stale(&name);
    }
}
