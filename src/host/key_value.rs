//! Files of `key value` lines: `cpu.stat`, `memory.stat`, `numastat`.

use super::number::decimal;

/// The values of `keys`, in their order, in one pass over the text. `None` if a key is missing or
/// its value is not a decimal number; of a repeated key the first number counts.
pub(super) fn values<const N: usize>(text: &str, keys: [&str; N]) -> Option<[u64; N]> {
    let mut found = [None; N];
    for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(n) = keys.iter().position(|wanted| *wanted == key) {
            found[n] = found[n].or_else(|| decimal(value));
        }
    }
    let all = found.iter().all(Option::is_some);
    all.then(|| found.map(Option::unwrap_or_default))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_come_in_the_order_of_the_keys() {
        let text = "b 2\nab 9\na 1\nb 3\nc\nd -4\ne 5 \n";
        assert_eq!(values(text, ["a", "b"]), Some([1, 2]));
        assert_eq!(values(text, []), Some([]));
        for missing in ["c", "d", "e", "f", ""] {
            assert_eq!(values(text, ["a", missing]), None, "{missing}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(a|b| |\n|[0-9]{1,21}|\\PC){0,30}") {
            let _ = values(&text, ["a", "b"]);
        }
    }
}
