//! Values of labels that come from outside: bounded, and drawn as what they are.
//!
//! Two values that differ must not look the same in a terminal or a browser, else a VM passes for
//! another. What is not drawn, or is drawn as something else, becomes U+FFFD:
//!
//! - control characters, and everything with the property `Default_Ignorable_Code_Point`
//!   (UAX #44, DerivedCoreProperties.txt): fillers, joiners, variation selectors, tags, marks that
//!   turn the direction of writing (UTR #36, "Bidirectional Text Spoofing");
//! - spaces other than U+0020, the blank Braille pattern, and each space after the first of a run,
//!   which HTML draws as one;
//! - combining marks that have precomposed letters: `é` has two spellings that are drawn alike
//!   (UAX #15), and a stack of marks draws over the lines around it.
//!
//! Letters of different scripts that look alike (Latin and Cyrillic `a`: UTS #39, "Confusable
//! Detection") pass: which of them a font draws alike is not known here, and both are drawn.

/// Longest label value (bytes).
pub(super) const MAX_LENGTH: usize = 128;

/// A value for a label. `None` when nothing is left.
pub(super) fn clean(text: &str) -> Option<String> {
    let mut before = None;
    let replaced = |c: char| {
        let repeated = c == ' ' && before.replace(c) == Some(' ');
        before = Some(c);
        match repeated || c.is_control() || is_ignorable(c) || is_odd_space(c) || is_mark(c) {
            true => char::REPLACEMENT_CHARACTER,
            false => c,
        }
    };
    let clean: String = text.trim().chars().map(replaced).collect();
    let clean = cut(&clean, MAX_LENGTH);
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// At most this many bytes of the text, cut between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// `Default_Ignorable_Code_Point` of Unicode 16.0.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// White space (UAX #44) that is not U+0020, the interlinear annotation marks, and U+2800.
fn is_odd_space(c: char) -> bool {
    c.is_whitespace() && c != ' ' || matches!(c, '\u{2800}' | '\u{fff9}'..='\u{fffb}')
}

/// The blocks of combining diacritical marks: for Latin, Greek, Cyrillic and symbols. Marks of
/// other scripts are part of how those are written, and stay.
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
