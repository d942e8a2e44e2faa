//! Label sets, rendered once.

use std::fmt::Write as _;
use std::sync::OnceLock;

use crate::metric::{Label, LabelValue};

/// A label set: pairs for structured outputs and the status page, and rendered text for the text
/// formats.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    pairs: Box<[Label]>,
    text: Box<str>,
    kept: OnceLock<Box<[u8]>>,
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl Eq for Labels {}

impl Labels {
    /// Renders a label set. Values come from outside and are escaped only here.
    pub fn new(pairs: impl IntoIterator<Item = Label>) -> Self {
        let pairs: Box<[_]> = pairs.into_iter().collect();
        let mut text = String::new();
        for (name, value) in &pairs {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            match value {
                LabelValue::Text(value) => escape_into(&mut text, value),
                // Writing to a String cannot fail.
                LabelValue::Number(n) => drop(write!(text, "{n}")),
            }
            text.push('"');
        }
        Self {
            pairs,
            text: text.into(),
            kept: OnceLock::new(),
        }
    }

    /// `a="x",b="y"`: no braces, values escaped, empty without labels. OpenMetrics and the
    /// Prometheus text format share these escapes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The pairs, with unescaped values.
    pub fn pairs(&self) -> &[Label] {
        &self.pairs
    }

    /// The labels as another output encodes them: rendered on first use and kept as long as the
    /// label set, so a host that never pushes uses no memory for it. One encoding only.
    pub fn kept(&self, render: impl FnOnce(&[Label]) -> Box<[u8]>) -> &[u8] {
        self.kept.get_or_init(|| render(&self.pairs))
    }

    /// Text of a label; `None` if it is a number.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(name)?.text()
    }

    /// Number of a label, such as a node or an index; `None` if it is text or does not fit.
    pub fn number<N: TryFrom<i64>>(&self, name: &str) -> Option<N> {
        N::try_from(self.value(name)?.number()?).ok()
    }

    fn value(&self, name: &str) -> Option<&LabelValue> {
        let mut pairs = self.pairs.iter();
        pairs.find(|(known, _)| *known == name).map(|(_, v)| v)
    }
}

/// Escapes backslash, double quote and line feed, as both text formats require.
fn escape_into(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_in_text_and_raw_in_pairs() {
        let labels = Labels::new([("vm", "a\"b\\c\nd".into()), ("vcpu", 0u32.into())]);
        assert_eq!(labels.text(), r#"vm="a\"b\\c\nd",vcpu="0""#);
        assert_eq!(labels.get("vm"), Some("a\"b\\c\nd"));
        assert_eq!(
            (labels.number("vcpu"), labels.get("vcpu")),
            (Some(0u32), None)
        );
        assert_eq!((labels.number::<u32>("vm"), labels.get("x")), (None, None));
    }

    #[test]
    fn no_labels_are_no_text() {
        assert_eq!(Labels::default().text(), "");
    }
}
