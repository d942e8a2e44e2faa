//! The cgroups of a process, version 1 and 2.

use crate::host::cgroup::{components, memberships, session_user, unescape};

/// The paths of /proc/PID/cgroup (cgroups(7)) without duplicates, longest first: on a hybrid host
/// some controllers do not have the process in its VM's group.
///
/// Paths in a login session are omitted: the user chooses all names below them, including names of
/// a manager's groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cgroup {
    paths: Vec<String>,
    in_session: bool,
    session_user: Option<u32>,
}

/// Top-level groups, which only root creates, that managers of VMs use.
const MANAGED: &[&str] = &[
    "machine.slice",
    "machine",
    "qemu.slice",
    "kubepods.slice",
    "kubepods",
];

impl Cgroup {
    /// Parses the `id:controllers:path` lines and resolves systemd's escapes.
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut paths: Vec<String> = memberships(&text).map(|m| unescape(m.path)).collect();
        paths.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        paths.dedup();
        let all = paths.len();
        let mut session_users = paths.iter().filter_map(|path| session_user(path));
        let session_user = session_users.find(|uid| *uid != 0);
        paths.retain(|path| !is_session(path));
        Self {
            in_session: paths.len() < all,
            session_user,
            paths,
        }
    }

    /// Whether the process belongs to a login session, except root's.
    pub(super) fn in_session(&self) -> bool {
        self.in_session
    }

    /// The user of the login session.
    pub(super) fn session_user(&self) -> Option<u32> {
        self.session_user
    }

    /// Whether the process is in a group of a VM manager.
    pub(super) fn is_managed(&self) -> bool {
        let mut tops = self.paths.iter().filter_map(|path| top(path));
        tops.any(|top| MANAGED.contains(&top))
    }

    /// The components of all paths.
    pub(super) fn components(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().flat_map(|path| path.split('/'))
    }

    /// The instance of the innermost unit `TEMPLATE@INSTANCE.service` (systemd.unit(5)) whose
    /// template is wanted.
    pub(super) fn instance(&self, is_wanted: impl Fn(&str) -> bool) -> Option<&str> {
        let units = self.paths.iter().flat_map(|path| path.rsplit('/'));
        let mut instances = units.filter_map(|unit| {
            let (template, instance) = unit.strip_suffix(".service")?.split_once('@')?;
            (!template.is_empty() && is_wanted(template)).then_some(instance)
        });
        instances.find(|instance| !instance.is_empty())
    }

    /// The component directly below `parent`.
    pub(super) fn below(&self, parent: &str) -> Option<&str> {
        self.paths.iter().find_map(|path| {
            let mut components = path.split('/');
            components.find(|c| *c == parent)?;
            components.next()
        })
    }
}

/// The outermost group.
fn top(path: &str) -> Option<&str> {
    components(path).next()
}

/// Whether a path is in systemd's slice of login sessions, except root's.
fn is_session(path: &str) -> bool {
    top(path) == Some("user.slice") && session_user(path) != Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn components_of_every_hierarchy_are_seen() {
        let cgroup = Cgroup::parse(b"8:cpu:/machine/a\n1:name=systemd:/\n0::/x/y\n");
        let all: Vec<&str> = cgroup.components().filter(|c| !c.is_empty()).collect();
        assert_eq!(all, ["machine", "a", "x", "y"]);
        assert_eq!(cgroup.below("x"), Some("y"));
        assert_eq!(cgroup.below("y"), None);
    }

    #[test]
    fn unit_names_are_unescaped() {
        let cgroup =
            Cgroup::parse(b"0::/machine.slice/machine-qemu\\x2d1\\x2dweb\\xc3\\xa9.scope\n");
        assert_eq!(
            cgroup.below("machine.slice"),
            Some("machine-qemu-1-web\u{e9}.scope")
        );
    }

    #[test]
    fn what_a_user_names_in_a_session_tells_nothing() {
        let session = Cgroup::parse(
            b"0::/user.slice/user-1000.slice/user@1000.service/machine-qemu\\x2d1\\x2dweb.scope\n",
        );
        assert_eq!(session.components().count(), 0);
        assert!(session.in_session() && !session.is_managed());
        assert_eq!(session.session_user(), Some(1000));
        let root = Cgroup::parse(b"0::/user.slice/user-0.slice/session-1.scope\n");
        assert!(!root.in_session() && !root.is_managed());
        assert_eq!(root.session_user(), None);
        let feigned = b"0::/user.slice/user-1000.slice/user.slice/user-0.slice/machine.slice\n";
        let feigned = Cgroup::parse(feigned);
        assert!(feigned.in_session() && feigned.components().count() == 0);
        assert_eq!(feigned.session_user(), Some(1000));
        let service = Cgroup::parse(b"0::/system.slice/user.slice/user-7.slice\n");
        assert_eq!(service.session_user(), None);
        assert!(Cgroup::parse(b"0::/../../machine.slice/x.scope").is_managed());
        assert!(!Cgroup::parse(b"0::/system.slice/machine.slice/x.scope").is_managed());
    }

    #[test]
    fn instance_of_a_wanted_template_is_found_wherever_it_stands() {
        let instance = |text: &str| {
            let cgroup = Cgroup::parse(text.as_bytes());
            cgroup.instance(|name| name == "vm").map(str::to_owned)
        };
        let unit = "0::/system.slice/system-vm.slice/vm@web\\x2d1.service/payload";
        assert_eq!(instance(unit).as_deref(), Some("web-1"));
        assert_eq!(instance("0::/system.slice/sshd@7.service"), None);
        assert_eq!(instance("0::/system.slice/vm@.service"), None);
        assert_eq!(
            instance("0::/user.slice/user-1000.slice/vm@a.service"),
            None
        );
    }

    #[test]
    fn a_colon_in_a_path_belongs_to_it() {
        assert_eq!(Cgroup::parse(b"0::/a:b").below(""), Some("a:b"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Cgroup::parse(&text).components().count();
        }
    }
}
