use super::*;

#[test]
fn a_draft_is_seen_when_it_is_finished_and_not_before() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    assert!(list(data).unwrap().is_empty());
    let draft = Draft::begin("one", data).unwrap();
    fs::write(draft.dir().join("memory"), "m").unwrap();
    assert!(list(data).unwrap().is_empty());
    draft.finish().unwrap();
    let all = list(data).unwrap();
    assert_eq!((all.len(), all[0].name.as_str()), (1, "one"));
    assert!(matches!(
        Draft::begin("one", data),
        Err(SnapshotsError::InUse(_))
    ));
    // One that is dropped leaves nothing, and neither does one whose maker was killed.
    drop(Draft::begin("two", data).unwrap());
    fs::create_dir(directory(data).join(".three")).unwrap();
    let left = directory(data).join(".three");
    assert_eq!(abandoned(data, false), [(left.clone(), false)]);
    assert_eq!(abandoned(data, true), [(left.clone(), true)]);
    fs::create_dir(left).unwrap();
    remove("one", data).unwrap();
    assert!(matches!(
        remove("one", data),
        Err(SnapshotsError::NotFound(_))
    ));
    let left: Vec<_> = fs::read_dir(directory(data)).unwrap().collect();
    assert_eq!(left.len(), 1, "the lock alone: {left:?}");
}

#[test]
fn names_lead_nowhere_else() {
    let data = tempfile::tempdir().unwrap();
    for name in ["", "..", ".x", "a/b", "/etc"] {
        assert!(matches!(
            find(name, data.path()),
            Err(SnapshotsError::Name { .. })
        ));
    }
}
