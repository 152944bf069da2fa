//! Short names: `debian` and what it may mean (containers-registries.conf(5), "SHORT-NAME
//! ALIASING"). Where nothing is said it is Docker Hub's.

use crate::names::{DOCKER_HUB, ImageName, NameError, split_registry};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct ShortNames {
    /// Registries to look in, in order.
    pub(super) search: Vec<String>,
    /// Short name to repository. An empty one was taken back by a later file.
    pub(super) aliases: BTreeMap<String, String>,
}

impl ShortNames {
    pub(super) fn candidates(&self, typed: &str) -> Result<Vec<ImageName>, NameError> {
        let (name, rest) = split_version(typed);
        if split_registry(name).is_some() {
            return Ok(vec![typed.parse()?]);
        }
        if let Some(target) = self.aliases.get(name).filter(|target| !target.is_empty()) {
            return Ok(vec![format!("{target}{rest}").parse()?]);
        }
        if self.search.is_empty() {
            return Ok(vec![format!("{DOCKER_HUB}/{typed}").parse()?]);
        }
        self.search
            .iter()
            .map(|registry| format!("{registry}/{typed}").parse())
            .collect()
    }
}

/// The name, and the tag and digest with what separates them.
fn split_version(typed: &str) -> (&str, &str) {
    let end = typed.find('@').unwrap_or(typed.len());
    let last = typed[..end].rfind('/').map_or(0, |slash| slash + 1);
    let end = typed[last..end].find(':').map_or(end, |colon| last + colon);
    typed.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(names: &ShortNames, typed: &str) -> Vec<String> {
        let names = names.candidates(typed).unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_a_list_a_short_name_is_docker_hubs() {
        let none = ShortNames::default();
        assert_eq!(meant(&none, "debian"), ["docker.io/library/debian:latest"]);
        assert_eq!(meant(&none, "a/b:1"), ["docker.io/a/b:1"]);
        assert_eq!(meant(&none, "localhost/b"), ["localhost/b:latest"]);
        assert!(none.candidates("Debian").is_err());
        assert!(none.candidates("").is_err());
    }

    #[test]
    fn aliases_come_before_the_list() {
        let names = ShortNames {
            search: vec!["q.io".to_owned(), "docker.io".to_owned()],
            aliases: [
                ("debian".to_owned(), "r.io/os/debian".to_owned()),
                ("gone".to_owned(), String::new()),
            ]
            .into(),
        };
        assert_eq!(meant(&names, "debian:12"), ["r.io/os/debian:12"]);
        let digest = crate::Digest::of(b"");
        assert_eq!(
            meant(&names, &format!("debian@{digest}")),
            [format!("r.io/os/debian@{digest}")]
        );
        assert_eq!(
            meant(&names, "gone"),
            ["q.io/gone:latest", "docker.io/library/gone:latest"]
        );
        assert_eq!(meant(&names, "docker.io/x/y"), ["docker.io/x/y:latest"]);
    }
}
