//! Container names: checked when typed, made up when not.

use super::units::ValueError;

/// Longest name, in bytes.
const MAX_NAME: usize = 128;

const ADJECTIVES: [&str; 64] = [
    "able", "airy", "amber", "apt", "ample", "balmy", "bold", "brave", "brisk", "calm", "candid",
    "civil", "clear", "crisp", "daring", "deft", "dense", "eager", "early", "even", "fair",
    "fleet", "fond", "frank", "fresh", "gentle", "glad", "grand", "hardy", "hearty", "honest",
    "humble", "jolly", "keen", "kind", "level", "lively", "loyal", "lucid", "mellow", "merry",
    "mild", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "prompt", "proud",
    "quick", "quiet", "ready", "robust", "serene", "sharp", "sober", "stable", "steady", "sturdy",
    "swift", "tidy", "wise",
];

/// People who built ships, charted seas, or reckoned with both.
const SURNAMES: [&str; 64] = [
    "amundsen",
    "anning",
    "archimedes",
    "babbage",
    "baffin",
    "baret",
    "barents",
    "beaufort",
    "bering",
    "bernoulli",
    "blackwell",
    "bougainville",
    "bowditch",
    "brunel",
    "cabot",
    "cook",
    "coriolis",
    "cousteau",
    "dampier",
    "darwin",
    "davis",
    "dias",
    "earle",
    "ekman",
    "erikson",
    "euler",
    "faraday",
    "fitzroy",
    "flinders",
    "franklin",
    "froude",
    "fulton",
    "galle",
    "gama",
    "halley",
    "harrison",
    "heyerdahl",
    "hipparchus",
    "hudson",
    "humboldt",
    "kelvin",
    "magellan",
    "maury",
    "mercator",
    "nansen",
    "napier",
    "noether",
    "ortelius",
    "papin",
    "parsons",
    "piccard",
    "ptolemy",
    "rickover",
    "ross",
    "shackleton",
    "slocum",
    "stevin",
    "sverdrup",
    "tasman",
    "tharp",
    "torricelli",
    "vancouver",
    "watt",
    "zheng",
];

/// Checks a name that somebody typed.
///
/// # Errors
/// Says what a name may be.
pub fn check(name: &str) -> Result<(), ValueError> {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && (2..=MAX_NAME).contains(&name.len()) {
        return Ok(());
    }
    Err(ValueError::new(
        "a name is 2 to 128 letters, digits, '_', '.' and '-', and starts with a letter or digit",
    ))
}

/// A name made of random bytes: `keen_halley`. After a few collisions the caller raises
/// `attempt`, which adds digits.
#[must_use]
pub fn generate(random: [u8; 4], attempt: u32) -> String {
    let [adjective, surname, a, b] = random.map(usize::from);
    let adjective = ADJECTIVES[adjective % ADJECTIVES.len()];
    let surname = SURNAMES[surname % SURNAMES.len()];
    if attempt < 3 {
        format!("{adjective}_{surname}")
    } else {
        format!("{adjective}_{surname}{}", a * 256 + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["ab", "a-b_c.d", "0x", &"x".repeat(128)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "-a",
            ".a",
            "a b",
            "a/b",
            "ä1",
            "a\n",
            &"x".repeat(129),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_names_are_valid() {
        for random in [[0; 4], [255; 4], [63, 64, 1, 2]] {
            for attempt in [0, 9] {
                assert!(check(&generate(random, attempt)).is_ok());
            }
        }
    }
}
