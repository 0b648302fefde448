//! Header values that are lists with quoted strings.

/// The parts of `text` between separators outside quoted strings, without the space around them.
///
/// A quote that never closes is an ordinary character: what follows it is still split, so that it
/// hides nothing from a reader that knows no quoted strings.
pub(super) fn split_outside_quotes(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    let mut quotes = true;
    std::iter::from_fn(move || {
        let text = rest?;
        let end = part_end(text, separator, &mut quotes);
        rest = text.get(end + 1..);
        text.get(..end).map(<[u8]>::trim_ascii)
    })
}

/// Where the first part ends. `quotes` becomes false at a quote that never closes: looking for the
/// end of each later one would take quadratic time.
fn part_end(text: &[u8], separator: u8, quotes: &mut bool) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at).filter(|byte| **byte != separator) {
        let mut step = 1;
        if *byte == b'"' && *quotes {
            match text.get(at..).and_then(quoted_length) {
                Some(length) => step = length,
                None => *quotes = false,
            }
        }
        at += step;
    }
    at
}

/// The length of the quoted string that `text` begins with, both quotes included.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Vec<&str> {
        split_outside_quotes(text.as_bytes(), b',')
            .map(|part| std::str::from_utf8(part).unwrap())
            .collect()
    }

    #[test]
    fn separators_inside_quoted_strings_do_not_split() {
        assert_eq!(parts("a, b=\"c, d\" ,e"), ["a", "b=\"c, d\"", "e"]);
        assert_eq!(parts(r#"a="\", b", c"#), [r#"a="\", b""#, "c"]);
        assert_eq!(parts(",a,"), ["", "a", ""]);
        assert_eq!(parts(""), [""]);
    }

    #[test]
    fn a_quote_that_never_closes_hides_nothing() {
        assert_eq!(parts("a=\"b, c"), ["a=\"b", "c"]);
        assert_eq!(parts(r#"a=", \", c"#), ["a=\"", "\\\"", "c"]);
    }

    #[test]
    fn quotes_that_never_close_take_linear_time() {
        let text = "\"".to_owned() + &"\\\"".repeat(1 << 20);
        assert_eq!(parts(&text).len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_but_separators_and_space_is_left_out(text in "[a,\" \\\\]{0,40}") {
            let kept: String = parts(&text).concat().replace([',', ' '], "");
            prop_assert_eq!(kept, text.replace([',', ' '], ""));
        }
    }
}
