//! One record of comma-separated values, as Go's `encoding/csv` reads it.
//!
//! Not by the crate `csv` (1.3), which takes a quote within a plain field for what it is and text behind
//! a closing quote for more of the field, where Go says that something is wrong.

/// The fields of one line.
///
/// # Errors
/// Go's words.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let Some(text) = text.lines().next().filter(|line| !line.is_empty()) else {
        return Err("EOF".to_owned());
    };
    let wrong = |at: usize, why: &str| format!("parse error on line 1, column {at}: {why}");
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let column = text.len() - rest.len() + 1;
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = match rest.split_once(',') {
                Some((field, after)) => (field, Some(after)),
                None => (rest, None),
            };
            if let Some(quote) = field.find('"') {
                return Err(wrong(column + quote, "bare \" in non-quoted field"));
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut inner = quoted;
        loop {
            let Some((part, after)) = inner.split_once('"') else {
                let end = text.len() + 1;
                return Err(wrong(end, "extraneous or missing \" in quoted-field"));
            };
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    inner = more;
                }
                None => {
                    inner = after;
                    break;
                }
            }
        }
        fields.push(field);
        match (inner.is_empty(), inner.strip_prefix(',')) {
            (true, _) => return Ok(fields),
            (_, Some(after)) => rest = after,
            _ => {
                let at = text.len() - inner.len();
                return Err(wrong(at, "extraneous or missing \" in quoted-field"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn quotes_keep_commas() {
        for (text, wanted) in [
            ("a=1,b=2", vec!["a=1", "b=2"]),
            ("a=1,,", vec!["a=1", "", ""]),
            ("\"src=/a,b\",dst=/c", vec!["src=/a,b", "dst=/c"]),
            ("\"a=\"\"x\"\"\"", vec!["a=\"x\""]),
        ] {
            assert_eq!(fields(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_go_does_not_take_is_not_taken() {
        for (text, why) in [
            ("", "EOF"),
            (
                "a\"b",
                "parse error on line 1, column 2: bare \" in non-quoted field",
            ),
            ("\"a", "extraneous or missing \" in quoted-field"),
            ("\"a\"b", "extraneous or missing \" in quoted-field"),
        ] {
            let error = fields(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
