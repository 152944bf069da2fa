//! Debian's own servers and clients as workloads: what is published is loaded, and packages come over the
//! network.
//!
//! They need what `tests/fixtures/make-servers` makes.

use crate::life::Kept;
use hullbox_tests::{Done, Mode, both_modes, command, finish, fixture, hullbox, run};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const IMAGE: &str = "debian:servers";
const POSTGRES: &str = "debian:postgres";
/// Neither apt nor nginx with its workers fits into less.
const MEMORY: &str = "256m";
/// What nothing takes longer than on the slowest machine that was seen.
const LIMIT: Duration = Duration::from_secs(120);

/// Imports the image, unless an earlier test has.
fn servers() {
    import(IMAGE, "servers.tar");
}

pub(crate) fn import(image: &str, file: &str) {
    if hullbox(["inspect", "--type", "image", image]).code == 0 {
        return;
    }
    let mut import = command(["import", "-c", "CMD [\"/bin/sh\"]"]);
    import.args([fixture(file).as_os_str(), image.as_ref()]);
    let _ = finish(import, b"").exits(0);
}

/// Asks for `/` until the answer holds this: a server takes its time to start.
fn until_answers(at: SocketAddr, words: &str) {
    let deadline = Instant::now() + LIMIT;
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    loop {
        let answer = ask();
        if answer.as_ref().is_ok_and(|answer| answer.contains(words)) {
            return;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// What `wrk` says of so many requests.
#[derive(Debug)]
struct Load {
    requests: u64,
    said: String,
}

impl Load {
    /// Has `wrk` ask for `/` over so many connections at once.
    fn of(at: SocketAddr, requests: u64, connections: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("stop.lua");
        // It has a time to end and no number, and ends early by a signal alone: one that comes when
        // system(3), which ignores it, is over.
        let stop = format!(
            "local left = {requests}\nfunction response()\n  left = left - 1\n  \
             if left == 0 then os.execute('{{ sleep 0.1; kill -INT $PPID; }} &') end\nend\n"
        );
        std::fs::write(&script, stop).unwrap();
        let mut wrk = Command::new("wrk");
        wrk.args([
            "-t",
            "1",
            "-c",
            &connections.to_string(),
            "--timeout",
            "60s",
        ]);
        wrk.args(["-d", &format!("{}s", LIMIT.as_secs()), "-s"]);
        wrk.arg(&script).arg(format!("http://{at}/"));
        let done = finish(wrk, b"").exits(0);
        let said = done.text();
        let requests = said
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "))
            .and_then(|(count, _)| count.parse().ok())
            .unwrap_or_else(|| panic!("no count: {said}"));
        Self { requests, said }
    }
}

both_modes! {
    fn nginx_answers_thousands_of_requests_at_a_published_port(mode) {
        const REQUESTS: u64 = 4000;
        servers();
        let box_ = Kept::new("nginx", mode);
        box_.run(&["-m", MEMORY, "-p", "127.0.0.1::80", IMAGE, "nginx", "-g", "daemon off;"]);
        let at: SocketAddr = hullbox(["port", &box_.name, "80"]).exits(0).text().parse().unwrap();
        until_answers(at, "Welcome to nginx!");
        let load = Load::of(at, REQUESTS, 32);
        assert!(load.requests >= REQUESTS, "{load:?}");
        for error in ["Socket errors", "Non-2xx"] {
            assert!(!load.said.contains(error), "{}", load.said);
        }
        // All were the server's to answer.
        let count = box_.exec(&["grep", "-c", "GET / .* 200 ", "/var/log/nginx/access.log"]);
        let count: u64 = count.exits(0).text().parse().unwrap();
        assert!(count > load.requests, "{count} of {load:?}");
    }
}

/// nginx on the host, with the files below a directory.
struct HostServer {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl HostServer {
    fn of(files: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let own = dir.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {own}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {own}/pid;\nerror_log {own}/error.log;\nevents {{}}\n\
             http {{\n{temporary}access_log {own}/access.log;\nserver {{\nlisten 127.0.0.1:{port};\n\
             root {};\nautoindex on;\n}}\n}}\n",
            files.display()
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        drop(free);
        let child = Command::new(fixture("nginx").join("usr/sbin/nginx"))
            .arg("-e")
            .arg(dir.path().join("error.log"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx starts");
        until_answers(SocketAddr::from(([127, 0, 0, 1], port)), "Packages");
        Self {
            child,
            port,
            _dir: dir,
        }
    }
}

impl Drop for HostServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

both_modes! {
    fn apt_updates_and_installs_over_the_network(mode) {
        servers();
        let repository = HostServer::of(&fixture("repository"));
        let install = format!(
            "set -e
            rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
            echo 'deb [trusted=yes] http://repository:{}/ ./' >/etc/apt/sources.list
            export DEBIAN_FRONTEND=noninteractive
            {{ apt-get -q update && apt-get -q install -y hullbox-says; }} >&2
            hullbox-says
            dpkg-query -W -f '${{Package}} ${{db:Status-Status}}\\n' 'hullbox-*'",
            repository.port
        );
        let network = ["-m", MEMORY, "--add-host", "repository:host-gateway"];
        let asked: Vec<&str> = network.into_iter().chain([IMAGE, "sh", "-c", &install]).collect();
        let done = run(mode, asked).exits(0);
        assert_eq!(
            done.text(),
            "installed over the network\nhullbox-says installed\nhullbox-words installed"
        );
        // Without a network there is nothing to install, and apt says so.
        let mut without = vec!["-m", MEMORY, "--network", "none", "--add-host", "repository:192.0.2.1"];
        without.extend([IMAGE, "sh", "-c", &install]);
        let failed = run(mode, without);
        assert!(failed.code != 0 && failed.text().is_empty(), "{failed:?}");
    }
}

/// A network that is removed with its test.
struct Shop(&'static str);

impl Shop {
    fn new() -> Self {
        let shop = Self("shop");
        let _ = hullbox(["network", "rm", "-f", shop.0]);
        let _ = hullbox(["network", "create", shop.0]).exits(0);
        shop
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = hullbox(["network", "rm", "-f", self.0]);
    }
}

/// Asks until the answer is this, on its own line.
#[track_caller]
fn until_says(words: &str, ask: impl Fn() -> Done) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let done = ask();
        if done.text().lines().any(|line| line == words) {
            return;
        }
        assert!(Instant::now() < deadline, "never {words:?}: {done:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// PostgreSQL behind one wall, which psql finds by its name from behind another, also after a restart in the
/// middle of a query.
fn postgresql_is_found_by_name(server: Mode, client: Mode) {
    import(POSTGRES, "postgres.tar");
    let shop = Shop::new();
    let (db, shell) = (Kept::new("db", server), Kept::new("psql", client));
    let network = ["-m", MEMORY, "--network", shop.0];
    let serve = [
        "-u",
        "postgres",
        "--stop-signal",
        "INT",
        POSTGRES,
        "postgres",
        "-D",
        "/data",
    ];
    db.run(&[&network[..], &serve].concat());
    shell.run(&[&network[..], &[POSTGRES, "sleep", "1000"]].concat());
    let psql = format!("psql -h {} -U postgres -Atq", db.name);
    let ask = |query: &str| {
        let words: Vec<_> = psql.split(' ').chain(["-c", query]).collect();
        shell.exec(&words)
    };
    until_says("1", || ask("select 1"));
    let fill = "create table words as select n, repeat(md5(n::text), 20) as word from generate_series(1, 5000) n";
    let _ = ask(fill).exits(0);
    // Three megabytes come, and are what they should be.
    let all = ask("select n, word from words order by n").exits(0).text();
    assert_eq!(all.lines().count(), 5000);
    assert!(all.len() > 3_000_000 && all.starts_with("1|c4ca4238a0b923820dcc509a6f75849b"));

    // It waits for an answer, and then for the server.
    let script = format!(
        "{psql} -c 'select pg_sleep(1000)'; echo ended with $?
        until {psql} -c 'select count(*) from words'; do sleep 0.2; done; echo found again"
    );
    let script = format!("({script}) >/tmp/said 2>&1");
    let _ = hullbox(["exec", "-d", &shell.name, "sh", "-c", &script]).exits(0);
    until_says("1", || {
        ask("select count(*) from pg_stat_activity where query = 'select pg_sleep(1000)'")
    });
    let _ = hullbox(["restart", "-t", "60", &db.name]).exits(0);
    let said = || shell.exec(&["cat", "/tmp/said"]);
    until_says("found again", said);
    let said = said().text();
    assert!(
        said.contains("terminating connection due to administrator command"),
        "{said}"
    );
    assert!(
        said.contains("\nended with 2\n") && said.contains("\n5000\nfound again"),
        "{said}"
    );
}

both_modes! {
    fn psql_finds_postgresql_by_name_and_again_after_a_restart(mode) {
        postgresql_is_found_by_name(mode, mode);
    }
}

#[test]
#[ignore = "needs the built program: make test"]
fn postgresql_in_a_vm_is_found_from_a_namespace_container() {
    postgresql_is_found_by_name(Mode::Vm, Mode::Container);
}

#[test]
#[ignore = "needs the built program: make test"]
fn postgresql_in_a_namespace_container_is_found_from_a_vm() {
    postgresql_is_found_by_name(Mode::Container, Mode::Vm);
}
