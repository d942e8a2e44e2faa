//! The VM and host of the alert, from the URL's query. They replace the example names in a runbook.
//!
//! The query is untrusted. In PromQL, a value is escaped as in a string. In a command, only values
//! that no shell interprets are filled in; otherwise the example stays, so that a link cannot
//! inject a command that an operator copies.

use std::borrow::Cow;

use crate::expose::query;
use crate::host::text::alters_display;

/// Longest accepted value, in bytes: names of VMs have at most 128.
const MAX_VALUE: usize = 256;

/// The VM that runbooks act on if another VM is the culprit.
const NEIGHBOR: &str = "batch-1";

/// Takes its place for a victim whose culprit is unknown: no command may name a VM that exists.
const UNKNOWN: &str = "OTHER_VM";

/// The exporter's default port, used if the instance has none.
const PORT: &str = ":9752";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) vm: Option<String>,
    /// The VM that slows down `vm`.
    pub(super) neighbor: Option<String>,
    pub(super) vcpu: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) host: Option<String>,
}

/// Where a name occurs, which decides how it is escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// Plain text.
    Prose,
    /// PromQL: names are in strings.
    PromQl,
    /// A command, or text that may be one.
    Command,
}

impl Subject {
    /// Parses a query. Values that are empty, too long or contain characters that reorder text are
    /// ignored.
    pub(super) fn parse(query: &str) -> Self {
        let mut subject = Self::default();
        for (name, value) in query::pairs(query) {
            let field = match name {
                "vm" => &mut subject.vm,
                "neighbor" => &mut subject.neighbor,
                "vcpu" => &mut subject.vcpu,
                "instance" => &mut subject.instance,
                "host" => &mut subject.host,
                _ => continue,
            };
            let is_shown = !value.is_empty() && value.len() <= MAX_VALUE;
            if is_shown && !value.contains(alters_display) {
                *field = Some(value);
            }
        }
        if subject.host.is_none() {
            let instance = subject.instance.as_deref();
            subject.host = instance.map(|instance| without_port(instance).to_owned());
        }
        subject
    }

    /// The query for links to other runbooks; empty if nothing is known.
    pub(super) fn query(&self) -> String {
        let known = [
            ("vm", &self.vm),
            ("neighbor", &self.neighbor),
            ("vcpu", &self.vcpu),
            ("instance", &self.instance),
            ("host", &self.host),
        ];
        let known = known.into_iter().filter_map(|(name, value)| {
            let value = query::encoded(value.as_deref()?);
            Some(format!("{name}={value}"))
        });
        let known: Vec<String> = known.collect();
        if known.is_empty() {
            String::new()
        } else {
            format!("?{}", known.join("&"))
        }
    }

    /// Whether commands keep the VM's example name.
    pub(super) fn keeps_example(&self) -> bool {
        self.vm.as_deref().is_some_and(|vm| !is_inert(vm))
    }

    /// The text with its example names replaced. `example` is the VM that the runbook names.
    pub(super) fn fill<'a>(
        &self,
        text: &'a str,
        example: Option<&str>,
        context: Context,
    ) -> Cow<'a, str> {
        let mut filled = String::new();
        let (mut done, mut at) = (0, 0);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let step = rest.chars().next().map_or(1, char::len_utf8);
            let found = self.at(rest, &text[..at], example);
            let found = found.or_else(|| self.neighbor_at(rest, &text[..at], context));
            let Some((length, value)) = found else {
                at += step;
                continue;
            };
            if let Some(value) = written(&value, context) {
                filled += &text[done..at];
                filled += &value;
                done = at + length;
            }
            at += length;
        }
        match done {
            0 => Cow::Borrowed(text),
            _ => Cow::Owned(filled + &text[done..]),
        }
    }

    /// The example name at the start of `text`, which follows `before`: its length and its
    /// replacement.
    fn at(&self, text: &str, before: &str, example: Option<&str>) -> Option<(usize, String)> {
        let is_word = |name: &str| is_word(name, text, before);
        if before.ends_with("vcpu=\"") {
            let digits = text.find(|c: char| !c.is_ascii_digit())?;
            let is_whole = digits > 0 && text[digits..].starts_with('"');
            return Some((digits, self.vcpu.clone().filter(|_| is_whole)?));
        }
        if let Some(instance) = self.instance.as_ref() {
            if text.starts_with("http://HOST:9752") {
                let port = if without_port(instance).len() == instance.len() {
                    PORT
                } else {
                    ""
                };
                return Some((16, format!("http://{instance}{port}")));
            }
            if text.starts_with("HOST:9752") && is_word("HOST:9752") {
                return Some((9, instance.clone()));
            }
        }
        if text.starts_with("HOST") && is_word("HOST") {
            return Some((4, self.host.clone()?));
        }
        let (example, vm) = (example?, self.vm.as_ref()?);
        if text.starts_with(example) && is_word(example) {
            return Some((example.len(), vm.clone()));
        }
        let unit = systemd_escaped(example);
        let is_unit = unit != example && text.starts_with(&unit);
        is_unit.then(|| (unit.len(), systemd_escaped(vm)))
    }

    /// The example of a culprit at the start of `text`.
    fn neighbor_at(&self, text: &str, before: &str, context: Context) -> Option<(usize, String)> {
        let is_there = text.starts_with(NEIGHBOR) && is_word(NEIGHBOR, text, before);
        if !is_there || *self == Self::default() {
            return None;
        }
        let known = self.neighbor.clone();
        let known = known.filter(|name| context != Context::Command || is_inert(name));
        Some((NEIGHBOR.len(), known.unwrap_or_else(|| UNKNOWN.to_owned())))
    }
}

