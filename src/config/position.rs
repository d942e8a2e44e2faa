//! Finds the position of an error in the text: serde_yaml reports it for values, but for a
//! duplicate key only the start of the mapping.

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Position, key path and expected value.
pub(super) fn located(error: &serde_yaml::Error, text: &str) -> String {
    let message = error.to_string();
    // serde_yaml appends the position, and omits it for line 1 column 1.
    let Some(at) = error.location() else {
        return message;
    };
    let found = Position {
        line: at.line(),
        column: at.column(),
    };
    let suffix = format!(" at line {} column {}", found.line, found.column);
    let message = message.strip_suffix(&suffix).unwrap_or(&message);
    let second = duplicate(message).and_then(|key| second(text, found, key));
    let Position { line, column } = second.unwrap_or(found);
    format!("line {line} column {column}: {}", without_text(message))
}

/// The key of an error about a duplicate key.
fn duplicate(message: &str) -> Option<&str> {
    let (_, key) = message.rsplit_once("duplicate field `")?;
    key.strip_suffix('`')
}

/// A file that is not a mapping is not a configuration and may be a secret: its text is not shown.
fn without_text(message: &str) -> &str {
    match message.strip_prefix("invalid type: string ") {
        Some(_) => "text, expected a mapping of sections",
        None => message,
    }
}

/// Position of the second `key` in the mapping that starts at `from`.
fn second(text: &str, from: Position, key: &str) -> Option<Position> {
    let mut lines = text.lines().zip(1..).skip(from.line.checked_sub(1)?);
    let (first, _) = lines.clone().next()?;
    let indent = from.column.checked_sub(1)?;
    let rest = first.get(indent..)?;
    if rest.starts_with('{') {
        return second_in_flow(text, from, key);
    }
    let mut seen = usize::from(is_key(rest, key));
    lines.next();
    for (content, line) in lines {
        let own = content.len() - content.trim_start_matches(' ').len();
        let content = content.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if own < indent {
            return None;
        }
        seen += usize::from(own == indent && is_key(content, key));
        if seen == 2 {
            return Some(Position { line, ..from });
        }
    }
    None
}

/// The same in braces: keys are at depth 1, after `{` or `,`.
fn second_in_flow(text: &str, from: Position, key: &str) -> Option<Position> {
    let (mut depth, mut quote, mut may_be_key, mut seen) = (0usize, None, false, 0);
    for (content, line) in text.lines().zip(1..).skip(from.line.checked_sub(1)?) {
        let start = if line == from.line {
            from.column.checked_sub(1)?
        } else {
            0
        };
        for (at, c) in content.char_indices().skip_while(|(at, _)| *at < start) {
            if depth == 1 && may_be_key && quote.is_none() && !c.is_whitespace() {
                seen += usize::from(is_key(&content[at..], key));
                if seen == 2 {
                    return Some(Position {
                        line,
                        column: at + 1,
                    });
                }
            }
            may_be_key = quote.is_none() && (matches!(c, '{' | ',') || may_be_key && c == ' ');
            match (quote, c) {
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                (None, '{' | '[') => depth += 1,
                (None, '}' | ']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return None;
            }
        }
    }
    None
}

/// Whether a line starts with this key, with or without quotes.
fn is_key(line: &str, key: &str) -> bool {
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        line.strip_prefix(quote)?
            .strip_prefix(key)?
            .strip_prefix(quote)
    });
    let after = quoted.or_else(|| line.strip_prefix(key));
    after.is_some_and(|rest| rest.trim_start().starts_with(':'))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn error(text: &str) -> String {
        let error = Config::parse(text).unwrap_err().to_string();
        error.strip_prefix("configuration: ").unwrap().to_owned()
    }

    #[test]
    fn duplicate_key_is_reported_where_it_is_for_the_second_time() {
        for (text, expected) in [
            ("log: {}\nweb: {}\nlog: {}\n", "line 3 column 1: duplicate field `log`"),
            (
                "sources:\n  pmu:\n    enabled: true\n    host_mode: false\n\n    # again\n    enabled: false\n",
                "line 7 column 5: sources.pmu: duplicate field `enabled`",
            ),
            (
                "limits:\n  max_series: 7\n  \"max_series\": 8\n",
                "line 3 column 3: limits: duplicate field `max_series`",
            ),
            (
                "log: {level: warn, format: text, level: info}\n",
                "line 1 column 34: log: duplicate field `level`",
            ),
            (
                "otlp:\n  endpoints:\n    - url: http://x:1\n      timeout: 1s\n      url: http://y:1\n",
                "line 5 column 7: otlp.endpoints[0]: duplicate field `url`",
            ),
            (
                "otlp:\n  resource:\n    a: b\n    c: d\n    a: e\n",
                "line 5 column 5: otlp.resource: duplicate field `a`",
            ),
            // The same key in another mapping does not count.
            (
                "sources:\n  pmu:\n    enabled: true\n  cgroup:\n    enabled: true\n    enabled: true\n",
                "line 6 column 5: sources.cgroup: duplicate field `enabled`",
            ),
            (
                "sources: {pmu: {enabled: true}, cgroup: {enabled: true, enabled: false}}\n",
                "line 1 column 57: sources.cgroup: duplicate field `enabled`",
            ),
        ] {
            assert_eq!(error(text), expected, "{text}");
        }
    }

    #[test]
    fn file_that_is_no_mapping_is_not_repeated() {
        for text in [
            "root:$6$secret:19000:0\nbin:*:19000\n",
            "\n  s3cr3t, expected x\n",
        ] {
            let error = error(text);
            assert!(error.contains("a mapping of sections"), "{error}");
            for part in ["secret", "root", "s3cr3t"] {
                assert!(!error.contains(part), "{error}");
            }
        }
    }
}
