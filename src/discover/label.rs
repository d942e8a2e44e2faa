//! Label values from outside: bounded, and displayed as what they are.
//!
//! Different values must look different in a terminal or a browser, so that no VM can pass for
//! another. Characters that are not displayed, or look like others, become U+FFFD:
//!
//! - control characters, and all characters with the property `Default_Ignorable_Code_Point` (UAX
//!   #44, DerivedCoreProperties.txt): fillers, joiners, variation selectors, tags, direction marks
//!   (UTR #36, "Bidirectional Text Spoofing");
//! - spaces other than U+0020, the blank Braille pattern, and each space after the first of a run,
//!   because HTML displays a run as one space;
//! - combining marks that have precomposed letters: `é` has two spellings that look alike (UAX
//!   #15), and a stack of marks covers the lines around it.
//!
//! Look-alike letters of different scripts (Latin and Cyrillic `a`: UTS #39, "Confusable
//! Detection") pass: which of them look alike depends on the font, and all of them are visible.

use crate::host::text::is_default_ignorable;

/// Longest label value (bytes).
pub(super) const MAX_LENGTH: usize = 128;

/// Cleans a label value. `None` if nothing is left.
pub(super) fn clean(text: &str) -> Option<String> {
    let mut before = None;
    let replaced = |c: char| {
        let repeated = c == ' ' && before.replace(c) == Some(' ');
        before = Some(c);
        if repeated || c.is_control() || is_default_ignorable(c) || is_odd_space(c) || is_mark(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    let clean: String = text.trim().chars().map(replaced).collect();
    let clean = cut(&clean, MAX_LENGTH);
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// The first `max` bytes of the text at most, cut between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// White space (UAX #44) other than U+0020, the interlinear annotation marks, and U+2800.
fn is_odd_space(c: char) -> bool {
    c.is_whitespace() && c != ' ' || matches!(c, '\u{2800}' | '\u{fff9}'..='\u{fffb}')
}

/// The blocks of combining diacritical marks for Latin, Greek, Cyrillic and symbols. Marks of other
/// scripts are part of their spelling and are kept.
fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_trimmed_and_cut_between_characters() {
        assert_eq!(clean(" web\n1 ").as_deref(), Some("web\u{fffd}1"));
        assert_eq!(clean(" \n"), None);
        assert_eq!(clean(&"é".repeat(100)).unwrap().len(), 128);
        assert_eq!(clean("my web 1").as_deref(), Some("my web 1"));
    }

    #[test]
    fn what_is_not_drawn_is_made_visible() {
        let unseen = [
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{115f}",
            "\u{1160}",
            "\u{17b4}",
            "\u{180e}",
            "\u{200b}",
            "\u{202e}",
            "\u{2028}",
            "\u{2060}",
            "\u{2065}",
            "\u{206f}",
            "\u{3164}",
            "\u{fe00}",
            "\u{fe0f}",
            "\u{feff}",
            "\u{ffa0}",
            "\u{fff3}",
            "\u{1bca0}",
            "\u{1d173}",
            "\u{e0001}",
            "\u{e0061}",
            "\u{e01ef}",
            "\u{a0}",
            "\u{1680}",
            "\u{2003}",
            "\u{202f}",
            "\u{205f}",
            "\u{3000}",
            "\u{2800}",
            "\u{fff9}",
            "\u{85}",
            "\u{301}",
            "\u{36f}",
        ];
        for text in unseen {
            let name = clean(&format!("d{text}b"));
            assert_eq!(name.as_deref(), Some("d\u{fffd}b"), "{text:?}");
        }
    }

    #[test]
    fn a_run_of_spaces_does_not_look_like_one() {
        assert_eq!(clean("a b").as_deref(), Some("a b"));
        assert_eq!(clean("a  b c").as_deref(), Some("a \u{fffd}b c"));
        assert_ne!(clean("a  b"), clean("a   b"));
    }

    #[test]
    fn letters_of_every_script_stay() {
        for name in ["база", "データ", "वेब", "ทดสอบ", "über-é", "قاعدة", "🦀"]
        {
            assert_eq!(clean(name).as_deref(), Some(name));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_bounded_and_cleaning_twice_changes_nothing(text in "\\PC{0,200}") {
            if let Some(value) = clean(&text) {
                prop_assert!(value.len() <= MAX_LENGTH && !value.chars().any(char::is_control));
                prop_assert_eq!(clean(&value), clean(value.trim()));
            }
        }
    }
}