/// Whether `name`, with which `text` starts, is a whole word there.
fn is_word(name: &str, text: &str, before: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || c == '_';
    !before.ends_with(goes_on) && !text[name.len()..].starts_with(goes_on)
}

/// The escaped value; `None` if it must not be filled in.
fn written(value: &str, context: Context) -> Option<Cow<'_, str>> {
    match context {
        Context::Prose => Some(Cow::Borrowed(value)),
        Context::PromQl => Some(value.replace('\\', "\\\\").replace('"', "\\\"").into()),
        Context::Command => is_inert(value).then_some(Cow::Borrowed(value)),
    }
}

/// Whether no shell interprets the value and no command treats it as an option. Backslashes are
/// allowed only as in unit names, which are quoted.
fn is_inert(value: &str) -> bool {
    let inert = |c: char| c.is_ascii_alphanumeric() || "._:@%+/-".contains(c);
    let unit = value.replace("\\x", "");
    !value.starts_with('-') && unit.chars().all(inert)
}

/// The value in a unit's name, as `systemd-escape` writes it.
fn systemd_escaped(name: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'/' => "-".to_owned(),
        b if b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'.') => {
            char::from(b).to_string()
        }
        b => format!("\\x{b:02x}"),
    };
    name.bytes().map(escaped).collect()
}

/// `compute-1:9752` and `[::1]:9752` without the port.
fn without_port(instance: &str) -> &str {
    match instance.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => instance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(query: &str, text: &str, context: Context) -> String {
        let subject = Subject::parse(query);
        subject.fill(text, Some("api-2"), context).into_owned()
    }

    #[test]
    fn names_take_the_place_of_the_examples() {
        let query = "vm=db-7&vcpu=3&instance=compute-1%3A9752";
        let promql = "rate(x{instance=\"HOST:9752\",vm=\"api-2\",vcpu=\"0\"}[5m])";
        assert_eq!(
            filled(query, promql, Context::PromQl),
            "rate(x{instance=\"compute-1:9752\",vm=\"db-7\",vcpu=\"3\"}[5m])"
        );
        let command = "openstack service set HOST nova; migrate api-2 HOST2; api-23; my_api-2";
        assert_eq!(
            filled(query, command, Context::Command),
            "openstack service set compute-1 nova; migrate db-7 HOST2; api-23; my_api-2"
        );
        let unit = "'machine-qemu\\x2d9\\x2dapi\\x2d2.scope'";
        assert_eq!(
            filled(query, unit, Context::Command),
            "'machine-qemu\\x2d9\\x2ddb\\x2d7.scope'"
        );
        let page = "The page http://HOST:9752/.";
        let pushed = filled("instance=compute-1", page, Context::Prose);
        assert_eq!(pushed, "The page http://compute-1:9752/.");
        assert_eq!(filled("", promql, Context::PromQl), promql);
    }

    #[test]
    fn commands_act_on_the_neighbor_of_the_query_and_on_no_other_vm() {
        let text = "virsh schedinfo batch-1 --live; batch-12";
        let known = filled("vm=db-7&neighbor=ci-3", text, Context::Command);
        assert_eq!(known, "virsh schedinfo ci-3 --live; batch-12");
        for query in ["vm=db-7", "instance=a:1", "vm=db-7&neighbor=a;reboot"] {
            let unknown = filled(query, text, Context::Command);
            assert_eq!(unknown, "virsh schedinfo OTHER_VM --live; batch-12");
        }
        assert_eq!(filled("", text, Context::Command), text);
    }

    #[test]
    fn values_are_not_replaced_again() {
        let text = "api-2 HOST:9752";
        let seen = filled("vm=HOST&instance=api-2", text, Context::Prose);
        assert_eq!(seen, "HOST api-2");
    }

    #[test]
    fn a_string_of_promql_stays_one_string() {
        let query = "vm=a%22%7D+or+vector(1)%23%5C&vcpu=0%22";
        assert_eq!(
            filled(query, "x{vm=\"api-2\",vcpu=\"0\"}", Context::PromQl),
            "x{vm=\"a\\\"} or vector(1)#\\\\\",vcpu=\"0\\\"\"}"
        );
    }

    #[test]
    fn no_command_comes_from_the_address() {
        for vm in [
            "a;reboot",
            "$(reboot)",
            "`x`",
            "a b",
            "-x",
            "a'b",
            "a|b",
            "a%0Ab",
            "é",
        ] {
            let query = format!("vm={vm}");
            let text = "virsh vcpupin api-2";
            assert_eq!(filled(&query, text, Context::Command), text, "{vm}");
            let is_handled = Subject::parse(&query).keeps_example() || vm.contains("%0A");
            assert!(is_handled, "{vm}");
        }
    }

    #[test]
    fn values_that_reorder_text_are_ignored() {
        let long = "x".repeat(MAX_VALUE + 1);
        for vm in ["%E2%80%AEx", "a%00b", "%1b[2J", "", &long] {
            assert_eq!(
                Subject::parse(&format!("vm={vm}")),
                Subject::default(),
                "{vm}"
            );
        }
    }

    #[test]
    fn a_host_is_its_instance_without_the_port() {
        let of = |instance: &str| without_port(instance).to_owned();
        let hosts = ["a:9752", "a", "[::1]:9752", "::1", "10.0.0.1:1"].map(of);
        assert_eq!(hosts, ["a", "a", "[::1]", "::1", "10.0.0.1"]);
        let subject = Subject::parse("instance=a:1&host=b&vm=c d");
        assert_eq!(subject.query(), "?vm=c%20d&instance=a%3A1&host=b");
        assert_eq!(Subject::parse(&subject.query()[1..]), subject);
    }
}
