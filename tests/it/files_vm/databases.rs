//! PostgreSQL on volumes, whose monitor is killed in the middle of writes: nothing that was acknowledged is
//! lost. `HULLBOX_TEST_KILLS` is how often; twenty are enough to believe it.

use super::Named;
use crate::life::Kept;
use crate::servers::import;
use hullbox_tests::{Mode, command, hullbox, on_the_machine};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

const POSTGRES: &str = "debian:postgres";
const LIMIT: Duration = Duration::from_secs(150);

fn kills() -> usize {
    let kills = std::env::var("HULLBOX_TEST_KILLS").ok();
    kills.and_then(|text| text.parse().ok()).unwrap_or(2)
}

fn kill_monitors() {
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q [_]_monitor && kill -9 ${p#/proc/}; done; true";
    let _ = on_the_machine(script).exits(0);
}

fn psql(query: &str) -> Vec<&str> {
    vec!["psql", "-h", "/tmp", "-U", "postgres", "-Atq", "-c", query]
}

fn until_answers(db: &Kept) {
    let deadline = Instant::now() + LIMIT;
    while db.exec(&psql("select 1")).code != 0 {
        assert!(
            Instant::now() < deadline,
            "{:?}",
            hullbox(["logs", &db.name])
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Writes one row after the other, each in a transaction of its own, and says what was committed, until
/// everything ends or `most` are.
fn write_until_killed(db: &Kept, most: usize) -> u64 {
    let script = "i=$(psql -h /tmp -U postgres -Atq -c 'select coalesce(max(n), 0) from t'); \
        while :; do i=$((i+1)); echo \"insert into t values ($i, repeat(md5($i::text), 30)) returning n;\"; done | \
        psql -h /tmp -U postgres -Atq";
    let mut writer = command(["exec", &db.name, "sh", "-c", script]);
    let mut child = writer
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = 0;
    for (count, line) in lines.map_while(Result::ok).enumerate() {
        last = line.parse().unwrap_or(last);
        if count == most {
            kill_monitors();
        }
    }
    let _ = child.wait();
    last
}

fn nothing_is_lost(volume: &Named) {
    import(POSTGRES, "postgres.tar");
    let db = Kept::new("durable", Mode::Vm);
    let mount = volume.at("/data");
    // The image's database comes along into the empty volume, with its owner.
    let words = [
        "-m",
        "256m",
        "-v",
        &mount,
        "-u",
        "postgres",
        POSTGRES,
        "postgres",
        "-D",
        "/data",
        "-c",
        "fsync=on",
        "-c",
        "listen_addresses=",
        // The host has what was written before the kill; a thousand files need not be synced one by one.
        "-c",
        "recovery_init_sync_method=syncfs",
    ];
    db.run(&words);
    until_answers(&db);
    let _ = db
        .exec(&psql("create table t (n bigint primary key, word text)"))
        .exits(0);
    for round in 0..kills() {
        let acknowledged = write_until_killed(&db, 40 + 37 * round);
        assert!(acknowledged > 0, "round {round}");
        let _ = hullbox(["start", &db.name]).exits(0);
        until_answers(&db);
        let found = db.exec(&psql(
            "select max(n), count(*) from t where word = repeat(md5(n::text), 30)",
        ));
        let found = found.exits(0).text();
        let (max, count) = found.split_once('|').unwrap();
        let (max, count): (u64, u64) = (max.parse().unwrap(), count.parse().unwrap());
        assert!(
            max >= acknowledged,
            "round {round}: {max} of {acknowledged}"
        );
        assert_eq!(max, count, "round {round}");
        eprintln!("round {round}: {acknowledged} acknowledged, {max} there");
    }
    let _ = db.exec(&psql("select sum(length(word)) from t")).exits(0);
}

#[test]
#[ignore = "needs the built program: make test"]
fn postgresql_on_a_named_volume_loses_nothing_when_killed() {
    nothing_is_lost(&Named::free("fv-pg"));
}

#[test]
#[ignore = "needs the built program: make test"]
fn postgresql_on_a_block_volume_loses_nothing_when_killed() {
    nothing_is_lost(&Named::block("fv-pgblock", "512m"));
}
