//! PostgreSQL on volumes, whose monitor is killed in the middle of writes: nothing that was acknowledged is
//! lost, and no transaction is there in part. `HULLBOX_TEST_KILLS` is how often; twenty are enough to believe
//! it.

use super::Named;
use crate::life::Kept;
use crate::orphans::kill_monitor;
use crate::servers::import;
use hullbox_tests::{Done, Mode, command, hullbox};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

const POSTGRES: &str = "debian:postgres";

fn kills() -> usize {
    let kills = std::env::var("HULLBOX_TEST_KILLS").ok();
    kills.and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// What every script in the guest begins with. To start a program there is no small thing in the helper
/// machine, so what belongs together is one command, and it waits in there.
const WHEN_IT_ANSWERS: &str = r#"
    sql() { psql -h /tmp -U postgres -Atq "$@"; }
    seconds() { read -r up rest </proc/uptime; echo "${up%.*}"; }
    end=$(($(seconds) + 140))
    until sql -c 'select 1' >/dev/null 2>/tmp/why; do
        [ "$(seconds)" -lt $end ] || { cat /tmp/why >&2; ls -l /data /tmp >&2; exit 9; }
        sleep 0.5
    done
"#;

/// Tables of pgbench's kind, small: how they are changed matters.
const MAKE: &str = r#"
    sql -c 'create table t (n bigint primary key, word text);
        create table branches (id int primary key, balance int);
        create table tellers (id int primary key, balance int);
        create table accounts (id int primary key, balance int, filler char(84));
        create table history (teller int, branch int, account int, delta int, at timestamp, filler char(22));
        insert into branches values (1, 0);
        insert into tellers select i, 0 from generate_series(1, 10) i;
        insert into accounts select i, 0 from generate_series(1, 1000) i'
"#;

/// Has pgbench make transactions, and beside that one row after the other, each in a transaction of its own;
/// says of each row that it was committed, until everything ends.
const WRITE: &str = r#"
    cat >/tmp/transaction <<'END'
\set account random(1, 1000)
\set teller random(1, 10)
\set delta random(-5000, 5000)
begin;
update accounts set balance = balance + :delta where id = :account;
update tellers set balance = balance + :delta where id = :teller;
update branches set balance = balance + :delta where id = 1;
insert into history values (:teller, 1, :account, :delta, current_timestamp);
end;
END
    /usr/lib/postgresql/15/bin/pgbench -h /tmp -U postgres -n -f /tmp/transaction -c 2 -T 1000 postgres >/dev/null 2>&1 &
    i=$(sql -c 'select coalesce(max(n), 0) from t')
    while :; do
        i=$((i + 1))
        echo "insert into t values ($i, repeat(md5($i::text), 30)) returning n;"
    done | sql
"#;

/// Each transaction changes four tables by the same number, and each row holds its own.
const CHECK: &str = r#"
    sql -F ' ' -c "select coalesce(max(n), 0), count(*) filter (where word = repeat(md5(n::text), 30)) from t" \
        -c 'select count(*), coalesce(sum(delta), 0) from history' \
        -c 'select sum(balance) from branches' -c 'select sum(balance) from tellers' \
        -c 'select sum(balance) from accounts'
"#;

struct Database {
    kept: Kept,
    id: String,
}

/// What is in it.
#[derive(Debug)]
struct Found {
    last: u64,
    rows: u64,
    transactions: u64,
    /// What all transactions have added, by each of four tables.
    sums: [i64; 4],
}

impl Database {
    /// Runs a script when the database answers.
    fn ask(&self, script: &str) -> Done {
        let script = format!("{WHEN_IT_ANSWERS}{script}");
        let done = self.kept.exec(&["sh", "-c", &script]);
        assert_eq!(
            done.code,
            0,
            "{done:?}\n{:?}\n{:?}",
            hullbox(["logs", "-t", &self.kept.name]),
            self.kept.inspect("{{json .State}}"),
        );
        done
    }

    fn look(&self) -> Found {
        let text = self.ask(CHECK).text();
        let numbers: Vec<i64> = text
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        let [last, rows, transactions, sums @ ..] = &numbers[..] else {
            panic!("{text}");
        };
        Found {
            last: last.cast_unsigned(),
            rows: rows.cast_unsigned(),
            transactions: transactions.cast_unsigned(),
            sums: sums.try_into().expect("four sums"),
        }
    }

    /// Has it written to until so many rows are committed, and kills the monitor then: the last row that was
    /// acknowledged.
    fn write_until_killed(&self, most: usize) -> u64 {
        let mut writer = command(["exec", &self.kept.name, "sh", "-c"]);
        let mut child = writer
            .arg(format!("{WHEN_IT_ANSWERS}{WRITE}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut last, mut killer) = (0, None);
        for (count, line) in lines.map_while(Result::ok).enumerate() {
            last = line.parse().unwrap_or(last);
            if count == most {
                // What is acknowledged meanwhile counts as well.
                let id = self.id.clone();
                killer = Some(std::thread::spawn(move || kill_monitor(&id)));
            }
        }
        let _ = child.wait();
        killer.expect("it ended by itself").join().unwrap();
        last
    }
}

fn nothing_is_lost(volume: &Named) {
    import(POSTGRES, "postgres.tar");
    let kept = Kept::new(volume.0, Mode::Vm);
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
    let begin = Instant::now();
    let id = kept.run(&words);
    let db = Database { kept, id };
    let _ = db.ask(MAKE);
    eprintln!("made after {:.1?}", begin.elapsed());
    let mut transactions = 0;
    for round in 0..kills() {
        let begin = Instant::now();
        let acknowledged = db.write_until_killed(20 + 37 * round % 180);
        let written = begin.elapsed();
        assert!(acknowledged > 0, "round {round}");
        let _ = hullbox(["start", &db.kept.name]).exits(0);
        let started = begin.elapsed();
        let found = db.look();
        let looked = begin.elapsed();
        eprintln!(
            "round {round}: {acknowledged} rows acknowledged, {} there; {} transactions of pgbench's, sums {:?}; \
             killed after {written:.1?}, started after {started:.1?}, answered after {looked:.1?}",
            found.last, found.transactions, found.sums
        );
        assert!(found.last >= acknowledged, "round {round}: {found:?}");
        assert_eq!(found.last, found.rows, "round {round}");
        assert!(
            found.transactions >= transactions,
            "round {round}: {found:?}"
        );
        assert_eq!(found.sums, [found.sums[0]; 4], "round {round}");
        transactions = found.transactions;
    }
    assert!(transactions > 0, "pgbench did nothing");
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
