//! libvirt's run-time state of its domains, `/run/libvirt/qemu/NAME.xml`, read without libvirt.
//!
//! libvirt writes each change to a new file and renames it, which changes the directory: one stat
//! of the directory shows whether anything changed.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::naming;
use crate::host::roots::Roots;

mod bounds;

/// A running domain has about a thousand XML nodes; each costs roxmltree about 100 bytes.
const MAX_NODES: u32 = 100_000;

/// Namespaces of nova's metadata: `…/nova/1.0`, `…/nova/1.1`.
const NOVA: &str = "http://openstack.org/xmlns/libvirt/nova/";

/// The used part of a domain's state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Domain {
    /// PID of its QEMU.
    pub(super) pid: i32,
    pub(super) name: String,
    pub(super) uuid: Option<String>,
    /// Nova's facts, sorted; empty if nova did not create the domain.
    pub(super) nova: Vec<(&'static str, String)>,
}

/// Parses a `domstatus` document. Returns `None` for any other document, one above the size limits,
/// or one with a DTD: entities are never expanded.
pub(super) fn parse(xml: &str) -> Option<Domain> {
    if !bounds::are_kept(xml) {
        return None;
    }
    let options = roxmltree::ParsingOptions {
        nodes_limit: MAX_NODES,
        ..roxmltree::ParsingOptions::default()
    };
    let document = roxmltree::Document::parse_with_options(xml, options).ok()?;
    let status = document.root_element();
    if !status.has_tag_name("domstatus") {
        return None;
    }
    let domain = status.children().find(|n| n.has_tag_name("domain"))?;
    let text = |name: &str| {
        let node = domain.children().find(|n| n.has_tag_name(name))?;
        Some(node.text()?.trim().to_owned())
    };
    Some(Domain {
        pid: status.attribute("pid")?.parse().ok()?,
        name: text("name")?,
        uuid: text("uuid").and_then(|uuid| naming::uuid(&uuid)),
        nova: nova(domain),
    })
}

fn nova(domain: roxmltree::Node<'_, '_>) -> Vec<(&'static str, String)> {
    let find = |name: &str| {
        domain.descendants().find(|n| {
            let namespace = n.tag_name().namespace().unwrap_or_default();
            n.tag_name().name() == name && namespace.starts_with(NOVA)
        })
    };
    let project = find("project");
    let facts = [
        (
            "openstack_flavor",
            find("flavor").and_then(|n| n.attribute("name")),
        ),
        ("openstack_name", find("name").and_then(|n| n.text())),
        ("openstack_project", project.and_then(|n| n.text())),
        (
            "openstack_project_id",
            project.and_then(|n| n.attribute("uuid")),
        ),
    ];
    facts
        .into_iter()
        .filter_map(|(label, value)| Some((label, value?.trim().to_owned())))
        .collect()
}

/// The running domains.
#[derive(Debug)]
pub(super) struct Domains {
    roots: Arc<Roots>,
    dir: PathBuf,
    seen: Option<InodeStamp>,
    files: BTreeMap<String, (InodeStamp, Option<Domain>)>,
    /// Whether domains may exist whose state cannot be read for lack of privilege.
    pub(super) unreadable: bool,
}

/// Inode, size and modification time: changes when a file is replaced.
type InodeStamp = (u64, u64, i64, i64);

fn stamp(data: &Metadata) -> InodeStamp {
    (data.ino(), data.size(), data.mtime(), data.mtime_nsec())
}

impl Domains {
    /// Empty until the first [`Domains::refresh`].
    pub(super) fn new(roots: Arc<Roots>) -> Self {
        let dir = roots.run.join("libvirt/qemu");
        Self {
            roots,
            dir,
            seen: None,
            files: BTreeMap::new(),
            unreadable: false,
        }
    }

    /// Reads changed files; returns whether any domain changed.
    pub(super) fn refresh(&mut self) -> bool {
        let data = std::fs::metadata(&self.dir);
        let stamp = data.as_ref().ok().map(stamp);
        if stamp == self.seen && stamp.is_some() {
            return false;
        }
        self.unreadable = data.as_ref().is_err_and(is_denied);
        if data
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        {
            self.seen = None;
            return !std::mem::take(&mut self.files).is_empty();
        }
        // A change within the same tick of the file system's clock would leave the same stamp.
        self.seen = stamp.filter(|_| data.is_ok_and(|d| is_old(&d)));
        self.read_all()
    }

    /// The domain of this process.
    pub(super) fn domain_of(&self, pid: i32) -> Option<&Domain> {
        let domains = self
            .files
            .values()
            .filter_map(|(_, domain)| domain.as_ref());
        domains.into_iter().find(|domain| domain.pid == pid)
    }

    fn read_all(&mut self) -> bool {
        let names = match self.roots.list(&self.dir) {
            Ok(names) => names,
            Err(error) if is_answer(&error) => {
                self.unreadable |= is_denied(&error);
                Vec::new()
            }
            Err(_) => return self.keep(),
        };
        let before = self.files.len();
        self.files.retain(|name, _| names.contains(name));
        let mut changed = self.files.len() != before;
        for name in names.iter().filter(|name| name.ends_with(".xml")) {
            changed |= self.read(name);
        }
        changed
    }

