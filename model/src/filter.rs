//! `--filter KEY=VALUE`, with the meaning that Docker gives it (moby's `api/types/filters`).
//!
//! Values of one key are alternatives, different keys restrict each other; `label` alone needs all
//! of its values.

mod glob;

pub use glob::path_match;

use crate::time::TimeError;
use regex_lite::Regex;
use std::collections::BTreeMap;

/// Why a filter was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// There is no `=`.
    #[error("invalid filter {0:?}: expected KEY=VALUE")]
    NoValue(String),
    /// The command has no filter of this name.
    #[error("invalid filter {key:?}: filters are {}", .known.join(", "))]
    UnknownKey {
        /// As typed.
        key: String,
        /// What there is.
        known: &'static [&'static str],
    },
    /// The value means nothing for this key.
    #[error("invalid filter {key}={value}: {why}")]
    Value {
        /// The key.
        key: String,
        /// As typed.
        value: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
}

/// Filters as typed, checked against the keys of one command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    values: BTreeMap<String, Vec<String>>,
}

impl Filters {
    /// Reads `KEY=VALUE` texts. `label!=VALUE` has the key `label!`, as in Docker.
    ///
    /// # Errors
    /// A text without `=`, or a key that is not in `known`.
    pub fn parse<S: AsRef<str>>(
        texts: &[S],
        known: &'static [&'static str],
    ) -> Result<Self, FilterError> {
        let mut filters = Self::default();
        // As Docker: an empty one is none.
        for text in texts
            .iter()
            .map(AsRef::as_ref)
            .filter(|text| !text.is_empty())
        {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| FilterError::NoValue(text.to_owned()))?;
            // Docker lowers the key and drops spaces around both.
            filters.add(key.trim().to_lowercase(), value.trim().to_owned(), known)?;
        }
        Ok(filters)
    }

    fn add(
        &mut self,
        key: String,
        value: String,
        known: &'static [&'static str],
    ) -> Result<(), FilterError> {
        if !known.contains(&key.as_str()) {
            return Err(FilterError::UnknownKey { key, known });
        }
        let values = self.values.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values of a key, in the order in which they were typed.
    #[must_use]
    pub fn get(&self, key: &str) -> &[String] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether the key was given.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// No value, or one that is `have`.
    #[must_use]
    pub fn exact(&self, key: &str, have: &str) -> bool {
        self.any(key, |value| value == have)
    }

    /// No value, or one that `have` begins with.
    #[must_use]
    pub fn prefix(&self, key: &str, have: &str) -> bool {
        self.any(key, |value| have.starts_with(value))
    }

    /// No value, or one that fits.
    pub fn any(&self, key: &str, fits: impl FnMut(&str) -> bool) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().map(String::as_str).any(fits)
    }

    /// No value, or one that is `have` or a regular expression that matches anywhere in it.
    /// What is no regular expression matches only itself, as in Docker.
    #[must_use]
    pub fn matches(&self, key: &str, have: &str) -> bool {
        self.any(key, |value| {
            value == have || Regex::new(value).is_ok_and(|regex| regex.is_match(have))
        })
    }

    /// Every value, `NAME` or `NAME=VALUE`, is among `have`.
    pub fn labels<'a>(&self, key: &str, have: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.get(key).iter().all(|wanted| has_label(wanted, &have))
    }

    /// None of the values, `NAME` or `NAME=VALUE`, is among `have`: Docker's `label!=`.
    pub fn not_labels<'a>(&self, key: &str, have: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.get(key).iter().any(|wanted| has_label(wanted, &have))
    }

    /// What `until` says, in nanoseconds since 1970: the earliest of several.
    ///
    /// # Errors
    /// A value is no time.
    pub fn until(&self) -> Result<Option<i64>, TimeError> {
        let times = self
            .get("until")
            .iter()
            .map(|text| crate::time::parse(text));
        Ok(times.collect::<Result<Vec<_>, _>>()?.into_iter().min())
    }

    /// A key's value as a Boolean in one of Go's spellings; the last one counts.
    ///
    /// # Errors
    /// [`FilterError::Value`].
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, FilterError> {
        let Some(value) = self.get(key).last() else {
            return Ok(None);
        };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(Some(false)),
            _ => Err(FilterError::Value {
                key: key.to_owned(),
                value: value.clone(),
                why: "expected true or false".to_owned(),
            }),
        }
    }
}

fn has_label<'a>(wanted: &str, have: &impl Fn(&str) -> Option<&'a str>) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => have(name) == Some(value),
        None => have(wanted).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[&str] = &["name", "label", "label!", "id", "dangling"];

    fn filters(texts: &[&str]) -> Filters {
        Filters::parse(texts, KEYS).unwrap()
    }

    #[test]
    fn names_are_regular_expressions_and_labels_add_up() {
        let f = filters(&["name=^web", "name=db$", "label=a=1", "label=b"]);
        assert!(f.matches("name", "web-1") && f.matches("name", "the-db"));
        assert!(!f.matches("name", "a-web-1"));
        let both = |name: &str| match name {
            "a" => Some("1"),
            "b" => Some(""),
            _ => None,
        };
        let one = |name: &str| (name == "a").then_some("1");
        assert!(f.labels("label", both) && !f.labels("label", one));
        assert!(filters(&["label!=c"]).not_labels("label!", both));
        assert!(!filters(&["label!=a=1"]).not_labels("label!", both));
    }

    #[test]
    fn no_filter_fits_all_and_bad_ones_are_refused() {
        let none = filters(&[]);
        assert!(none.exact("id", "x") && none.prefix("id", "x") && none.matches("name", "x"));
        assert!(none.labels("label", |_| None) && none.boolean("dangling").unwrap().is_none());
        assert!(matches!(
            Filters::parse(&["name"], KEYS),
            Err(FilterError::NoValue(_))
        ));
        let unknown = Filters::parse(&["nam=x"], KEYS).unwrap_err();
        assert!(unknown.to_string().contains("filters are name, label"));
        assert!(filters(&["dangling=maybe"]).boolean("dangling").is_err());
        // No regular expression: nothing but itself.
        assert!(filters(&["name=a("]).matches("name", "a("));
        assert!(!filters(&["name=a("]).matches("name", "a"));
    }
}
