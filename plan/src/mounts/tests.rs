use super::*;
use crate::units::Tmpfs;
use std::path::Path;

fn volume(text: &str) -> VolumeFlag {
    text.parse().unwrap()
}

fn why(text: &str) -> String {
    text.parse::<VolumeFlag>().unwrap_err().to_string()
}

fn flag(text: &str) -> MountFlag {
    text.parse().unwrap()
}

fn flag_why(text: &str) -> String {
    text.parse::<MountFlag>().unwrap_err().to_string()
}

fn all(
    request: &MountsRequest,
    tmpfs: &[&str],
    image: &[&str],
) -> Result<Vec<String>, MountsError> {
    let tmpfs: Vec<Tmpfs> = tmpfs.iter().map(|text| text.parse().unwrap()).collect();
    let image: Vec<String> = image.iter().map(|&text| text.to_owned()).collect();
    let (files, memory) = together(request, &tmpfs, &image)?;
    let files = files.iter().map(|mount| {
        let source = match &mount.source {
            Source::Bind { path, .. } => path.clone(),
            Source::Volume(volume) if volume.anonymous => "anonymous".to_owned(),
            Source::Volume(volume) => volume.name.clone(),
        };
        let mode = if mount.read_only { " ro" } else { "" };
        format!("{source} {}{mode}", mount.target)
    });
    Ok(files
        .chain(memory.iter().map(|one| format!("memory {}", one.path)))
        .collect())
}

fn request(volumes: &[&str], mounts: &[&str]) -> MountsRequest {
    MountsRequest {
        volumes: volumes.iter().map(|text| volume(text)).collect(),
        mounts: mounts.iter().map(|text| flag(text)).collect(),
        ..MountsRequest::default()
    }
}

#[test]
fn a_volume_is_a_path_a_name_or_nothing() {
    let bind = volume("/host:/in:ro,rslave,z").mount(None, false);
    assert!(bind.read_only && bind.recursive && !bind.copy_up);
    assert_eq!(bind.propagation, Propagation::Rslave);
    let Source::Bind {
        path,
        make,
        outside,
    } = bind.source
    else {
        panic!("{bind:?}")
    };
    assert_eq!((&*path, make, outside), ("/host", true, false));

    let named = volume("data:/var//lib/./x/../db").mount(None, false);
    assert_eq!(named.target, "/var/lib/db");
    assert_eq!(named.volume().unwrap().name, "data");
    assert!(named.copy_up && named.mode == "z");
    assert!(!volume("data:/x:nocopy").mount(None, false).copy_up);

    let nobody = volume("/data").mount(None, false);
    assert!(nobody.volume().unwrap().anonymous && nobody.mode.is_empty());
    assert_eq!(volume("/data").bind(), None);
    assert_eq!(volume("data:/x/:ro").bind().unwrap(), "data:/x/:ro");
}

#[test]
fn relative_paths_are_the_callers() {
    let at = Path::new("/home/me");
    let bind = |text: &str| volume(text).resolved(at).bind().unwrap();
    assert_eq!(bind("./src:/src"), "/home/me/src:/src");
    assert_eq!(bind(".:/src:ro"), "/home/me:/src:ro");
    assert_eq!(bind("../x:/src"), "/home/x:/src");
    assert_eq!(bind("src:/src"), "src:/src");
    let mount = |text: &str| flag(text).resolved(at).path().map(str::to_owned);
    assert_eq!(mount("type=bind,src=./a,dst=/b").unwrap(), "/home/me/a");
    assert_eq!(mount("type=bind,src=.,dst=/b").unwrap(), "/home/me");
    assert_eq!(mount("src=ab,dst=/b"), None);
}

