//! Finds a VM's groups in a hierarchy by the location of its threads, not by a manager's naming.
//!
//! The main thread and the vCPUs have one deepest group in common. Groups below it that a manager
//! creates (libvirt: `emulator`, `vcpu0`, …) hold vCPUs; groups above it may hold other VMs too.
//! So the same rule fits a plain scope, a pod and a libvirt machine.

use crate::host::cgroup::Hierarchy;

/// Maximum number of groups read above a VM, and below it around a vCPU; Kubernetes on systemd has
/// four. Users may nest their own groups as deep as the path length allows.
const MAX_DEPTH: usize = 32;

/// A hierarchy, and the VM's groups in it.
pub(super) type LocatedVm = Option<(Hierarchy, Levels)>;

/// The groups of one VM in one hierarchy, as paths relative to its root. The root is never
/// included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Levels {
    /// Groups above the VM's own, innermost first.
    pub(super) above: Vec<String>,
    /// The VM's own group, and an inner one that holds the same threads, if any.
    pub(super) own: Vec<String>,
    /// Groups that hold only vCPU threads.
    pub(super) branches: Vec<Branch>,
}

/// A group that holds some of the vCPU threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Branch {
    /// The group and those between it and the VM's own, outermost first.
    pub(super) groups: Vec<String>,
    /// Number of vCPU threads in it.
    pub(super) threads: usize,
}

impl Levels {
    /// The levels of a VM whose threads have these paths in /proc. `locate` maps such a path to a
    /// group, and is called for the deepest common one.
    pub(super) fn find(
        main: &str,
        vcpus: &[&str],
        locate: impl FnOnce(&str) -> Option<String>,
    ) -> Option<Self> {
        let main = components(main);
        let vcpus: Vec<Vec<&str>> = vcpus.iter().map(|path| components(path)).collect();
        let common = vcpus
            .iter()
            .fold(main.len(), |length, path| length.min(same(&main, path)));
        let group = locate(&main[..common].join("/"))?;
        let mut own: Vec<String> = ancestors(&group).take(MAX_DEPTH).collect();
        let above = own.split_off(own_length(&own));
        own.reverse();
        let mut levels = Self {
            above,
            own,
            branches: Vec::new(),
        };
        for path in vcpus.iter().filter(|path| path.len() > common) {
            levels.add(branch(&group, &path[common..]));
        }
        Some(levels)
    }

    /// The group that represents the VM among its siblings.
    pub(super) fn vm(&self) -> Option<&str> {
        self.own.first().map(String::as_str)
    }

    fn add(&mut self, groups: Vec<String>) {
        match self.branches.iter_mut().find(|b| b.groups == groups) {
            Some(branch) => branch.threads += 1,
            None => self.branches.push(Branch { groups, threads: 1 }),
        }
    }
}

fn components(path: &str) -> Vec<&str> {
    path.split('/').filter(|c| !c.is_empty()).collect()
}

/// Number of leading components that two paths share.
fn same(a: &[&str], b: &[&str]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The group and those above it, innermost first, without the root.
fn ancestors(group: &str) -> impl Iterator<Item = String> + '_ {
    let group = Some(group).filter(|group| !group.is_empty());
    let all = std::iter::successors(group, |group| Some(group.rsplit_once('/')?.0));
    all.map(str::to_owned)
}

/// How many of these groups, innermost first, are the VM's own. libvirt keeps a machine's groups
/// in one named `libvirt` inside the scope, because systemd owns the scope. Weight is set on the
/// scope, quota on the inner group (src/util/vircgroup.c, `virCgroupNewMachineSystemd`).
fn own_length(groups: &[String]) -> usize {
    match groups {
        [inner, scope, ..] if *inner == format!("{scope}/libvirt") && scope.ends_with(".scope") => {
            2
        }
        [] => 0,
        _ => 1,
    }
}

fn branch(group: &str, below: &[&str]) -> Vec<String> {
    let mut path = group.to_owned();
    let step = |name: &&str| {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(name);
        path.clone()
    };
    below.iter().take(MAX_DEPTH).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns `above | own | branches`, with the number of threads of each branch.
    fn levels(main: &str, vcpus: &[&str]) -> String {
        let here = |shown: &str| Some(shown.to_owned());
        let levels = Levels::find(main, vcpus, here).unwrap();
        let branches: Vec<String> = levels
            .branches
            .iter()
            .map(|b| format!("{}×{}", b.groups.join(" "), b.threads))
            .collect();
        let (above, own) = (levels.above.join(" "), levels.own.join(" "));
        format!("{above} | {own} | {}", branches.join(" "))
    }

    #[test]
    fn libvirt_has_groups_for_vcpus() {
        assert_eq!(
            levels(
                "/machine/q/emulator",
                &["/machine/q/vcpu0", "/machine/q/vcpu1"]
            ),
            "machine | machine/q | machine/q/vcpu0×1 machine/q/vcpu1×1"
        );
        assert_eq!(
            levels(
                "/m.slice/q.scope/libvirt/emulator",
                &["/m.slice/q.scope/libvirt/vcpu0"]
            ),
            "m.slice | m.slice/q.scope m.slice/q.scope/libvirt | m.slice/q.scope/libvirt/vcpu0×1"
        );
        assert_eq!(levels("/a/libvirt", &[]), "a | a/libvirt | ");
    }

    #[test]
    fn others_have_one_group_for_all_threads() {
        let pod = "/kubepods/burstable/podx/c";
        assert_eq!(
            levels(pod, &[pod, pod]),
            "kubepods/burstable/podx kubepods/burstable kubepods | kubepods/burstable/podx/c | "
        );
        // KubeVirt moves the emulator threads away from dedicated CPUs.
        assert_eq!(levels("/c/housekeeping", &["/c", "/c"]), " | c | ");
    }

    #[test]
    fn root_is_no_level() {
        assert_eq!(levels("/", &["/", "/"]), " |  | ");
        assert_eq!(levels("/", &["/a/b", "/a/b", "/c"]), " |  | a a/b×2 c×1");
    }

    #[test]
    fn located_path_includes_hidden_parents() {
        let locate = |shown: &str| {
            assert_eq!(shown, "../../m/q");
            Some("m/q".to_owned())
        };
        let found = Levels::find("/../../m/q/emulator", &["/../../m/q/vcpu0"], locate).unwrap();
        assert_eq!(found.branches[0].groups, ["m/q/vcpu0"]);
        assert_eq!(Levels::find("/a", &[], |_| None), None);
    }

    proptest! {
        #[test]
        fn every_vcpu_is_in_the_vms_own_group_or_below(
            main in "(/(a|b|libvirt|c\\.scope)){0,5}",
            vcpus in prop::collection::vec("(/(a|b|libvirt|c\\.scope)){0,5}", 0..5),
        ) {
            let vcpus: Vec<&str> = vcpus.iter().map(String::as_str).collect();
            let found = Levels::find(&main, &vcpus, |shown| Some(shown.to_owned())).unwrap();
            let threads: usize = found.branches.iter().map(|b| b.threads).sum();
            prop_assert!(threads <= vcpus.len());
            for path in vcpus.iter().chain([&&*main]) {
                let path = path.trim_start_matches('/');
                prop_assert!(found.vm().is_none_or(|vm| path.starts_with(vm)));
            }
        }
    }
}
