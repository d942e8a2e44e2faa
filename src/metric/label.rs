//! Labels: names with numbers or text.

use std::borrow::Cow;
use std::fmt;

/// Name and value of a label.
pub type Label = (&'static str, LabelValue);

/// Value of a label. A number stays one until an output writes it, so no stage reads text back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LabelValue {
    /// A number: a CPU, a core, a node, an index.
    Number(i64),
    /// Any text, not escaped.
    Text(Cow<'static, str>),
}

impl LabelValue {
    /// The number; `None` for text.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(_) => None,
        }
    }

    /// The text; `None` for a number.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Number(_) => None,
            Self::Text(text) => Some(text),
        }
    }
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<i32> for LabelValue {
    fn from(n: i32) -> Self {
        Self::Number(n.into())
    }
}

impl From<u32> for LabelValue {
    fn from(n: u32) -> Self {
        Self::Number(n.into())
    }
}

impl From<&'static str> for LabelValue {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Cow<'static, str>> for LabelValue {
    fn from(text: Cow<'static, str>) -> Self {
        Self::Text(text)
    }
}

impl From<String> for LabelValue {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
