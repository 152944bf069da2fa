//! `registries.conf`, version 2 (containers-registries.conf(5)): where a registry's images really
//! are, its mirrors, which are blocked or insecure.

use super::error::SettingsError;
use super::file::{content, list, read_text};
use super::places::Places;
use super::short::ShortNames;
use crate::names::{DOCKER_HUB, ImageName, registry_is_valid};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The host that serves Docker Hub.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    registry: Vec<Table>,
    aliases: BTreeMap<String, String>,
    /// Version 1 has this table.
    registries: Option<toml::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: Serves,
}

/// What a mirror is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Serves {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// A place that may have an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The registry's name: `docker.io`, `localhost:5000`.
    pub registry: String,
    /// The repository there.
    pub repository: String,
    /// Its certificate may be anybody's, and it may have none.
    pub is_insecure: bool,
    /// Somebody else's copy.
    pub is_mirror: bool,
}

impl Endpoint {
    /// Host and port that are connected to.
    pub(crate) fn host(&self) -> &str {
        if self.registry == DOCKER_HUB {
            DOCKER_HUB_HOST
        } else {
            &self.registry
        }
    }

    /// The registry itself rather than a repository of it: for a login.
    pub(crate) fn of_registry(registry: &str, settings: &Registries) -> Self {
        Self {
            registry: registry.to_owned(),
            repository: String::new(),
            is_insecure: settings.table(registry).is_some_and(|table| table.insecure),
            is_mirror: false,
        }
    }
}

/// The file says that nobody may use it.
#[derive(Debug)]
pub(crate) struct Blocked;

/// All files together.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    tables: Vec<Table>,
    pub(super) short_names: ShortNames,
}

impl Registries {
    /// Reads the main file and what stands in the directories beside it; later files win.
    pub(super) fn load(places: &Places) -> Result<Self, SettingsError> {
        let mut own = Self::default();
        for path in files(places)? {
            if let Some(text) = read_text(&path)? {
                own.add(&path, &text)?;
            }
        }
        Ok(own)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), SettingsError> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            content(path, format!("line {line}: {}", error.message()))
        })?;
        if document.registries.is_some() {
            let why = "it is of version 1, which is not supported: use [[registry]] tables";
            return Err(content(path, why.to_owned()));
        }
        if let Some(search) = document.unqualified_search_registries {
            if let Some(bad) = search.iter().find(|name| !location_is_valid(name)) {
                return Err(content(
                    path,
                    format!("{bad:?} is not the name of a registry"),
                ));
            }
            self.short_names.search = search;
        }
        self.short_names.aliases.extend(document.aliases);
        for mut table in document.registry {
            check(path, &mut table)?;
            self.tables.retain(|other| other.prefix != table.prefix);
            self.tables.push(table);
        }
        Ok(())
    }

    /// The table with the longest prefix that fits.
    fn table(&self, name: &str) -> Option<&Table> {
        self.tables
            .iter()
            .filter(|table| prefix_bytes(&table.prefix, name).is_some())
            .max_by_key(|table| table.prefix.len())
    }

    /// Where an image may be had from, mirrors first.
    pub(crate) fn sources(&self, name: &ImageName) -> Result<Vec<Endpoint>, Blocked> {
        let own = self.target(name)?;
        let Some(table) = self.table(&name.to_string()) else {
            return Ok(vec![own]);
        };
        let by_digest = name.digest().is_some();
        let mirrors = table.mirror.iter().filter(|mirror| {
            let serves = match mirror.pull_from_mirror {
                Serves::All if table.mirror_by_digest_only => Serves::DigestOnly,
                serves => serves,
            };
            match serves {
                Serves::All => true,
                Serves::DigestOnly => by_digest,
                Serves::TagOnly => !by_digest,
            }
        });
        let mut places: Vec<Endpoint> = mirrors
            .filter_map(|mirror| rewrite(table, &mirror.location, name, mirror.insecure, true))
            .collect();
        places.push(own);
        Ok(places)
    }

    /// Where an image is pushed to: the registry itself.
    pub(crate) fn target(&self, name: &ImageName) -> Result<Endpoint, Blocked> {
        let plain = || Endpoint {
            registry: name.registry().to_owned(),
            repository: name.repository().to_owned(),
            is_insecure: false,
            is_mirror: false,
        };
        match self.table(&name.to_string()) {
            None => Ok(plain()),
            Some(table) if table.blocked => Err(Blocked),
            Some(table) if table.location.is_empty() => Ok(Endpoint {
                is_insecure: table.insecure,
                ..plain()
            }),
            Some(table) => {
                Ok(rewrite(table, &table.location, name, table.insecure, false)
                    .unwrap_or_else(plain))
            }
        }
    }
}

