//! Go's `path.Match`, which Docker's `reference` filter is.
//!
//! Not `globset` (0.4.22), `glob-match`, `fast-glob` or `wildmatch`: to those `{a,b}` is a choice
//! or `[…]` no class, `**` crosses slashes, `?` is a byte, and `[-]` and `[]a]` are patterns. The
//! test below has these cases.

/// A part of a pattern.
enum Token {
    /// `*`: anything but a slash, any number of times.
    Star,
    /// `?`: anything but a slash.
    Any,
    /// `[a-z]`, `[^x]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    Char(char),
}

impl Token {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Star | Self::Any => c != '/',
            Self::Class { negated, ranges } => {
                let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                within != *negated
            }
            Self::Char(own) => *own == c,
        }
    }
}

/// A character of a pattern, which a backslash may stand before.
fn escaped(pattern: &mut impl Iterator<Item = char>) -> Option<char> {
    match pattern.next()? {
        '\\' => pattern.next(),
        c => Some(c),
    }
}

fn class(pattern: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = pattern.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && pattern.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        if matches!(pattern.peek(), None | Some('-' | ']')) {
            return None;
        }
        let low = escaped(pattern)?;
        let high = match pattern.next_if_eq(&'-') {
            Some(_) if matches!(pattern.peek(), None | Some('-' | ']')) => return None,
            Some(_) => escaped(pattern)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut pattern = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = pattern.peek().copied() {
        tokens.push(match c {
            '*' | '?' | '[' => {
                pattern.next();
                match c {
                    '*' => Token::Star,
                    '?' => Token::Any,
                    _ => class(&mut pattern)?,
                }
            }
            _ => Token::Char(escaped(&mut pattern)?),
        });
    }
    Some(tokens)
}

/// Whether a shell's pattern fits the whole text; `None` if it is no pattern.
#[must_use]
pub fn path_match(pattern: &str, text: &str) -> Option<bool> {
    let tokens = tokens(pattern)?;
    // After how many tokens the text that was read so far may end.
    let mut ends = vec![false; tokens.len() + 1];
    ends[0] = true;
    skip_stars(&tokens, &mut ends);
    for c in text.chars() {
        let mut next = vec![false; ends.len()];
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| ends[*at]) {
            if token.fits(c) {
                let stays = matches!(token, Token::Star);
                next[if stays { at } else { at + 1 }] = true;
            }
        }
        skip_stars(&tokens, &mut next);
        ends = next;
    }
    Some(ends[tokens.len()])
}

/// A star may stand for nothing.
fn skip_stars(tokens: &[Token], ends: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if ends[at] && matches!(token, Token::Star) {
            ends[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        // From the tests of Go's path package.
        for (pattern, text, fits) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a?b", "a/b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-x]", "-", Some(true)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[", "a", None),
            ("[^bc", "a", None),
            ("a[", "a", None),
            ("\\", "a", None),
            ("*x", "xxx", Some(true)),
            ("", "", Some(true)),
            // What shells and other matchers give a meaning, Go does not.
            ("{a,b}", "a", Some(false)),
            ("{a,b}", "{a,b}", Some(true)),
            ("**", "a/b", Some(false)),
            ("a/**/b", "a/b", Some(false)),
            ("[!a]", "b", Some(false)),
            ("!a", "b", Some(false)),
            ("a]", "a]", Some(true)),
        ] {
            assert_eq!(path_match(pattern, text), fits, "{pattern} {text}");
        }
    }
}
