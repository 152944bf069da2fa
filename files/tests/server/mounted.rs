//! The same server behind a real kernel: mounted by `/dev/fuse`, as container mode has it in the helper
//! machine.

use crate::client::{LIMIT, launcher};
use anyhow::{Context, Result, bail, ensure};
use hullbox_files::outside::{Outside, mount_with};
use hullbox_files::{Export, Launcher};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Mounted {
    outside: Option<Outside>,
    _server: hullbox_files::Process,
    pub at: tempfile::TempDir,
    pub source: std::sync::Arc<tempfile::TempDir>,
}

impl Mounted {
    pub fn new(change: impl FnOnce(Export) -> Export) -> Result<Option<Self>> {
        Self::of(tempfile::tempdir()?.into(), change)
    }

    /// Of a directory that others may use, too.
    fn of(
        source: std::sync::Arc<tempfile::TempDir>,
        change: impl FnOnce(Export) -> Export,
    ) -> Result<Option<Self>> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: no /dev/fuse");
            return Ok(None);
        }
        let started = launcher().start(&[change(Export::of(source.path()))])?;
        let relay = Launcher::of(
            std::env::current_exe()?,
            vec![hullbox_files::ENTRY.into(), "--relay".into()],
        );
        let (outside, server) = mount_started(started, &relay)?;
        let at = tempfile::tempdir()?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&outside.root, c"", CWD, at.path(), flags)?;
        Ok(Some(Self {
            outside: Some(outside),
            _server: server,
            at,
            source,
        }))
    }

    pub fn path(&self) -> PathBuf {
        self.at.path().join("0")
    }

    /// Runs a shell in the mount.
    pub fn shell(&self, script: &str) -> Result<String> {
        let output = Command::new("bash")
            .args(["-euc", script])
            .env("SOURCE", self.source.path())
            .current_dir(self.path())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }
}

fn mount_started(
    started: hullbox_files::Starting,
    relay: &Launcher,
) -> Result<(Outside, hullbox_files::Process)> {
    let _ = LIMIT;
    let (outside, server) = mount_with(started, relay)?;
    Ok((outside, server.context("no process")?))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(self.at.path(), UnmountFlags::DETACH);
        self.outside.take();
    }
}

pub fn programs_find_what_they_know() -> Result<()> {
    let Some(mounted) = Mounted::new(|export| export)? else {
        return Ok(());
    };
    mounted.shell(
        r#"
        umask 022
        echo hello > a; test "$(cat a)" = hello; test "$(cat "$SOURCE/a")" = hello
        # Links, names, sparse files, times, modes.
        ln a b; test "$(stat -c %h a)" = 2; ln -s a c; test "$(readlink c)" = a
        truncate -s 5G big; test "$(stat -c %s big)" = 5368709120
        printf x | dd of=big bs=1 seek=4800000000 conv=notrunc status=none
        test "$(stat -c %b "$SOURCE/big")" -lt 100
        fallocate -p -o 4800000000 -l 4096 big
        cp --sparse=always big big2; cmp -i 4799999000 big big2 -n 2000; rm big big2
        touch -d '2001-02-03 04:05:06.123456789' a; test "$(stat -c %.9Y a)" = 981173106.123456789
        chmod 4751 a; test "$(stat -c %a "$SOURCE/a")" = 4751
        chown 12345:54321 a; test "$(stat -c %u:%g "$SOURCE/a")" = 12345:54321
        # An open file without a name, and one that is renamed over.
        exec 5<>d; echo text >&5; rm d; test "$(cat /proc/self/fd/5)" = text; exec 5>&-
        echo one > e; echo two > f; exec 6<e; mv f e; test "$(cat <&6)" = one; test "$(cat e)" = two
        mkfifo p; (echo through > p &) ; test "$(cat p)" = through
        mkdir -p x/y/z; touch x/y/z/{1..300}; test "$(ls x/y/z | wc -l)" = 300
        test "$(find x -type f | wc -l)" = 300; rm -r x; test ! -e "$SOURCE/x"
        # Masks, and directories whose group is kept.
        umask 077; touch m; test "$(stat -c %a "$SOURCE/m")" = 600; umask 022
        mkdir s; chgrp 77 s; chmod g+s s; touch s/t; test "$(stat -c %g "$SOURCE/s/t")" = 77
        "#,
    )?;
    Ok(())
}

pub fn what_is_made_belongs_to_who_makes_it() -> Result<()> {
    let Some(mounted) = Mounted::new(|export| export)? else {
        return Ok(());
    };
    mounted.shell(
        r#"
        mkdir w; chmod 1777 w; cd w
        as() { setpriv --reuid 1234 --regid 4321 --clear-groups bash -euc "$1"; }
        as 'touch f; mkdir d; ln -s x l; mkfifo p'
        for n in f d l p; do test "$(stat -c %u:%g "$SOURCE/w/$n")" = 1234:4321; done
        touch r; ! as 'echo x > r' 2>/dev/null; ! as 'rm r' 2>/dev/null
        # A group that only the guest knows of.
        mkdir g; chgrp 55 g; chmod 770 g
        setpriv --reuid 1234 --regid 4321 --groups 55 touch g/t
        test "$(stat -c %u "$SOURCE/w/g/t")" = 1234
        # Who writes to a setuid program takes that away.
        as 'cp /bin/true prog; chmod 4755 prog; echo >> prog'
        test "$(stat -c %a "$SOURCE/w/prog")" = 755
        "#,
    )?;
    Ok(())
}

