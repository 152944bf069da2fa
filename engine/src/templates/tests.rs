use super::*;
use std::fs;

#[test]
fn a_policy_is_one_of_two_words_and_the_environments_counts() {
    let policy = |variable: Option<&str>, text: &str| {
        let file = File::new("/c".into(), text.to_owned());
        Policy::of_settings(variable.map(OsStr::new), || Ok(&file))
    };
    let never = "[templates]\npolicy = \"never\"\n[machine]\npolicy = \"auto\"\n";
    let auto = "[templates]\npolicy = \"auto\"\n";
    assert_eq!(policy(None, "").unwrap(), Policy::Auto);
    assert_eq!(policy(None, auto).unwrap(), Policy::Auto);
    assert_eq!(policy(None, never).unwrap(), Policy::Never);
    assert_eq!(policy(Some("auto"), never).unwrap(), Policy::Auto);
    assert_eq!(policy(Some("never"), auto).unwrap(), Policy::Never);
    let error = policy(Some("Always"), never).unwrap_err().to_string();
    assert_eq!(
        error,
        "HULLBOX_TEMPLATES is `Always`; it can be never or auto"
    );
    for odd in [
        "[templates]\npolicy = \"perhaps\"\n",
        "[templates]\nwhen = \"never\"\n",
        "[templates",
    ] {
        let error = policy(None, odd).unwrap_err();
        assert!(
            matches!(error, PolicyError::File(FileError::Parse { .. })),
            "{error}"
        );
        // Not asked, not read.
        assert_eq!(policy(Some("never"), odd).unwrap(), Policy::Never);
    }
}

#[test]
fn what_is_stale_is_listed_and_pruned() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path();
    assert_eq!(list(data).unwrap(), []);
    assert!(prune(false, data).unwrap().is_empty());
    let dir = directory(data);
    for name in ["aa11", "aa22", "bb33.staging"] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("memory"), [1; 10_000]).unwrap();
        // Of a shape that no guest has.
        fs::write(dir.join(name).join("about.json"), "{\"vcpus\":true}").unwrap();
    }
    fs::write(dir.join("cc44.failed"), "").unwrap();
    let all = list(data).unwrap();
    let ids: Vec<_> = all.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["aa11", "aa22", "bb33.staging"]);
    assert!(
        all.iter()
            .all(|one| !one.current && one.disk_bytes >= 10_000)
    );

    let refused = |prefix: &str, wanted: usize| {
        let error = remove(prefix, data).unwrap_err();
        assert!(
            matches!(error, ListError::Unknown { found, .. } if found == wanted),
            "{error}"
        );
    };
    refused("aa", 2);
    refused("cc", 0);
    refused("", 0);
    refused("../", 0);
    assert_eq!(remove("aa2", data).unwrap(), "aa22");
    assert_eq!(prune(false, data).unwrap().len(), 2);
    let left: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn keys_are_names_of_directories() {
    let origin = [0xab; 32];
    let dir = place(&origin, Path::new("/data"));
    assert_eq!(dir, Path::new("/data/templates").join("ab".repeat(16)));
}
