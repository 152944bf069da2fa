use super::*;
use hullbox_backend::network::{OpenPort, PortProtocol};
use hullbox_host::paths::{Roots, short_id};
use hullbox_host::sys::{self, LockKind};
use hullbox_plan::{HostFacts, ImageDefaults, RunRequest, plan};
use rusqlite::Connection;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

struct Scratch {
    roots: Roots,
    base: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let base = std::env::temp_dir().join(format!("hullbox-{name}-{}", std::process::id()));
        let roots = Roots {
            data: base.join("data"),
            runtime: base.join("run"),
        };
        roots.create().unwrap();
        Self { roots, base }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

fn new(name: Option<&str>, auto_remove: bool) -> NewContainer {
    let id = new_id().unwrap();
    let request = RunRequest {
        args: vec![b"true".to_vec()],
        auto_remove,
        ..RunRequest::default()
    };
    let spec = plan(
        &id,
        request,
        ImageDefaults::default(),
        HostFacts { cpus: 1 },
    )
    .unwrap();
    NewContainer {
        id,
        name: name.map(str::to_owned),
        image_id: "sha256:00".into(),
        image_ref: "busybox".into(),
        spec,
    }
}

fn create(state: &mut State, new: &NewContainer) -> Result<(Record, LifeLock), StateError> {
    let lock = LifeLock::open(state.roots())?;
    Ok((state.create(new, Some(starter(&lock)))?, lock))
}

fn starter(lock: &LifeLock) -> Starter<'_> {
    Starter {
        lock,
        monitor_pid: 1,
    }
}

fn no_release(_: &Record) -> io::Result<()> {
    Ok(())
}

fn found(state: &State) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |record: Record| found.push(short_id(&record.id).to_owned());
    state.recover(&no_release, &mut note).unwrap();
    found
}

#[test]
fn what_is_made_is_what_will_be_read() {
    let scratch = Scratch::new("made");
    let mut state = State::open(&scratch.roots).unwrap();
    let (begun, _lock) = create(&mut state, &new(Some("begun"), true)).unwrap();
    let only_made = state.create(&new(None, false), None).unwrap();
    for made in [begun, only_made] {
        let read = state.get(&made.id).unwrap();
        assert_eq!(format!("{made:?}"), format!("{read:?}"));
    }
}

#[test]
fn a_container_lives_and_ends() {
    let scratch = Scratch::new("life");
    let mut state = State::open(&scratch.roots).unwrap();
    let (record, lock) = create(&mut state, &new(Some("one"), false)).unwrap();
    assert_eq!(record.phase, Phase::Starting);
    assert!(scratch.roots.container_dir(&record.id).is_dir());
    assert!(matches!(
        create(&mut state, &new(Some("one"), false)),
        Err(StateError::NameInUse { .. })
    ));
    state.set_running(&record.id, None, None).unwrap();
    // Another process: a descriptor of its own.
    let other = State::open(&scratch.roots).unwrap();
    assert!(found(&other).is_empty());
    assert!(matches!(
        other.remove(&record.id, false, &|_| Ok(())),
        Err(StateError::Running(_))
    ));
    let end = End {
        exit_code: 7,
        ..End::default()
    };
    state.finish(&record.id, &end).unwrap();
    drop(lock);
    state.settle();
    let record = other.get(&record.id).unwrap();
    assert_eq!((record.phase, record.exit_code), (Phase::Exited, Some(7)));
    assert!(!scratch.roots.container_runtime_dir(&record.id).exists());
    other.remove(&record.id, false, &|_| Ok(())).unwrap();
    assert!(other.list().unwrap().is_empty());
    assert!(!scratch.roots.container_dir(&record.id).exists());
}

#[test]
fn what_a_killed_monitor_left_is_freed_before_its_record_goes() {
    let scratch = Scratch::new("freed");
    let mut state = State::open(&scratch.roots).unwrap();
    let (record, lock) = create(&mut state, &new(Some("one"), false)).unwrap();
    // It is gone without a word, and nobody has looked since.
    drop(lock);
    let freed = std::cell::Cell::new(0);
    let free = |left: &Record| {
        assert_eq!(left.id, record.id);
        freed.set(freed.get() + 1);
        match freed.get() {
            1 => Err(std::io::ErrorKind::ResourceBusy.into()),
            _ => Ok(()),
        }
    };
    // What cannot be freed keeps its record.
    assert!(state.remove(&record.id, false, &free).is_err());
    state.remove(&record.id, false, &free).unwrap();
    assert_eq!(freed.get(), 2);
    assert!(state.list().unwrap().is_empty());
    // Nothing is freed of one that was never begun.
    let made = state.create(&new(None, false), None).unwrap();
    state.remove(&made.id, false, &free).unwrap();
    assert_eq!(freed.get(), 2);
}

fn a_port() -> OpenPort {
    OpenPort {
        protocol: PortProtocol::Tcp,
        host_ip: "0.0.0.0".parse().unwrap(),
        host_port: 8080,
        container_port: 80,
    }
}

