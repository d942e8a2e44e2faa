//! The kernel's CPU list format: `0-3,8,10-11` (Documentation/admin-guide/cputopology.rst).

/// Highest accepted CPU number: 8 times the largest `CONFIG_NR_CPUS` (arch/x86/Kconfig).
const MAX_CPU: u32 = 65_535;

/// The numbers of a list, in its order; an empty text is an empty list. `None` if the text is not a
/// list or a number is out of range.
pub(crate) fn parse(text: &str) -> Option<Vec<u32>> {
    let text = text.trim();
    let mut numbers = Vec::new();
    if text.is_empty() {
        return Some(numbers);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || numbers.len() > MAX_CPU as usize {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n| *n <= MAX_CPU)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_and_single_numbers() {
        assert_eq!(parse("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse("\n"), Some(vec![]));
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        for text in ["a", "1-", "3-1", "0-99999999", "1,,2", "-1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_was_written_is_read(numbers in prop::collection::vec(0u32..5000, 1..50)) {
            let text = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            prop_assert_eq!(parse(&text), Some(numbers));
        }
    }
}
