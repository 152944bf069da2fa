//! Rules for names: the first that matches decides, and what none matches is refused.

use crate::policy::Action;
use std::str::FromStr;

/// One rule: a name, or `*.NAME` for every name below it, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRule {
    /// What it does.
    pub action: Action,
    /// In lower case, without `*.`.
    name: String,
    is_wildcard: bool,
}

/// A pattern that names nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is no host name: letters, digits, '-' and '_' between dots, '*.' before them")]
pub struct NameRuleError(String);

impl NameRule {
    /// Whether a name in lower case matches.
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

impl FromStr for NameRule {
    type Err = NameRuleError;

    fn from_str(text: &str) -> Result<Self, NameRuleError> {
        let (action, pattern) = match text.split_once(':') {
            Some(("allow", rest)) => (Action::Allow, rest),
            Some(("deny", rest)) => (Action::Deny, rest),
            _ => (Action::Allow, text),
        };
        let wildcard = pattern
            .strip_prefix("*.")
            .or((pattern == "*").then_some(""));
        let name = wildcard
            .unwrap_or(pattern)
            .trim_end_matches('.')
            .to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let is_name = name.len() <= 253 && name.split('.').all(is_label);
        if !is_name && pattern != "*" {
            return Err(NameRuleError(text.to_owned()));
        }
        Ok(Self {
            action,
            name,
            is_wildcard: wildcard.is_some(),
        })
    }
}

/// The rules of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameRules(pub Vec<NameRule>);

impl NameRules {
    /// Whether a name in lower case may be asked for.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        let first = self.0.iter().find(|rule| rule.matches(name));
        first.is_some_and(|rule| rule.action == Action::Allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> NameRules {
        NameRules(text.split(' ').map(|rule| rule.parse().unwrap()).collect())
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = rules("deny:secret.example.com *.example.com Example.org.");
        for (name, allowed) in [
            ("www.example.com", true),
            ("a.b.example.com", true),
            ("secret.example.com", false),
            ("example.com", false),
            ("notexample.com", false),
            (".example.com", false),
            ("example.org", true),
            ("www.example.org", false),
            ("example.com.evil.net", false),
            ("", false),
        ] {
            assert_eq!(rules.allows(name), allowed, "{name}");
        }
        assert!(self::rules("deny:x.y *").allows("anything"));
        assert!(!NameRules::default().allows("anything"));
    }

    #[test]
    fn patterns_that_name_nothing_are_refused() {
        for text in [
            "",
            "*.",
            "a..b",
            "a b",
            "*x.y",
            "x.*.y",
            "é.com",
            "deny:",
            &"a".repeat(64),
        ] {
            assert!(text.parse::<NameRule>().is_err(), "{text}");
        }
    }
}