#[test]
fn open_ports_are_known_while_a_container_runs() {
    let scratch = Scratch::new("ports");
    let mut state = State::open(&scratch.roots).unwrap();
    let (record, lock) = create(&mut state, &new(Some("one"), false)).unwrap();
    let id = &record.id;
    state.set_open_ports(id, &[a_port()]).unwrap();
    state.set_running(id, None, None).unwrap();
    assert_eq!(state.get(id).unwrap().open_ports, [a_port()]);
    state.set_restarting(id, &End::default(), 1).unwrap();
    assert_eq!(state.get(id).unwrap().open_ports, []);
    state.set_open_ports(id, &[a_port()]).unwrap();
    state.finish(id, &End::default()).unwrap();
    assert_eq!(state.get(id).unwrap().open_ports, []);
    drop(lock);
}

#[test]
fn a_database_of_before_ports_is_brought_forward() {
    let scratch = Scratch::new("forward");
    let mut state = State::open(&scratch.roots).unwrap();
    let (record, lock) = create(&mut state, &new(Some("one"), false)).unwrap();
    drop((state, lock));
    let database = Connection::open(scratch.roots.data.join("containers.db")).unwrap();
    let older = "DROP TRIGGER endpoints_of_container; DROP TRIGGER endpoints_of_network;
        DROP TABLE endpoints; DROP TABLE networks;
        DROP TRIGGER volume_uses_of_container; DROP TABLE volume_uses; DROP TABLE volumes;
        ALTER TABLE containers DROP COLUMN ports; PRAGMA user_version = 5;";
    database.execute_batch(older).unwrap();
    drop(database);
    let state = State::open(&scratch.roots).unwrap();
    assert_eq!(state.get(&record.id).unwrap().open_ports, []);
    state.set_open_ports(&record.id, &[a_port()]).unwrap();
    assert_eq!(state.get(&record.id).unwrap().open_ports, [a_port()]);
}

#[test]
fn the_dead_are_cleaned_up_after() {
    let scratch = Scratch::new("dead");
    let mut state = State::open(&scratch.roots).unwrap();
    let (kept, lock_kept) = create(&mut state, &new(Some("kept"), false)).unwrap();
    let (gone, lock_gone) = create(&mut state, &new(None, true)).unwrap();
    state.set_running(&kept.id, None, None).unwrap();
    drop((lock_kept, lock_gone));
    let mut found_ids = found(&state);
    found_ids.sort();
    let mut expected = vec![short_id(&kept.id).to_owned(), short_id(&gone.id).to_owned()];
    expected.sort();
    assert_eq!(found_ids, expected);
    assert!(matches!(state.get(&gone.id), Err(StateError::NotFound(_))));
    assert!(!scratch.roots.container_dir(&gone.id).exists());
    let kept = state.get(&kept.id).unwrap();
    assert_eq!(
        (kept.phase, kept.exit_code),
        (Phase::Exited, Some(KILLED_CODE))
    );
    assert!(found(&state).is_empty());
}

const KILLED_CODE: u8 = 137;

#[test]
fn containers_are_found_by_name_id_and_prefix() {
    let scratch = Scratch::new("find");
    let mut state = State::open(&scratch.roots).unwrap();
    let (one, _lock) = create(&mut state, &new(Some("one"), false)).unwrap();
    let (_two, _lock2) = create(&mut state, &new(Some("two"), false)).unwrap();
    for text in ["one", &one.id, &one.id[..20]] {
        assert_eq!(state.resolve(text).unwrap().id, one.id);
    }
    for text in ["", "three", "%", "zz"] {
        assert!(
            matches!(state.resolve(text), Err(StateError::NotFound(_))),
            "{text}"
        );
    }
    assert_eq!(state.users_of_image("sha256:00").unwrap().len(), 2);
}

#[test]
fn a_newer_database_is_refused() {
    let scratch = Scratch::new("newer");
    drop(State::open(&scratch.roots).unwrap());
    let database = Connection::open(scratch.roots.data.join("containers.db")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    assert!(matches!(
        State::open(&scratch.roots),
        Err(StateError::Version { found: 99, .. })
    ));
}

#[test]
fn who_only_looks_is_in_nobodys_way() {
    let scratch = Scratch::new("looks");
    let mut state = State::open(&scratch.roots).unwrap();
    let (record, lock) = create(&mut state, &new(Some("one"), false)).unwrap();
    state.set_running(&record.id, None, None).unwrap();
    state.finish(&record.id, &End::default()).unwrap();
    drop(lock);
    // Somebody has waited for its end, or found it dead when it was just ending.
    let looks = LifeLock::open(&scratch.roots).unwrap();
    sys::lock_byte(&looks.file, LockKind::Exclusive, record.row).unwrap();
    let looker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(looks);
    });
    state.remove(&record.id, false, &|_| Ok(())).unwrap();
    looker.join().unwrap();
    assert!(matches!(
        state.get(&record.id),
        Err(StateError::NotFound(_))
    ));
}
