//! An init system as the workload: what it needs, as podman has it.

use super::request::RunRequest;
use hullbox_protocol::TmpfsMount;
use hullbox_security::options::Systemd;

/// What systemd knows a container of an OCI engine by (systemd-detect-virt(1)).
const CONTAINER: &[u8] = b"container=oci";
/// Programs that are init systems, besides those called `systemd`.
const INITS: [&[u8]; 3] = [b"/sbin/init", b"/usr/sbin/init", b"/usr/local/sbin/init"];
/// What it finds empty at every start, with the options of the mount.
const TMPFS: [(&str, &str); 4] = [
    ("/run", "exec,mode=755"),
    ("/run/lock", "exec,mode=1777"),
    ("/tmp", "exec,mode=1777"),
    ("/var/log/journal", "exec,mode=755"),
];

/// Whether this container's first process is an init system.
pub(super) fn is_wanted(request: &RunRequest, argv: &[Vec<u8>]) -> bool {
    match request.security.systemd {
        Systemd::Always => true,
        Systemd::False => false,
        // Below an init of ours it would not be the first.
        Systemd::True => !request.init && is_init(argv),
    }
}

fn is_init(argv: &[Vec<u8>]) -> bool {
    let words: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
    // As an image's CMD in shell form has it.
    let program = match words[..] {
        [b"/bin/sh", b"-c", program, ..] => program,
        [program, ..] => program,
        [] => return false,
    };
    let name = program.rsplit(|&byte| byte == b'/').next();
    INITS.contains(&program) || name == Some(b"systemd")
}

/// Its variables, under what the image and the user say.
pub(super) fn environment(id: &str) -> [Vec<u8>; 2] {
    let uuid = id.get(..32).unwrap_or(id);
    [
        CONTAINER.to_vec(),
        format!("container_uuid={uuid}").into_bytes(),
    ]
}

/// Its mounts, but for places that are taken, and those below them.
pub(super) fn mounts(taken: &[TmpfsMount]) -> Vec<TmpfsMount> {
    let free = |path: &str| {
        !taken
            .iter()
            .any(|mount| mount.path.trim_end_matches('/') == path)
    };
    let wanted = TMPFS.iter().filter(|(path, _)| free(path));
    wanted
        .map(|&(path, options)| TmpfsMount {
            path: path.to_owned(),
            options: options.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(argv: &[&str], mode: Systemd, init: bool) -> bool {
        let mut request = RunRequest {
            init,
            ..RunRequest::default()
        };
        request.security.systemd = mode;
        let argv: Vec<_> = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
        is_wanted(&request, &argv)
    }

    #[test]
    fn an_init_system_is_known_by_its_name() {
        for init in [
            "/sbin/init",
            "/usr/sbin/init",
            "/usr/local/sbin/init",
            "systemd",
            "/lib/systemd/systemd",
        ] {
            assert!(wanted(&[init], Systemd::True, false), "{init}");
            assert!(!wanted(&[init], Systemd::True, true), "{init}");
            assert!(!wanted(&[init], Systemd::False, false), "{init}");
        }
        assert!(wanted(
            &["/bin/sh", "-c", "/sbin/init"],
            Systemd::True,
            false
        ));
        for other in [
            &["init"][..],
            &["/init"],
            &["sh", "-c", "/sbin/init"],
            &["/sbin/initd"],
            &["systemd-run"],
        ] {
            assert!(!wanted(other, Systemd::True, false), "{other:?}");
            assert!(wanted(other, Systemd::Always, false), "{other:?}");
        }
    }

    #[test]
    fn what_is_mounted_by_the_user_is_not_mounted_again() {
        let taken = [TmpfsMount {
            path: "/tmp/".into(),
            options: String::new(),
        }];
        let paths: Vec<_> = mounts(&taken).into_iter().map(|mount| mount.path).collect();
        assert_eq!(paths, ["/run", "/run/lock", "/var/log/journal"]);
    }
}
