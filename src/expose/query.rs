//! URL queries, `application/x-www-form-urlencoded`.

use percent_encoding::{percent_decode_str, utf8_percent_encode, NON_ALPHANUMERIC};

/// Names and decoded values, in order. A name without `=` has an empty value.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, String)> {
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name, decoded(value))
    })
}

fn decoded(value: &str) -> String {
    let spaced = value.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// A value, encoded for a URL.
pub(super) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_encoding() {
        for value in ["web-1", "a b&c=d#e?f", "é\"'<>\\", "1%2b+"] {
            let query = format!("vm={}&x", encoded(value));
            let seen: Vec<_> = pairs(&query).collect();
            assert_eq!(seen, [("vm", value.to_owned()), ("x", String::new())]);
        }
    }
}
