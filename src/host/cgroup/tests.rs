//! Paths and mounts on fixture hosts.

use super::*;
use crate::fake_host::FakeHost;
use proptest::prelude::*;

const HYBRID: &str = "9:name=systemd:/s\n8:cpu,cpuacct:/c\n3:cpuset:/cs\n0::/u\n";

#[test]
fn each_hierarchy_finds_its_line() {
    let host = FakeHost::new();
    let roots = Roots::below(host.root());
    assert_eq!(Mounts::detect(&roots), Mounts::default());
    host.file("sys/fs/cgroup/cpu,cpuacct/cpu.shares", "1024\n");
    host.file("sys/fs/cgroup/cpuset/tasks", "");
    let v1 = Mounts::detect(&roots);
    assert_eq!(v1.unified, None);
    host.file("sys/fs/cgroup/unified/cgroup.controllers", "\n");
    let hybrid = Mounts::detect(&roots);
    let shown = |h: &Option<Hierarchy>, text| h.as_ref().and_then(|h| h.shown(text));
    assert_eq!(shown(&v1.cpu, HYBRID), Some("/c"));
    assert_eq!(shown(&hybrid.cpu, HYBRID), Some("/c"));
    assert_eq!(shown(&hybrid.cpuset, HYBRID), Some("/cs"));
    assert_eq!(shown(&hybrid.unified, HYBRID), Some("/u"));
    host.file("sys/fs/cgroup/cgroup.controllers", "cpu\n");
    let v2 = Mounts::detect(&roots);
    assert_eq!(shown(&v2.cpu, "0::/a:b"), Some("/a:b"));
    assert_eq!(v2.cpu, v2.unified);
}

#[test]
fn a_controller_without_a_v1_hierarchy_is_v2s() {
    let host = FakeHost::new();
    host.file("sys/fs/cgroup/unified/cgroup.controllers", "cpu\n");
    let mounts = Mounts::detect(&Roots::below(host.root()));
    assert_eq!(mounts.cpu.unwrap().version(), Version::V2);
}

#[test]
fn what_a_namespace_hides_is_found_below_the_root_or_near_it() {
    let host = FakeHost::new();
    let roots = Roots::below(host.root());
    host.file("sys/fs/cgroup/cgroup.controllers", "cpu\n");
    for dir in [
        "kubepods.slice/burstable.slice/pod1/c",
        "machine.slice/a.scope",
    ] {
        host.file(format!("sys/fs/cgroup/{dir}/cgroup.procs"), "");
    }
    let mut v2 = Mounts::detect(&roots).unified.unwrap();
    let mut locate = |shown: &str| v2.locate(&roots, shown);
    let scope = Some("machine.slice/a.scope".to_owned());
    assert_eq!(locate("/machine.slice/a.scope"), scope);
    assert_eq!(locate("/../../../machine.slice/a.scope"), scope);
    let pod = Some("kubepods.slice/burstable.slice/pod1/c".to_owned());
    assert_eq!(locate("/../../burstable.slice/pod1/c"), pod);
    assert_eq!(locate("/../../burstable.slice/pod1/c"), pod, "again");
    assert_eq!(locate("/../pod1/c"), pod);
    assert_eq!(locate("/../../gone"), None);
    assert_eq!(locate("/gone"), None);
    assert_eq!(locate("/"), Some(String::new()));
    assert_eq!(locate("/a/../../../etc"), None);
}

#[test]
fn unit_names_are_unescaped() {
    assert_eq!(
        unescape("machine-qemu\\x2d1\\x2dweb\\xc3\\xa9"),
        "machine-qemu-1-web\u{e9}"
    );
    assert_eq!(unescape("a\\x2"), "a\\x2");
    assert_eq!(unescape("a\\xzz"), "a\\xzz");
}

proptest! {
    #[test]
    fn text_without_backslash_stays(text in "[^\\\\]{0,30}") {
        prop_assert_eq!(unescape(&text), text);
    }

    #[test]
    fn no_path_leads_out_of_the_mount(shown in "(/|\\.\\.|\\.|a|b|:|\\PC){0,12}") {
        if let Some((_, rest)) = split_ups(&shown) {
            prop_assert!(!rest.starts_with('/'));
            prop_assert!(rest.split('/').all(|c| c != ".."));
        }
    }

    #[test]
    fn any_text_has_memberships(text in "(.|\n|:){0,60}") {
        prop_assert!(memberships(&text).count() <= text.lines().count());
    }
}