pub fn attributes_and_locks_are_the_hosts() -> Result<()> {
    let Some(mounted) = Mounted::new(|export| export)? else {
        return Ok(());
    };
    // On tmpfs there may be no attributes of users.
    let tool = |name: &str| Command::new(name).arg("--version").output().is_ok();
    if tool("setfattr") {
        mounted.shell(
            r#"
            touch a; setfattr -n user.x -v y a; test "$(getfattr --only-values -n user.x "$SOURCE/a")" = y
            ! setfattr -n user.hullbox.owner -v "0 0 0" a 2>/dev/null
            setfattr -x user.x a; ! getfattr -n user.x a 2>/dev/null
            "#,
        )?;
    }
    mounted.shell(
        r#"
        touch l; exec 7<l; flock -n 7; ! flock -n "$SOURCE/l" true
        (sleep 0.3; exec 7>&-) & exec 7>&-; timeout 20 flock "$SOURCE/l" true
        flock "$SOURCE/l" sleep 1 & sleep 0.3; ! timeout 0.3 flock l true
        timeout 20 flock l true; wait
        "#,
    )?;
    Ok(())
}

pub fn repositories_and_databases_work() -> Result<()> {
    let Some(mounted) = Mounted::new(|export| export)? else {
        return Ok(());
    };
    if Command::new("git").arg("--version").output().is_ok() {
        let out = mounted.shell(
            r#"
            export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
            git init -q r; cd r; git config user.email a@b; git config user.name n
            mkdir -p d/e; for i in {1..200}; do echo $i > d/e/$i; done; chmod +x d/e/7
            git add .; git commit -qm one; git status --porcelain
            echo x >> d/e/9; git reset -q --hard; git status --porcelain
            test -x d/e/7; git fsck --strict 2>&1; git gc -q
            "#,
        )?;
        ensure!(out.trim().is_empty() || !out.contains("error"), "{out}");
    }
    if Command::new("sqlite3").arg("--version").output().is_ok() {
        let out = mounted.shell(
            r#"
            sqlite3 db 'pragma journal_mode=wal; create table t(x);' > /dev/null
            for i in {1..50}; do sqlite3 db "insert into t values($i)"; done
            sqlite3 db 'pragma integrity_check; select count(*) from t'
            "#,
        )?;
        ensure!(out == "ok\n50\n", "{out}");
    }
    Ok(())
}

pub fn an_exclusive_volume_is_written_later() -> Result<()> {
    let exclusive = |export| Export {
        exclusive: true,
        volume: true,
        ..export
    };
    let Some(mounted) = Mounted::new(exclusive)? else {
        return Ok(());
    };
    mounted.shell(
        r#"
        for i in {1..2000}; do echo $i >> log; done; test "$(wc -l < log)" = 2000
        sync log; test "$(wc -l < "$SOURCE/log")" = 2000; cmp log "$SOURCE/log"
        dd if=/dev/urandom of=d bs=1M count=20 conv=fsync status=none; cmp d "$SOURCE/d"
        "#,
    )?;
    Ok(())
}

pub fn a_server_that_is_gone_is_an_error() -> Result<()> {
    let Some(mut mounted) = Mounted::new(|export| export)? else {
        return Ok(());
    };
    mounted.shell("echo x > a")?;
    mounted._server.kill();
    let error = std::fs::read_dir(mounted.path())
        .err()
        .context("it works")?;
    let known = [Some(libc::ENOTCONN), Some(libc::ECONNABORTED)];
    ensure!(known.contains(&error.raw_os_error()), "{error}");
    Ok(())
}

/// Two guests and the host on one database: in the mode that takes turns by locks nothing is lost, and in the
/// one that shares memory whoever comes second is refused.
pub fn databases_of_several_stay_whole() -> Result<()> {
    let Some(one) = Mounted::new(|export| export)? else {
        return Ok(());
    };
    let Some(two) = Mounted::of(one.source.clone(), |export| export)? else {
        return Ok(());
    };
    if Command::new("sqlite3").arg("--version").output().is_err() {
        return Ok(());
    }
    one.shell("sqlite3 db 'create table t(x); insert into t values(0);'")?;
    let writer = |dir: PathBuf| {
        Command::new("bash")
            .args([
                "-euc",
                "for i in {1..8}; do sqlite3 -cmd '.timeout 60000' db \
                 'begin immediate; insert into t select max(x)+1 from t; commit;'; done",
            ])
            .current_dir(dir)
            .spawn()
    };
    let mut writers = [
        writer(one.path())?,
        writer(two.path())?,
        writer(one.source.path().to_owned())?,
    ];
    for writer in &mut writers {
        ensure!(writer.wait()?.success());
    }
    let check =
        "sqlite3 db 'pragma integrity_check; select count(*), max(x), count(distinct x) from t'";
    for dir in [one.path(), two.path(), one.source.path().to_owned()] {
        let output = Command::new("bash")
            .args(["-c", check])
            .current_dir(dir)
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(text == "ok\n25|24|25\n", "{text}");
    }
    // The first one stays.
    one.shell("sqlite3 db 'pragma journal_mode=wal;'")?;
    let mut holder = Command::new("sqlite3")
        .args(["-cmd", "select 1 from t limit 1", "db"])
        .current_dir(one.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut first = [0; 1];
    let output = holder.stdout.as_mut().context("no output")?;
    std::io::Read::read_exact(output, &mut first)?;
    for dir in [two.path(), one.source.path().to_owned()] {
        let output = Command::new("sqlite3")
            .args(["db", "insert into t values(1000)"])
            .current_dir(dir)
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // After ten seconds, in which it tries again: the lock is one that is held for moments otherwise.
        ensure!(text.contains("locking protocol"), "{text}");
    }
    one.shell("sqlite3 db 'insert into t values(2000)'")?;
    drop(holder.stdin.take());
    holder.wait()?;
    let text = two.shell("sqlite3 db 'pragma integrity_check; select max(x) from t'")?;
    ensure!(text == "ok\n2000\n", "{text}");
    Ok(())
}
