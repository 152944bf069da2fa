use super::*;
use crate::id::new_id;
use crate::record::{End, NewContainer};
use hullbox_host::paths::Roots;
use hullbox_plan::mounts::{MountsRequest, Source};
use hullbox_plan::{HostFacts, ImageDefaults, RunRequest, plan};

struct Bed {
    roots: Roots,
    state: State,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            data: dir.path().join("data"),
            runtime: dir.path().join("run"),
        };
        roots.create().unwrap();
        let state = State::open(&roots).unwrap();
        Self {
            roots,
            state,
            _dir: dir,
        }
    }

    fn container(&mut self, volumes: &[&str], auto_remove: bool) -> Record {
        let id = new_id().unwrap();
        let request = RunRequest {
            args: vec![b"true".to_vec()],
            auto_remove,
            mounts: MountsRequest {
                volumes: volumes.iter().map(|text| text.parse().unwrap()).collect(),
                ..MountsRequest::default()
            },
            ..RunRequest::default()
        };
        let host = HostFacts { cpus: 2 };
        let mut spec = plan(&id, request, ImageDefaults::default(), host).unwrap();
        for mount in &mut spec.mounts {
            if let Source::Volume(volume) = &mut mount.source
                && volume.name.is_empty()
            {
                volume.name = new_id().unwrap();
            }
        }
        let new = NewContainer {
            id,
            name: None,
            image_id: "sha256:0".to_owned(),
            image_ref: "busybox".to_owned(),
            spec,
        };
        self.state.create(&new, None).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let all = self.state.volumes().unwrap();
        all.into_iter().map(|volume| volume.name).collect()
    }

    /// Makes the directories of a container's volumes, with a file in each.
    fn fill(&self, record: &Record) {
        for volume in record.volumes() {
            let volume = self.state.volume(&volume.name).unwrap();
            self.state.prepare_volume(&volume).unwrap();
            fs::write(volume.data().join("file"), "").unwrap();
        }
    }
}

fn labelled(key: &str) -> VolumeSpec {
    VolumeSpec {
        labels: Some([(key.to_owned(), String::new())].into()),
        ..VolumeSpec::default()
    }
}

#[test]
fn a_volume_is_made_once() {
    let bed = Bed::new();
    let (first, new) = bed.state.create_volume("data", &labelled("a")).unwrap();
    assert!(new);
    let (again, new) = bed.state.create_volume("data", &labelled("b")).unwrap();
    assert!(!new);
    assert_eq!(first, again);
    let other = VolumeSpec {
        options: [("type".to_owned(), "ext4".to_owned())].into(),
        ..VolumeSpec::default()
    };
    let differs = bed.state.create_volume("data", &other);
    assert!(matches!(differs, Err(StateError::VolumeDiffers(_))));
    bed.state.prepare_volume(&first).unwrap();
    assert!(first.data().is_dir());
    bed.state.remove_volume("data").unwrap();
    assert!(!first.dir().exists());
    let gone = bed.state.remove_volume("data");
    assert!(matches!(gone, Err(StateError::VolumeNotFound(_))));
    assert_eq!(bed.state.stray_volumes(false).unwrap(), []);
}

#[test]
fn what_a_container_has_is_not_removed() {
    let mut bed = Bed::new();
    let record = bed.container(&["data:/data", "/own"], false);
    assert_eq!(record.changed_volumes.len(), 2);
    bed.fill(&record);
    let in_use = bed.state.remove_volume("data").unwrap_err();
    let wanted = format!("remove data: volume is in use - [{}]", record.id);
    assert_eq!(in_use.to_string(), wanted);
    // Without its volumes.
    assert_eq!(
        bed.state.remove(&record.id, false, &|_| Ok(())).unwrap(),
        [""; 0]
    );
    assert_eq!(bed.names().len(), 2);
    bed.state.remove_volume("data").unwrap();
}

#[test]
fn what_nobody_named_goes_with_its_last_container() {
    let mut bed = Bed::new();
    let first = bed.container(&["data:/data", "/own"], false);
    bed.fill(&first);
    let own = first
        .volumes()
        .find(|volume| volume.anonymous)
        .unwrap()
        .name
        .clone();
    // As `--volumes-from` has it: the same volume in another container.
    let second = bed.container(&[&format!("{own}:/own")], false);
    assert!(second.changed_volumes.is_empty());
    let gone = bed.state.remove(&first.id, true, &|_| Ok(())).unwrap();
    assert!(gone.is_empty());
    assert_eq!(bed.names().len(), 2);
    // There it has a name.
    bed.state.remove(&second.id, true, &|_| Ok(())).unwrap();
    assert_eq!(bed.names().len(), 2);
    let third = bed.container(&["/own"], true);
    bed.fill(&third);
    let dir = bed
        .state
        .volume(&third.changed_volumes[0])
        .unwrap()
        .dir()
        .to_owned();
    bed.state.finish(&third.id, &End::default()).unwrap();
    assert_eq!(bed.names().len(), 2);
    assert!(!dir.exists());
}

#[test]
fn a_removal_that_was_killed_is_finished_or_undone() {
    let bed = Bed::new();
    let (kept, _) = bed
        .state
        .create_volume("kept", &VolumeSpec::default())
        .unwrap();
    bed.state.prepare_volume(&kept).unwrap();
    fs::write(kept.data().join("file"), "").unwrap();
    // Killed after the renaming, before the commit.
    let volumes = bed.roots.volumes_dir();
    fs::rename(kept.dir(), removed_dir(&volumes, kept.row)).unwrap();
    // And one that was killed behind it.
    let left = removed_dir(&volumes, 4711);
    fs::create_dir_all(left.join("_data")).unwrap();
    let strays = bed.state.stray_volumes(false).unwrap();
    assert_eq!(strays, [(StrayVolume::Directory(left.clone()), false)]);
    bed.state.tidy_volumes();
    assert!(!left.exists());
    bed.state.prepare_volume(&kept).unwrap();
    assert!(kept.data().join("file").exists());
    assert_eq!(bed.state.stray_volumes(false).unwrap(), []);
}

#[test]
fn what_nobody_knows_is_told_and_left() {
    let bed = Bed::new();
    let foreign = bed.roots.volumes_dir().join("foreign");
    fs::create_dir_all(&foreign).unwrap();
    bed.state
        .database
        .execute_batch(
            "INSERT INTO volume_uses VALUES ('gone', 'gone', 0);
             INSERT INTO volumes (name, created_ns, spec) VALUES ('bad', 0, '{');",
        )
        .unwrap();
    let strays = bed.state.stray_volumes(true).unwrap();
    assert_eq!(
        strays,
        [
            (StrayVolume::Record("bad".to_owned()), false),
            (StrayVolume::Directory(foreign.clone()), false),
            (StrayVolume::Use("gone".to_owned(), "gone".to_owned()), true),
        ]
    );
    assert!(foreign.exists());
    // What is damaged can be removed.
    assert!(bed.state.volume("bad").is_err());
    bed.state.remove_volume("bad").unwrap();
}

#[test]
fn one_volume_at_two_places_is_used_once() {
    let mut bed = Bed::new();
    let record = bed.container(&["data:/a", "data:/b:ro"], false);
    assert_eq!(
        bed.state.volume_users("data").unwrap(),
        [record.id.as_str()]
    );
    let counts = bed.state.volume_use_counts().unwrap();
    assert_eq!(counts["data"], 1);
}
