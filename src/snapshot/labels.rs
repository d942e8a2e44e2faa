//! Label sets, rendered once.

use std::borrow::Cow;
use std::sync::OnceLock;

/// A label set: pairs for structured outputs and the status page, and rendered text for the text
/// formats.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    pairs: Box<[Pair]>,
    text: Box<str>,
    kept: OnceLock<Box<[u8]>>,
}

/// Name and unescaped value of a label.
pub type Pair = (&'static str, Cow<'static, str>);

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl Eq for Labels {}

impl Labels {
    /// Renders a label set. Values come from outside and are escaped only here.
    pub fn new(pairs: impl IntoIterator<Item = Pair>) -> Self {
        let pairs: Box<[_]> = pairs.into_iter().collect();
        let mut text = String::new();
        for (name, value) in &pairs {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            escape_into(&mut text, value);
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
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// The labels as another output encodes them: rendered on first use and kept as long as the
    /// label set, so a host that never pushes uses no memory for it. One encoding only.
    pub fn kept(&self, render: impl FnOnce(&[Pair]) -> Box<[u8]>) -> &[u8] {
        self.kept.get_or_init(|| render(&self.pairs))
    }

    /// Value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.as_ref())
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
        let labels = Labels::new([("vm", "a\"b\\c\nd".into()), ("vcpu", "0".into())]);
        assert_eq!(labels.text(), r#"vm="a\"b\\c\nd",vcpu="0""#);
        assert_eq!(labels.get("vm"), Some("a\"b\\c\nd"));
    }

    #[test]
    fn no_labels_are_no_text() {
        assert_eq!(Labels::default().text(), "");
    }
}
