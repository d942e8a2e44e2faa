//! Cgroups v1 and v2: the groups of a process ([`Membership`]), the mounted hierarchies
//! ([`Mounts`]) and the files of a group ([`Group`]).
//!
//! A host has one hierarchy (v2), one per set of controllers (v1), or v1 hierarchies plus a v2
//! hierarchy without their controllers (hybrid): cgroups(7),
//! Documentation/admin-guide/cgroup-v2.rst.

use std::collections::HashMap;
use std::path::PathBuf;

use super::roots::Roots;

pub(crate) mod files;
mod group;

pub(crate) use group::{Group, Resource};

/// One line of /proc/PID/cgroup: the group of the process in one hierarchy (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership<'a> {
    /// Comma-separated controllers of a v1 hierarchy; empty for v2.
    pub controllers: &'a str,
    /// Absolute path of the group in the cgroup namespace of the reader.
    pub path: &'a str,
}

/// Parses the `id:controllers:path` lines of /proc/PID/cgroup; other lines are skipped.
pub(crate) fn memberships(text: &str) -> impl Iterator<Item = Membership<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some(Membership {
            controllers: fields.next()?,
            path: fields.next()?,
        })
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The mounted hierarchies that are used for VMs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    /// Hierarchy with the `cpu` controller.
    pub cpu: Option<Hierarchy>,
    /// Hierarchy with the `cpuset` controller.
    pub cpuset: Option<Hierarchy>,
    /// The v2 hierarchy, with or without controllers: the only one with pressure.
    pub unified: Option<Hierarchy>,
}

impl Mounts {
    /// Finds the hierarchies below the cgroup root: the v2 hierarchy itself, or a directory per v1
    /// hierarchy and `unified` for v2, as systemd mounts them.
    pub(crate) fn detect(roots: &Roots) -> Self {
        let v2 = |dir: PathBuf| {
            let found = dir.join("cgroup.controllers").exists();
            found.then(|| Hierarchy::new(dir, Version::V2, ""))
        };
        if let Some(only) = v2(roots.cgroup.clone()) {
            return Self {
                cpu: Some(only.clone()),
                cpuset: Some(only.clone()),
                unified: Some(only),
            };
        }
        let unified = v2(roots.cgroup.join("unified"));
        let v1 = |controller: &'static str, names: &[&str]| {
            let mut dirs = names.iter().map(|name| roots.cgroup.join(name));
            let found = dirs.find(|dir| dir.is_dir());
            let v1 = found.map(|dir| Hierarchy::new(dir, Version::V1, controller));
            v1.or_else(|| unified.clone())
        };
        Self {
            cpu: v1("cpu", &["cpu", "cpu,cpuacct", "cpuacct,cpu"]),
            cpuset: v1("cpuset", &["cpuset"]),
            unified,
        }
    }
}

/// Most directories to search for the start of a path that a container's namespace hides.
const MAX_SEARCHED: usize = 500;

/// Deepest level of that start: a Kubernetes pod on a systemd host is at level 3.
const MAX_SEARCH_DEPTH: usize = 3;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    root: PathBuf,
    version: Version,
    /// v1: the controller that the hierarchy was found by.
    controller: &'static str,
    /// Start of paths with this many leading `..`, once found.
    starts: HashMap<usize, String>,
}

impl Hierarchy {
    fn new(root: PathBuf, version: Version, controller: &'static str) -> Self {
        Self {
            root,
            version,
            controller,
            starts: HashMap::new(),
        }
    }

