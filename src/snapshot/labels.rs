//! Label sets, rendered once.

use std::borrow::Cow;
use std::sync::OnceLock;

/// A label set: its pairs for structured outputs and the status page, and the same rendered
/// for the text formats.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    pairs: Box<[Pair]>,
    text: Box<str>,
    kept: OnceLock<Box<[u8]>>,
}

/// A label's name and its value as it is.
pub type Pair = (&'static str, Cow<'static, str>);

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl Eq for Labels {}

impl Labels {
    /// Renders a label set. Values are data from outside and are escaped here, nowhere else.
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

    /// `a="x",b="y"`, without braces, values escaped; empty for no labels. The escapes are those
    /// of OpenMetrics and of Prometheus text alike.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The pairs, values as they are.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// The labels in the form of one more output, made when it is first asked for and kept as
    /// long as they are: a host that does not push has no memory for it. There is one such form.
    pub fn kept(&self, render: impl FnOnce(&[Pair]) -> Box<[u8]>) -> &[u8] {
        self.kept.get_or_init(|| render(&self.pairs))
    }

    /// The value of one label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.as_ref())
    }
}

/// Escapes backslash, double quote and line feed, as both text formats ask.
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
