//! The command line of a process.

/// The arguments in /proc/PID/cmdline; invalid UTF-8 is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cmdline(Vec<String>);

impl Cmdline {
    /// Splits at NUL bytes.
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = text.strip_suffix(&[0]).unwrap_or(text);
        let args = text.split(|b| *b == 0);
        Self(args.map(|a| String::from_utf8_lossy(a).into()).collect())
    }

    /// Splits the first `limit` bytes of the file. Drops an argument that was cut at the limit,
    /// because a part can mean something else.
    pub(super) fn parse_beginning(text: &[u8], limit: usize) -> Self {
        let is_end = |b: &u8| *b == 0;
        let whole = if text.len() < limit {
            text.len()
        } else {
            text.iter().rposition(is_end).unwrap_or(0)
        };
        Self::parse(&text[..whole])
    }

    /// File name of `argv[0]`.
    pub(super) fn program(&self) -> &str {
        file_name(self.arg(0))
    }

    /// The arguments after the program name.
    pub(super) fn args(&self) -> impl Iterator<Item = &str> {
        self.0.iter().skip(1).map(String::as_str)
    }

    /// Argument `n`; empty if there are fewer.
    pub(super) fn arg(&self, n: usize) -> &str {
        self.0.get(n).map_or("", String::as_str)
    }

    /// The value of `--name value` or `--name=value`; the last one counts.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options(name).last()
    }

    /// All values of an option that may be repeated.
    pub(super) fn options<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0.iter().enumerate().filter_map(move |(n, arg)| {
            let rest = arg.strip_prefix(name)?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value),
                None if rest.is_empty() => self.0.get(n + 1).map(String::as_str),
                None => None,
            }
        })
    }
}

/// The last component of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The value of `key` in a list such as `type=1,uuid=…`; the last one counts, and a double comma is
/// a comma in a value. A first entry without a key is the whole value of `implied`: `a,,b=c` is all
/// value (QEMU's util/qemu-option.c, `get_opt_name_value`).
pub(super) fn suboption(list: &str, key: &str, implied: Option<&str>) -> Option<String> {
    let mut found = None;
    let mut rest = list;
    let mut implied = implied;
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(end);
        let name = match tail.strip_prefix('=') {
            Some(value) => {
                rest = value;
                Some(head)
            }
            None => implied,
        };
        let value = take_value(&mut rest);
        if name == Some(key) {
            found = Some(value);
        }
        implied = None;
    }
    found
}

/// Takes the text up to the next single comma, and removes that comma.
fn take_value(rest: &mut &str) -> String {
    let mut value = String::new();
    while let Some((head, tail)) = rest.split_once(',') {
        value.push_str(head);
        *rest = tail;
        match tail.strip_prefix(',') {
            Some(more) => *rest = more,
            None => return value,
        }
        value.push(',');
    }
    value.push_str(rest);
    *rest = "";
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn options_have_their_value_beside_or_behind_them() {
        let line = Cmdline::parse(b"/bin/x\0--id\0a\0--name=b\0--id\0c\0--last\0");
        assert_eq!(line.program(), "x");
        assert_eq!(line.option("--id"), Some("c"));
        assert_eq!(line.option("--name"), Some("b"));
        assert_eq!(line.option("--last"), None);
        assert_eq!(line.option("--i"), None);
        assert_eq!(line.options("--id").count(), 2);
    }

    #[test]
    fn an_empty_command_line_has_no_program() {
        assert_eq!(Cmdline::parse(b"").program(), "");
    }

    #[test]
    fn argument_that_was_cut_off_is_left_out() {
        let name = |limit| {
            let text = &b"/bin/x\0--id\0web-12\0--name=b\0"[..limit];
            let line = Cmdline::parse_beginning(text, limit);
            line.option("--id").map(str::to_owned)
        };
        assert_eq!(name(17), None, "web-1 is another");
        assert_eq!(name(19).as_deref(), Some("web-12"));
        assert_eq!(name(21).as_deref(), Some("web-12"));
        let whole = Cmdline::parse_beginning(b"x\0--id\0a", 10);
        assert_eq!(whole.option("--id"), Some("a"), "no NUL at its end");
        assert_eq!(Cmdline::parse_beginning(b"xxx", 3).program(), "");
    }

    #[test]
    fn doubled_commas_are_commas() {
        let list = "guest=a,,b,debug-threads=on";
        assert_eq!(suboption(list, "guest", None).as_deref(), Some("a,b"));
        assert_eq!(
            suboption(list, "debug-threads", None).as_deref(),
            Some("on")
        );
        assert_eq!(suboption(list, "on", None), None);
    }

    #[test]
    fn a_first_entry_without_a_key_has_the_implied_one() {
        let implied = Some("guest");
        assert_eq!(suboption("web", "guest", implied).as_deref(), Some("web"));
        assert_eq!(
            suboption("web,process=x", "guest", implied).as_deref(),
            Some("web")
        );
        assert_eq!(suboption("process=x,web", "guest", implied), None);
        assert_eq!(
            suboption("a,,b=c,x=y", "guest", implied).as_deref(),
            Some("a,b=c")
        );
        assert_eq!(suboption("", "guest", implied), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_line(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let line = Cmdline::parse(&text);
            let _ = (line.program().len(), line.option("-name").map(|l| suboption(l, "guest", None)));
        }

        #[test]
        fn any_value_survives_doubling_its_commas(value in "\\PC{0,20}", other in "[a-z=]{0,8}") {
            let list = format!("guest={},x={other}", value.replace(',', ",,"));
            prop_assert_eq!(suboption(&list, "guest", None), Some(value));
        }
    }
}