/// The files in the order they are read. A user's main file is read instead of the host's.
fn files(places: &Places) -> Result<Vec<PathBuf>, SettingsError> {
    let system = places.etc.join("containers");
    let user = places.user_containers();
    let mut files = vec![];
    if let Some(cache) = places.user_cache() {
        files.push(cache.join("containers/short-name-aliases.conf"));
    }
    let own = user.as_ref().map(|user| user.join("registries.conf"));
    files.push(match (places.variable("CONTAINERS_REGISTRIES_CONF"), own) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(own)) if own.exists() => own,
        _ if system.join("registries.conf").exists() => system.join("registries.conf"),
        _ => places.share.join("containers/registries.conf"),
    });
    for directory in [Some(system), user].into_iter().flatten() {
        files.extend(list(&directory.join("registries.conf.d"), "conf")?);
    }
    Ok(files)
}

/// Makes a table whole, or says what is wrong with it.
fn check(path: &Path, table: &mut Table) -> Result<(), SettingsError> {
    let bad = |what: &str| {
        Err(content(
            path,
            format!("{what:?} is not the name of a registry"),
        ))
    };
    let is_wildcard = table.prefix.starts_with("*.");
    if table.prefix.is_empty() {
        table.prefix.clone_from(&table.location);
    }
    let plain = table.prefix.strip_prefix("*.").unwrap_or(&table.prefix);
    if !location_is_valid(plain) {
        return bad(&table.prefix);
    }
    if table.location.is_empty() && !is_wildcard {
        table.location.clone_from(&table.prefix);
    }
    if !table.location.is_empty() && !location_is_valid(&table.location) {
        return bad(&table.location);
    }
    match table
        .mirror
        .iter()
        .find(|mirror| !location_is_valid(&mirror.location))
    {
        Some(mirror) => bad(&mirror.location),
        None => Ok(()),
    }
}

/// `host[:port][/namespace…]`.
fn location_is_valid(location: &str) -> bool {
    let (host, path) = location.split_once('/').unwrap_or((location, "x"));
    registry_is_valid(host) && !path.is_empty() && !path.contains("//") && !path.ends_with('/')
}

/// How many bytes of `name` a prefix covers, if it fits: it ends where a part of the name ends.
fn prefix_bytes(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host_end = name.find('/').unwrap_or(name.len());
        let covered = name[..host_end].split(':').next()?.len();
        // `*.a.io` is for hosts alone; with a port or path it compares all of it.
        if domain.contains([':', '/']) {
            let start = name.find(domain).filter(|start| *start < host_end)?;
            let end = start + domain.len();
            return name[end..].starts_with(['/', ':', '@']).then_some(end);
        }
        return name[..covered].ends_with(domain).then_some(covered);
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
}