#[test]
fn what_docker_refuses_of_a_volume_is_refused_in_its_words() {
    for (text, part) in [
        ("", "invalid empty volume spec"),
        (":", "invalid volume specification: ':'"),
        (":a", "invalid volume specification: ':a'"),
        ("a::/b", "invalid spec: a::/b: empty section between colons"),
        (":/b", "empty section between colons"),
        ("/a:/b:", "empty section between colons"),
        ("a:/b:ro:x", "invalid spec: a:/b:ro:x: too many colons"),
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        ("/a:/b:rx", "invalid mode: rx"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:z,Z", "invalid mode: z,Z"),
        ("/a:/b:shared,slave", "invalid mode: shared,slave"),
        ("/a:/b:RO", "invalid mode: RO"),
        (
            "/a:/",
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
        ),
        ("/a:/b/..", "destination can't be '/'"),
        ("/", "destination can't be '/'"),
        (
            "/a:b",
            "invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
        ),
        (
            "data",
            "invalid mount path: 'data' mount path must be absolute",
        ),
        ("/a:/b:nocopy", "field VolumeOptions must not be specified"),
        ("a1:/b:shared", "field BindOptions must not be specified"),
        ("a:/b", "volume name is too short"),
        (
            "~/x:/b",
            "includes invalid characters for a local volume name",
        ),
        (
            "a/b:/b",
            "includes invalid characters for a local volume name",
        ),
        (
            "-ab:/b",
            "includes invalid characters for a local volume name",
        ),
    ] {
        let why = why(text);
        assert!(why.contains(part), "{text}: {why}");
        assert!(!why.contains('\n'), "{text}: {why}");
    }
}

#[test]
fn a_mount_is_read_as_docker_reads_it() {
    let bind = flag(
        "type=bind,source=/a,target=/b,readonly,bind-propagation=rprivate,bind-recursive=readonly",
    );
    let mount = bind.mount(true).unwrap();
    assert!(mount.read_only && mount.below == Below::Forced);
    assert!(matches!(
        mount.source,
        Source::Bind {
            outside: true,
            make: false,
            ..
        }
    ));
    let not = flag("type=bind,src=/a,dst=/b,bind-recursive=disabled")
        .mount(false)
        .unwrap();
    assert!(!not.recursive && !not.read_only);
    let volume = flag(
        "src=db,dst=/x,volume-label=a=b=c,volume-label=d,volume-opt=type=tmpfs,volume-opt=o=size=1m,volume-driver=local,volume-nocopy",
    );
    let mount = volume.mount(false).unwrap();
    let made = &mount.volume().unwrap().make;
    assert_eq!(made.labels["a"], "b=c");
    assert_eq!(made.labels["d"], "");
    assert_eq!(
        (&*made.options["type"], &*made.options["o"]),
        ("tmpfs", "size=1m")
    );
    assert!(!mount.copy_up && mount.mode == "z");
    let part = flag("source=db,target=/x,volume-subpath=a/./b")
        .mount(false)
        .unwrap();
    assert_eq!(part.volume().unwrap().subpath, "a/b");
    let memory = flag("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770,ro=1");
    assert_eq!(memory.tmpfs().unwrap().options, "ro,size=1048576,mode=1770");
    assert!(memory.mount(false).is_none());
    // Keys have no case, and a quoted field may have a comma.
    let odd = flag("TYPE=Bind,\"Src=/a,b\",DST=/c");
    assert_eq!(odd.path(), Some("/a,b"));
}

#[test]
fn what_docker_refuses_of_a_mount_is_refused_in_its_words() {
    for (text, part) in [
        ("x", "invalid field 'x' must be a key=value pair"),
        ("a=b,target=/x", "unexpected key 'a' in 'a=b'"),
        ("type=volume", "target is required"),
        ("type=,target=/x", "type is required"),
        (
            "type=bind,src=/a,dst=/b,volume-nocopy",
            "cannot mix 'volume-*' options with mount type 'bind'",
        ),
        (
            "dst=/b,bind-propagation=shared",
            "cannot mix 'bind-*' options with mount type 'volume'",
        ),
        (
            "dst=/b,tmpfs-size=1m",
            "cannot mix 'tmpfs-*' options with mount type 'volume'",
        ),
        (
            "type=bind,dst=/b",
            "invalid mount config for type \"bind\": field Source must not be empty",
        ),
        (
            "type=bind,src=a,dst=/b",
            "invalid mount path: 'a' mount path must be absolute",
        ),
        (
            "type=bind,src=/a,dst=b",
            "invalid mount path: 'b' mount path must be absolute",
        ),
        ("type=bind,src=/a,dst=/", "destination can't be '/'"),
        (
            "type=bind,src=/a,dst=/b,bind-propagation=x",
            "invalid propagation mode: x",
        ),
        (
            "type=bind,src=/a,dst=/b,bind-recursive=x",
            "invalid value for bind-recursive: x (must be",
        ),
        (
            "type=bind,src=/a,dst=/b,bind-recursive=writable",
            "requires 'readonly' to be specified",
        ),
        (
            "type=bind,src=/a,dst=/b,ro,bind-recursive=readonly",
            "requires 'bind-propagation=rprivate'",
        ),
        (
            "type=bind,src=/a,dst=/b,bind-nonrecursive",
            "bind-nonrecursive is deprecated",
        ),
        ("dst=/b,readonly=maybe", "invalid value for readonly: maybe"),
        (
            "dst=/b,volume-nocopy=maybe",
            "invalid value for volume-nocopy: maybe",
        ),
        (
            "type=tmpfs,dst=/b,tmpfs-size=much",
            "invalid value for tmpfs-size: much",
        ),
        (
            "type=tmpfs,dst=/b,tmpfs-mode=999",
            "invalid value for tmpfs-mode: 999",
        ),
        (
            "type=tmpfs,src=/a,dst=/b",
            "field Source must not be specified",
        ),
        ("type=cluster,src=/a,dst=/b", "mount type unknown"),
        (
            "dst=/b,ro",
            "must not set ReadOnly mode when using anonymous volumes",
        ),
        (
            "dst=/b,volume-subpath=x",
            "must not set Subpath when using anonymous volumes",
        ),
        (
            "src=ab,dst=/b,volume-subpath=../x",
            "subpath must be a relative path within the volume",
        ),
        (
            "src=ab,dst=/b,volume-subpath=/x",
            "subpath must be a relative path within the volume",
        ),
        (
            "src=a/b,dst=/b",
            "includes invalid characters for a local volume name",
        ),
        ("a\"=b", "bare \" in non-quoted field"),
    ] {
        let why = flag_why(text);
        assert!(why.contains(part), "{text}: {why}");
    }
}

#[test]
fn mounts_of_others_give_way_to_what_was_typed_and_that_to_nothing() {
    let other = [
        volume("one:/a:ro").mount(None, false),
        volume("/host:/b").mount(None, false),
        volume("/c").mount(None, false),
    ];
    let from: VolumesFrom = "box".parse().unwrap();
    let mut asked = request(&["two:/b", "/a"], &[]);
    asked.inherited = from.inherit(&other).collect();
    let together = all(&asked, &[], &["/c", "/v"]).unwrap();
    assert_eq!(
        together,
        ["one /a ro", "anonymous /c", "two /b", "anonymous /v"]
    );
    let read_only: VolumesFrom = "box:ro,z".parse().unwrap();
    assert!(
        read_only
            .inherit(&other)
            .all(|mount| mount.read_only && !mount.copy_up)
    );
    for (text, part) in [
        ("", "cannot be an empty string"),
        ("box:rx", "invalid mode: rx"),
        ("box:nocopy", "invalid mode: nocopy"),
        ("box:shared", "invalid mode: shared"),
    ] {
        let error = text.parse::<VolumesFrom>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_mount_comes_behind_what_it_lies_in() {
    let asked = request(
        &["aa:/w/data", "bb:/w", "cc:/w/data/x"],
        &["type=bind,src=/s,dst=/a/b"],
    );
    let together = all(&asked, &["/w/tmp"], &[]).unwrap();
    assert_eq!(
        together,
        [
            "bb /w",
            "aa /w/data",
            "/s /a/b",
            "cc /w/data/x",
            "memory /w/tmp"
        ]
    );
}

#[test]
fn there_is_one_mount_at_one_place() {
    let duplicate = |volumes: &[&str], mounts: &[&str], tmpfs: &[&str]| {
        matches!(
            all(&request(volumes, mounts), tmpfs, &[]),
            Err(MountsError::Duplicate(_))
        )
    };
    assert!(duplicate(&["aa:/x", "bb:/x/"], &[], &[]));
    assert!(duplicate(&["aa:/x"], &["src=bb,dst=/y/../x"], &[]));
    assert!(duplicate(&["aa:/x"], &[], &["/x"]));
    assert!(duplicate(&[], &["type=tmpfs,dst=/x"], &["/x"]));
    // A volume that nobody named gives way, as the image's does.
    assert!(!duplicate(&["aa:/x", "/x", "/x"], &[], &[]));
    let memory = all(&request(&[], &[]), &["/x"], &["/x"]).unwrap();
    assert_eq!(memory, ["memory /x"]);
}

#[test]
fn some_places_are_nobodys() {
    let proc = all(&request(&["aa:/proc/x"], &[]), &[], &[]).unwrap_err();
    assert!(proc.to_string().contains("inside /proc"), "{proc}");
    let image = all(&request(&[], &[]), &[], &["relative"]).unwrap_err();
    assert!(matches!(image, MountsError::Image(..)));
    let option = all(&request(&[], &[]), &["/x:size=1m,nonsense"], &[]).unwrap_err();
    assert_eq!(option.to_string(), "invalid tmpfs option \"nonsense\"");
    let many: Vec<String> = (0..300).map(|n| format!("/m{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        all(&request(&many, &[]), &[], &[]),
        Err(MountsError::TooMany)
    );
}

#[test]
fn names_are_dockers() {
    for name in ["ab", "a.b_c-d", "0a"] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
    for name in ["", "a", ".ab", "a b", "ä1", &"x".repeat(256)] {
        assert!(check_name(name).is_err(), "{name}");
    }
}

#[test]
fn a_flag_is_shown_as_docker_shows_it() {
    let text = serde_json::to_string(&flag("type=bind,src=/a,dst=/b/,ro").spec()).unwrap();
    assert_eq!(
        text,
        r#"{"Type":"bind","Source":"/a","Target":"/b/","ReadOnly":true}"#
    );
    let text = serde_json::to_string(&flag("type=tmpfs,dst=/b,tmpfs-mode=1777").spec()).unwrap();
    assert_eq!(
        text,
        r#"{"Type":"tmpfs","Target":"/b","TmpfsOptions":{"Mode":1023}}"#
    );
}
