//! Formats numbers.

use maud::{html, Markup};

pub(super) use crate::diagnosis::percent;

/// A number with two significant digits.
pub(super) fn number(n: f64) -> String {
    match n {
        n if n >= 999.5 => count(n),
        n if n >= 9.95 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

/// An integer with grouped digits.
pub(super) fn count(n: f64) -> String {
    // Saturates; the values are never negative.
    grouped(n.round() as u64)
}

/// Groups digits by thousands.
pub(super) fn grouped(n: impl TryInto<u64>) -> String {
    let digits = n.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push('\u{202f}'); // narrow no-break space
        }
        text.push(digit);
    }
    text
}

/// A quotient with one decimal.
pub(super) fn ratio(n: f64, of: usize) -> Option<String> {
    (of > 0).then(|| format!("{:.1}", n / of as f64))
}

/// "1 core", "2 cores"
pub(super) fn plural(n: usize, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{}\u{a0}{what}{s}", grouped(n))
}

/// A value, or a dash that screen readers read as "unknown".
pub(super) fn or_unknown(value: Option<impl maud::Render>) -> Markup {
    html! {
        @match value {
            Some(value) => (value),
            None => span.muted role="img" aria-label="unknown" { "–" },
        }
    }
}

/// How bad a delay or score is, as a CSS class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Calm,
    Warning,
    Severe,
}

impl Severity {
    /// By score. Delay alerts at 5 % and is critical at 20 %, so from 4 on a score is critical.
    pub(super) fn from_score(score: f64) -> Self {
        match score {
            s if s >= 4.0 => Self::Severe,
            s if s >= 1.0 => Self::Warning,
            _ => Self::Calm,
        }
    }

    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Warning => "degraded",
            Self::Severe => "down",
        }
    }

    /// A mark with the same meaning, for readers who do not see the color.
    pub(super) fn mark(self) -> Option<&'static str> {
        match self {
            Self::Calm => None,
            Self::Warning => Some("!"),
            Self::Severe => Some("!!"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        assert_eq!(grouped(7_u64), "7");
        assert_eq!(grouped(1_234_567_u64), "1\u{202f}234\u{202f}567");
        assert_eq!(percent(0.1234), "12\u{a0}%");
        assert_eq!(percent(0.0123), "1.2\u{a0}%");
        assert_eq!(
            [0.04, 3.17, 31.4, 31400.0].map(number),
            ["0.0", "3.2", "31", "31\u{202f}400"]
        );
        assert_eq!(
            (ratio(3.0, 0), ratio(3.0, 2)),
            (None, Some("1.5".to_owned()))
        );
        assert_eq!(plural(1, "core"), "1\u{a0}core");
    }

    #[test]
    fn severity_has_three_levels() {
        let classes = [0.9, 1.0, 4.0].map(|score| Severity::from_score(score).class());
        assert_eq!(classes, ["calm", "degraded", "down"]);
    }
}