/// The repository at `location` that stands for `name`'s.
fn rewrite(
    table: &Table,
    location: &str,
    name: &ImageName,
    insecure: bool,
    is_mirror: bool,
) -> Option<Endpoint> {
    let repository = name.name();
    // A prefix that names a tag covers the whole repository.
    let covered = prefix_bytes(&table.prefix, &name.to_string())?.min(repository.len());
    let whole = format!("{location}{}", &repository[covered..]);
    let (registry, path) = whole.split_once('/')?;
    let checked = ImageName::new(registry, path, None, None).ok()?;
    Some(Endpoint {
        registry: checked.registry().to_owned(),
        repository: checked.repository().to_owned(),
        is_insecure: insecure,
        is_mirror,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Registries {
        let mut own = Registries::default();
        own.add(Path::new("r.conf"), text).unwrap();
        own
    }

    fn error(text: &str) -> String {
        let mut own = Registries::default();
        own.add(Path::new("r.conf"), text).unwrap_err().to_string()
    }

    fn sources(registries: &Registries, name: &str) -> Vec<String> {
        let places = registries.sources(&name.parse().unwrap()).unwrap();
        places
            .iter()
            .map(|place| {
                let insecure = if place.is_insecure { "!" } else { "" };
                format!("{}/{}{insecure}", place.host(), place.repository)
            })
            .collect()
    }

    #[test]
    fn without_a_file_a_registry_is_itself() {
        let none = Registries::default();
        assert_eq!(
            sources(&none, "debian"),
            ["registry-1.docker.io/library/debian"]
        );
        assert_eq!(sources(&none, "localhost:5000/x"), ["localhost:5000/x"]);
        assert_eq!(sources(&none, "q.io/x"), ["q.io/x"]);
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_wins() {
        let own = of(r#"
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.io:5000/hub"
            [[registry.mirror]]
            location = "by.io"
            pull-from-mirror = "digest-only"
            insecure = true

            [[registry]]
            prefix = "docker.io/secret"
            blocked = true

            [[registry]]
            prefix = "old.io/team"
            location = "new.io/moved/team"
            insecure = true
            unknown-key = 1
        "#);
        assert_eq!(
            sources(&own, "debian"),
            [
                "mirror.io:5000/hub/library/debian",
                "registry-1.docker.io/library/debian"
            ]
        );
        let pinned = format!("debian@{}", crate::Digest::of(b""));
        assert_eq!(
            sources(&own, &pinned)[1],
            "by.io/library/debian!".to_owned()
        );
        assert!(own.sources(&"secret/x".parse().unwrap()).is_err());
        assert!(own.target(&"secret/x".parse().unwrap()).is_err());
        assert_eq!(sources(&own, "secrets/x").len(), 2);
        assert_eq!(sources(&own, "old.io/team/x"), ["new.io/moved/team/x!"]);
        assert_eq!(sources(&own, "old.io/teams/x"), ["old.io/teams/x"]);
    }

    #[test]
    fn a_wildcard_is_for_every_host_of_a_domain() {
        let own = of(r#"
            [[registry]]
            prefix = "*.corp.io"
            insecure = true
            [[registry.mirror]]
            location = "cache.io/corp"
        "#);
        assert_eq!(
            sources(&own, "a.corp.io/x"),
            ["cache.io/corp/x", "a.corp.io/x!"]
        );
        assert_eq!(sources(&own, "corp.io/x"), ["corp.io/x"]);
        assert_eq!(
            sources(&own, "a.corp.io.evil.io/x"),
            ["a.corp.io.evil.io/x"]
        );
    }

    #[test]
    fn mirrors_may_be_for_digests_alone() {
        let own = of(r#"
            [[registry]]
            location = "q.io"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "m.io"
        "#);
        assert_eq!(sources(&own, "q.io/x:1"), ["q.io/x"]);
        let pinned = format!("q.io/x@{}", crate::Digest::of(b""));
        assert_eq!(sources(&own, &pinned), ["m.io/x", "q.io/x"]);
    }

    #[test]
    fn a_damaged_file_is_no_danger() {
        let whole = "unqualified-search-registries = ['q.io']\n[[registry]]\nprefix = '*.a.io:1/x'\n\
                     location = 'b.io/y'\n[[registry.mirror]]\nlocation = 'c.io'\n[aliases]\nd = 'e/f'\n";
        let names = ["z.a.io:1/x/y:1", "a.io/x", "d", "q.io/a/b/c", "b.io/y"];
        let names = names.map(|name| name.parse::<ImageName>().unwrap());
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..20_000 {
            let mut bytes = whole.as_bytes().to_vec();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(0..bytes.len());
                match random.u8(0..3) {
                    0 => bytes[at] = *random.choice(b"*./:'[]=\n-@").unwrap(),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, random.u8(..)),
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            let mut own = Registries::default();
            if own.add(Path::new("r.conf"), &text).is_ok() {
                for name in &names {
                    let _ = own.sources(name);
                }
                let _ = own.short_names.candidates("d:1");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert_eq!(
            error("a = 1\nunqualified-search-registries = 5\n"),
            "r.conf: line 2: invalid type: integer `5`, expected a sequence"
        );
        assert!(error("[registries.search]\nregistries = ['docker.io']").contains("version 1"));
        for text in [
            "[[registry]]\n",
            "[[registry]]\nlocation = 'https://q.io'",
            "[[registry]]\nlocation = 'q.io/'",
            "[[registry]]\nlocation = 'q.io'\n[[registry.mirror]]\nlocation = ''",
            "unqualified-search-registries = ['a b']",
        ] {
            assert!(error(text).contains("not the name of a registry"), "{text}");
        }
    }
}