    fn read(&mut self, name: &str) -> bool {
        let path = self.dir.join(name);
        let stamp = match std::fs::metadata(&path) {
            Ok(data) if data.is_file() => stamp(&data),
            Err(error) if !is_answer(&error) => return self.keep(),
            _ => return self.files.remove(name).is_some(),
        };
        if self.files.get(name).is_some_and(|(seen, _)| *seen == stamp) {
            return false;
        }
        let domain = match self.roots.read_text(&path) {
            Ok(xml) => {
                let domain = parse(&xml);
                if domain.is_none() && !xml.is_empty() {
                    tracing::warn!(path = %path.display(), "ignoring the domain's state: unexpected format, or above the size limits");
                }
                domain
            }
            Err(error) if is_answer(&error) => {
                self.unreadable |= is_denied(&error);
                None
            }
            Err(_) => return self.keep(),
        };
        let before = self.files.insert(name.to_owned(), (stamp, domain.clone()));
        before.and_then(|(_, domain)| domain) != domain
    }

    /// After an error that says nothing about domains (such as no free descriptor), keeps the known
    /// domains and retries on the next pass.
    fn keep(&mut self) -> bool {
        self.seen = None;
        false
    }
}

/// Whether an error is a definite answer: no such file, no permission, or not text.
fn is_answer(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied | InvalidData)
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn is_old(data: &Metadata) -> bool {
    /// Longer than a clock tick of any kernel (10 ms with CONFIG_HZ=100).
    const TICK: Duration = Duration::from_millis(20);
    let age = |time| SystemTime::now().duration_since(time).ok();
    data.modified()
        .ok()
        .and_then(age)
        .is_some_and(|age| age > TICK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{domstatus, FakeHost};
    use proptest::prelude::*;

    const UUID: &str = "b813b8d7-0c4e-4f6a-9a86-1f6a3f1f7c11";

    #[test]
    fn a_domain_is_read_from_its_status() {
        let xml = domstatus(77, "we b", UUID, &[78, 79], "");
        let expected = Domain {
            pid: 77,
            name: "we b".into(),
            uuid: Some(UUID.into()),
            nova: vec![],
        };
        assert_eq!(parse(&xml), Some(expected));
    }

    #[test]
    fn metadata_of_others_are_no_facts_of_nova() {
        let other = r#"<metadata><nova:name xmlns:nova="http://example.org/nova/">x</nova:name></metadata>"#;
        assert_eq!(
            parse(&domstatus(1, "a", UUID, &[], other)).unwrap().nova,
            []
        );
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for xml in [
            "",
            "<domain/>",
            "<domstatus pid='x'/>",
            "<domstatus pid='1'><domain/></domstatus>",
        ] {
            assert_eq!(parse(xml), None, "{xml}");
        }
    }

    #[test]
    fn a_deep_document_does_not_take_the_stack() {
        let _ = parse(&"<a>".repeat(200_000));
        let _ = parse(&format!(
            "{}{}",
            "<a>".repeat(200_000),
            "</a>".repeat(200_000)
        ));
    }

    #[test]
    fn entities_are_not_expanded_and_nodes_are_bounded() {
        let bomb =
            r#"<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>"#;
        let xml = domstatus(1, "&b;", UUID, &[], "");
        let xml = xml.split_once("-->").unwrap().1;
        assert_eq!(parse(&format!("{bomb}{xml}")), None);
        let many = "<x/>".repeat(MAX_NODES as usize);
        assert_eq!(parse(&domstatus(1, "a", UUID, &[], &many)), None);
    }

    #[test]
    fn what_cannot_be_read_for_another_reason_stays_as_it_was() {
        let host = FakeHost::new();
        host.libvirt_xml("a", &domstatus(5, "a", UUID, &[], ""));
        let mut domains = Domains::new(Arc::new(Roots::below(host.root())));
        assert!(domains.refresh());
        let dir = host.path("run/libvirt/qemu");
        for file in ["run/libvirt/qemu/a.xml", "run/libvirt/qemu"] {
            host.link(file, dir.join("a.xml").to_str().unwrap());
            assert!(!domains.refresh(), "a loop of links is no answer");
            assert_eq!(domains.domain_of(5).unwrap().name, "a");
        }
        host.remove("run/libvirt/qemu");
        assert!(domains.refresh());
        assert_eq!(domains.domain_of(5), None);
    }

    #[test]
    fn only_changes_are_read() {
        let host = FakeHost::new();
        let roots = Arc::new(Roots::below(host.root()));
        let mut domains = Domains::new(roots.clone());
        assert!(!domains.refresh());
        host.libvirt_xml("a", &domstatus(5, "a", UUID, &[], ""));
        host.libvirt_xml("b", &domstatus(6, "b", UUID, &[], ""));
        assert!(domains.refresh());
        let opens = roots.opens();
        assert!(!domains.refresh());
        assert_eq!(roots.opens(), opens);
        host.libvirt_xml("a", &domstatus(5, "renamed", UUID, &[], ""));
        assert!(domains.refresh());
        assert_eq!(domains.domain_of(5).unwrap().name, "renamed");
        assert_eq!(roots.opens(), opens + 2); // the directory and one file
        host.remove("run/libvirt");
        assert!(domains.refresh());
        assert_eq!(domains.domain_of(6), None);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_name_is_read_back(name in "[^\\x00-\\x1f\u{7f}-\u{9f}&<>]{1,40}") {
            prop_assume!(!name.trim().is_empty() && !name.contains("]]>") && !name.contains(['\u{fffe}', '\u{ffff}']));
            let domain = parse(&domstatus(1, &name, UUID, &[], "")).unwrap();
            prop_assert_eq!(domain.name, name.trim());
        }
    }
}
