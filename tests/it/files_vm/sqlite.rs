//! One SQLite database in WAL mode, of two microVMs and a container. `HULLBOX_TEST_SQLITE_S` is for how long;
//! ten minutes are enough to believe it.

use super::{DEBIAN, Named, debian, seconds};
use crate::life::Kept;
use hullbox_tests::{Done, Mode, command};
use std::process::Output;

/// Inserts rows until its time is over, each by a connection of its own, or five by one; says of the last
/// that was acknowledged, of how many tries failed, and in which words.
const WRITER: &str = r#"
    who=$1; end=$(($(date +%s) + $2)); last=0; failed=0; turn=0
    one="insert into t select '$who', coalesce(max(n), 0) + 1, hex(randomblob(300)) from t where who = '$who' returning n;"
    while [ "$(date +%s)" -lt "$end" ]; do
        turn=$((turn + 1)); all=$one
        [ $((turn % 4)) != 0 ] || all=$one$one$one$one$one
        # Now and then what is in the log goes into the database.
        [ $((turn % 16)) != 5 ] || all="pragma wal_checkpoint(restart);$one"
        said=$(sqlite3 -bail -cmd '.timeout 3000' /w/db "$all" 2>/tmp/error) || { failed=$((failed + 1)); cat /tmp/error >>/tmp/errors; }
        for n in $said; do case $n in *'|'*) ;; *) last=$n ;; esac; done
    done
    echo "$last $failed"; sort /tmp/errors 2>/dev/null | uniq -c >&2; true
"#;

fn sqlite(at: &Kept, query: &str) -> Done {
    let words = ["sqlite3", "-cmd", ".timeout 20000", "/w/db", query];
    at.exec(&words)
}

#[test]
#[ignore = "needs the built program: make test"]
fn a_database_of_two_vms_and_a_container_stays_whole() {
    debian();
    let limit = seconds("HULLBOX_TEST_SQLITE_S", 6);
    let volume = Named::free("fv-sqlite");
    let mount = volume.at("/w");
    let members = [
        Kept::new("sqlite-one", Mode::Vm),
        Kept::new("sqlite-two", Mode::Vm),
        Kept::new("sqlite-ns", Mode::Container),
    ];
    for member in &members {
        member.run(&["-m", "256m", "-v", &mount, DEBIAN, "sleep", "100000"]);
    }
    let made = sqlite(
        &members[0],
        "pragma journal_mode = wal; create table t (who text, n integer, word text, primary key (who, n))",
    );
    assert_eq!(made.exits(0).text(), "wal");
    let seconds = limit.as_secs().to_string();
    // A thread for each: it may take longer than commands of these tests do.
    let ends: Vec<Output> = std::thread::scope(|scope| {
        let begin = |member: &Kept| {
            let words = ["exec", &member.name, "bash", "-c", WRITER, "writer"];
            let mut write = command(words);
            write.args([&member.name, &seconds]);
            scope.spawn(move || write.output().unwrap())
        };
        let all: Vec<_> = members.iter().map(begin).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut total = 0;
    for at in &members {
        let checked = sqlite(at, "pragma integrity_check").exits(0);
        assert_eq!(checked.text(), "ok", "{}", at.name);
    }
    for (member, done) in members.iter().zip(&ends) {
        let name = &member.name;
        assert!(done.status.success(), "{done:?}");
        let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        let refused = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        let (acknowledged, failed) = text.split_once(' ').expect("two numbers");
        let acknowledged: u64 = acknowledged.parse().unwrap();
        let query = format!("select coalesce(max(n), 0), count(*) from t where who = '{name}'");
        let found = sqlite(&members[2], &query).exits(0).text();
        let (max, count) = found.split_once('|').expect("two numbers");
        let (max, count): (u64, u64) = (max.parse().unwrap(), count.parse().unwrap());
        eprintln!(
            "{name}: {acknowledged} acknowledged, {max} there, {failed} tries refused: {refused}"
        );
        assert!(max >= acknowledged, "{name}: {max} of {acknowledged}");
        assert_eq!(max, count, "{name}");
        // Whoever is second is refused in these words, and never told that anything is broken.
        for line in refused.lines() {
            let known = ["locking protocol", "database is locked"];
            assert!(
                known.iter().any(|known| line.contains(known)),
                "{name}: {line}"
            );
        }
        total += max;
    }
    assert!(total > 0, "nobody wrote anything");
}