    /// Version of the hierarchy.
    #[cfg(test)]
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// A group returned by [`Hierarchy::locate`], or one above or below it.
    pub(crate) fn group<'a>(&self, roots: &'a Roots, path: &str) -> Group<'a> {
        Group::new(roots, self.version, self.root.join(path))
    }

    /// The path in this hierarchy, from the text of /proc/PID/cgroup.
    pub(crate) fn shown<'a>(&self, text: &'a str) -> Option<&'a str> {
        let is_this = |m: &Membership<'_>| match self.version {
            Version::V2 => m.controllers.is_empty(),
            Version::V1 => m.controllers.split(',').any(|c| c == self.controller),
        };
        memberships(text).find(is_this).map(|m| m.path)
    }

    /// The group of a path in /proc/PID/cgroup, relative to the hierarchy's root (the empty path);
    /// `None` if it is not below this mount.
    ///
    /// In a cgroup namespace the kernel shows groups outside of it with leading `..`
    /// (cgroup_namespaces(7)), without saying where these lead. Therefore the rest of the path is
    /// searched below the root and below the groups near it; the result applies to all such paths.
    pub(crate) fn locate(&mut self, roots: &Roots, shown: &str) -> Option<String> {
        let (ups, rest) = split_ups(shown)?;
        let start = self.starts.get(&ups).map_or("", String::as_str);
        let group = join(start, &rest);
        if self.has(&group) {
            return Some(group);
        }
        // Without `..` the path is complete: the group is gone, or another hierarchy is mounted
        // here.
        if ups == 0 || rest.is_empty() {
            return None;
        }
        let start = self.search(roots, &rest)?;
        let group = join(&start, &rest);
        self.starts.insert(ups, start);
        Some(group)
    }

    fn has(&self, group: &str) -> bool {
        self.root.join(group).is_dir()
    }

    /// The group nearest to the root that contains `rest`.
    fn search(&self, roots: &Roots, rest: &str) -> Option<String> {
        let mut level = vec![String::new()];
        let mut searched = 0;
        for _ in 0..MAX_SEARCH_DEPTH {
            let mut below = Vec::new();
            for dir in level {
                searched += 1;
                if searched > MAX_SEARCHED {
                    return None;
                }
                let names = roots.list(&self.root.join(&dir)).unwrap_or_default();
                let children = names.iter().map(|name| join(&dir, name));
                below.extend(children.filter(|child| self.has(child)));
            }
            let found = below.iter().find(|start| self.has(&join(start, rest)));
            if let Some(start) = found {
                return Some(start.clone());
            }
            level = below;
        }
        None
    }
}

/// The number of leading `..`, and the rest without slashes at its ends. `None` for a path with a
/// later `..`, which the kernel never shows.
fn split_ups(shown: &str) -> Option<(usize, String)> {
    let all: Vec<&str> = shown.split('/').filter(|c| !c.is_empty()).collect();
    let ups = all.iter().take_while(|c| **c == "..").count();
    let rest = all.get(ups..).unwrap_or_default();
    let plain = rest
        .iter()
        .all(|c| *c != ".." && *c != "." && !c.contains('\0'));
    plain.then(|| (ups, rest.join("/")))
}

fn join(start: &str, rest: &str) -> String {
    match (start, rest) {
        ("", path) | (path, "") => path.to_owned(),
        (start, rest) => format!("{start}/{rest}"),
    }
}

/// The components of a path, outermost first, without the `/..` of a path outside of the cgroup
/// namespace.
pub(crate) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|c| !c.is_empty() && *c != "..")
}

/// UID of the login session that a group belongs to: `/user.slice/user-UID.slice/…`
/// (systemd.special(7)). Only the outermost components count because only root creates them; users
/// create groups of any name below.
pub(crate) fn session_user(path: &str) -> Option<u32> {
    let mut components = components(path);
    let slice = components.next().filter(|top| *top == "user.slice");
    let user = slice.and(components.next())?.strip_prefix("user-")?;
    user.strip_suffix(".slice")?.parse().ok()
}

/// Resolves `\xNN` (systemd.unit(5), "String escaping for inclusion in unit names").
pub(crate) fn unescape(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match escaped(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into()
}

/// The byte of a leading `\xNN`.
fn escaped(text: &[u8]) -> Option<u8> {
    let hex = text.strip_prefix(b"\\x")?.get(..2)?;
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(hex[0])? * 16 + digit(hex[1])?).ok()
}

#[cfg(test)]
mod tests;
