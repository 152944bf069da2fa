//! Names in rules: `example.com`, `*.example.com` for every name below it, `*` for every name.

use super::RuleError;
use std::str::FromStr;

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Which names a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    /// In lower case, without `*.`; empty for every name.
    name: String,
    is_wildcard: bool,
}

impl NamePattern {
    /// Whether a name in lower case is one of them.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if !self.is_wildcard {
            return name == self.name;
        }
        self.name.is_empty()
            || name
                .strip_suffix(self.name.as_str())
                .is_some_and(|before| before.len() > 1 && before.ends_with('.'))
    }
}

impl FromStr for NamePattern {
    type Err = RuleError;

    /// A name of one label ends in a dot, so that a misspelt `all` is no name.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == "*" {
            return Ok(Self {
                name: String::new(),
                is_wildcard: true,
            });
        }
        let below = text.strip_prefix("*.");
        let name = below.unwrap_or(text);
        let is_name = below.is_some() || name.contains('.');
        let name = normal_name(name)
            .filter(|_| is_name)
            .ok_or_else(|| RuleError::Place(text.to_owned()))?;
        Ok(Self {
            name,
            is_wildcard: below.is_some(),
        })
    }
}

/// A host name as it is compared: in lower case, without a last dot. None for anything else; a name
/// whose last label is a number would be an address to some.
#[must_use]
pub fn normal_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label =
        |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_character);
    let is_name = name.len() <= MAX_NAME && name.split('.').all(is_label);
    let last = name.rsplit('.').next().unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    (is_name && !is_number(last)).then_some(lower)
}

/// Whether some would take a label for a number: decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    let hexadecimal = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_labels() {
        for (pattern, name, matches) in [
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "notexample.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "www.example.com.evil.net", false),
            ("Example.org.", "example.org", true),
            ("example.org", "www.example.org", false),
            ("*.local", "printer.local", true),
            ("printer.", "printer", true),
            ("*", "anything", true),
        ] {
            let parsed: NamePattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "*.",
            ".",
            "a..b",
            "a b.c",
            "*x.y",
            "x.*.y",
            "*.*.y",
            "é.com",
            "host",
            "a.b:c",
            "10.0.0.300",
            "1.2.3",
            "x.0x7f",
            "x.0X",
            "a.b..",
            "@.b",
            "a/b.c",
        ] {
            assert!(text.parse::<NamePattern>().is_err(), "{text}");
        }
        let long = format!("{}.com", "a".repeat(64));
        assert!(long.parse::<NamePattern>().is_err());
        let long = ["a"; 128].join(".");
        assert!(normal_name(&long).is_none());
        assert!(normal_name(&long[..253]).is_some());
    }
}
