//! Writes to standard output and error, and escapes text from outside.

use std::borrow::Cow;
use std::io::{self, Write};

use anyhow::Context;

use crate::host::text::alters_display;

/// Writes text to standard output. A reader that left early (`list | head`) is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    write(&mut io::stdout().lock(), text).context("cannot write to standard output")
}

fn write(to: &mut impl Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a message about the command to standard error, escaped by [`printable`], because errors
/// quote files and paths. Ignores a closed standard error.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "vcpu-exporter: {}", printable(text));
}

/// [`say`], on a new line of the terminal.
#[cfg(feature = "demo")]
pub(super) fn say_apart(text: &str) {
    let _ = write!(io::stderr(), "\nvcpu-exporter: {text}\n");
}

/// Indented JSON with a final newline.
pub(super) fn print_json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Escapes characters that a terminal would interpret, for example in VM names.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(alters_display) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| {
        if alters_display(c) {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Columns of the terminal; `None` if standard output is not a terminal: lines may be long.
pub(super) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Breaks text between words into lines of at most `width` characters. All lines but the first are
/// indented by `indent` spaces. Words longer than a line are not broken.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut lines = String::new();
    let mut column = indent;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > indent && column + 1 + length > width {
            lines += "\n";
            lines += &" ".repeat(indent);
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += length;
    }
    lines
}

/// Shortens text to `most` characters with an ellipsis in the middle: names often differ at the
/// end.
pub(super) fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= most {
        return Cow::Borrowed(text);
    }
    let kept = most.saturating_sub(1);
    let head: String = text.chars().take(kept / 2).collect();
    let tail: String = text.chars().skip(length - (kept - kept / 2)).collect();
    Cow::Owned(format!("{head}…{tail}"))
}

/// "1 VM", "2 VMs", "3 processes"
pub(super) fn count(n: usize, thing: &str) -> String {
    match n {
        1 => format!("1 {thing}"),
        n if thing.ends_with('s') => format!("{n} {thing}es"),
        n => format!("{n} {thing}s"),
    }
}

/// A cell; an unknown value is a dash.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A table without lines, as `kubectl get` and `systemctl` print it. Columns from `numbers` on are
/// aligned to the right.
pub(super) fn table(
    header: &[&str],
    rows: impl IntoIterator<Item = impl Into<comfy_table::Row>>,
    numbers: usize,
) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_content_arrangement(comfy_table::ContentArrangement::Disabled)
        .set_header(header)
        .add_rows(rows);
    for (n, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if n >= numbers {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn closed_pipe_is_ignored_and_full_disk_is_an_error() {
        assert!(write(&mut Fails(io::ErrorKind::BrokenPipe), "x").is_ok());
        assert!(write(&mut Fails(io::ErrorKind::StorageFull), "x").is_err());
    }

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(wrap("a bc def", 6, 2), "a bc\n  def");
        assert_eq!(wrap("abcdefghi j", 6, 2), "abcdefghi\n  j");
        assert_eq!(wrap("a bc", usize::MAX, 2), "a bc");
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shorten("web-1", 5), "web-1");
        assert_eq!(shorten("instance-0000002a", 9), "inst…002a");
        assert_eq!(shorten("éééé", 3), "é…é");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("web-1 é"), "web-1 é");
        assert_eq!(printable("a\x1b[2Jb\n\u{9b}"), "a\\u{1b}[2Jb\\n\\u{9b}");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }
}
