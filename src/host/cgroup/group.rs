//! Files of one group. Each read opens its file: a descriptor kept open would save 2 of 5 µs per
//! read, but thousands of descriptors would be needed for files read every 15 s.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::files::{self, Pressure, Quota, Throttling};
use super::Version;
use crate::host::cpulist;
use crate::host::label::label_values;
use crate::host::memory::numa::{self, NumaStat};
use crate::host::memory::Nodes;
use crate::host::roots::Roots;

/// One group of a hierarchy. `None` means that the controller is off or the group is gone. Errors
/// are files that cannot be read or have an unexpected format.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    roots: &'a Roots,
    version: Version,
    dir: PathBuf,
}

label_values! {
    /// A resource that tasks can wait for. Its label is also the word in file names.
    pub(crate) enum Resource {
        Cpu = "cpu",
        Memory = "memory",
        Io = "io",
    }
}

impl<'a> Group<'a> {
    pub(super) fn new(roots: &'a Roots, version: Version, dir: PathBuf) -> Self {
        Self {
            roots,
            version,
            dir,
        }
    }

    /// Inode number of the group. Distinguishes it from an earlier group of the same path: cgroup
    /// inode numbers are not reused (fs/kernfs/dir.c, `kernfs_new_node`).
    pub(crate) fn inode(&self) -> io::Result<Option<u64>> {
        absent(std::fs::metadata(&self.dir)).map(|data| data.map(|data| data.ino()))
    }

    /// The CPU quota set on this group, not on parents or children.
    pub(crate) fn quota(&self) -> io::Result<Option<Quota>> {
        let quota = match self.version {
            Version::V2 => self.parse("cpu.max", files::cpu_max)?,
            Version::V1 => {
                let period = || self.parse("cpu.cfs_period_us", files::cfs_period).ok()?;
                self.parse("cpu.cfs_quota_us", |text| files::cfs_quota(text, period))?
            }
        };
        Ok(quota.flatten())
    }

    /// Throttling by the quota; `None` also if the group never had a quota.
    pub(crate) fn throttling(&self) -> io::Result<Option<Throttling>> {
        let text = self.text("cpu.stat")?;
        // In v2 every group has the file, without these lines if the controller is off.
        Ok(text.as_deref().and_then(files::cpu_stat))
    }

    /// Share of CPU time relative to siblings, in v2's scale.
    pub(crate) fn weight(&self) -> io::Result<Option<u64>> {
        match self.version {
            Version::V2 => self.parse("cpu.weight", files::weight),
            Version::V1 => self.parse("cpu.shares", files::weight_of_shares),
        }
    }

    /// Number of online CPUs that the group may use.
    pub(crate) fn cpuset_cpus(&self) -> io::Result<Option<u64>> {
        let file = match self.version {
            Version::V2 => "cpuset.cpus.effective",
            Version::V1 => "cpuset.effective_cpus",
        };
        let count = |text: &str| cpulist::parse(text).map(|cpus| cpus.len() as u64);
        self.parse(file, count)
    }

    /// Time lost waiting for a resource; v2 only.
    pub(crate) fn pressure(&self, resource: Resource) -> io::Result<Option<Pressure>> {
        match self.version {
            Version::V1 => Ok(None),
            Version::V2 => self.parse(&format!("{}.pressure", resource.label()), files::pressure),
        }
    }

    /// NUMA balancing of the group and its children (see [`files::numa_balancing`]); v2 only. The
    /// inner `None` means that the kernel does not count it.
    pub(crate) fn numa_balancing(&self) -> io::Result<Option<Option<[u64; 3]>>> {
        match self.version {
            Version::V1 => Ok(None),
            Version::V2 => {
                let text = self.text("memory.stat")?;
                Ok(text.map(|text| files::numa_balancing(&text)))
            }
        }
    }

    /// Memory by node and kind, including children; v2 only, and not for a threaded group.
    pub(crate) fn numa_stat(&self) -> io::Result<Option<NumaStat>> {
        match self.version {
            Version::V1 => Ok(None),
            Version::V2 => self.parse("memory.numa_stat", |text| {
                numa::parse_numa_stat(text.as_bytes())
            }),
        }
    }

    /// hugetlbfs pages by page size (bytes) and node; empty if the controller is off.
    pub(crate) fn hugetlb(&self) -> io::Result<Vec<(u64, Nodes)>> {
        let mut found = Vec::new();
        for name in self.roots.list(&self.dir)? {
            if let Some(size) = numa::hugetlb_page_size(&name) {
                let parse = |text: &str| numa::parse_hugetlb_numa_stat(text.as_bytes());
                found.extend(self.parse(&name, parse)?.map(|nodes| (size, nodes)));
            }
        }
        Ok(found)
    }

    fn parse<T>(&self, file: &str, parse: impl Fn(&str) -> Option<T>) -> io::Result<Option<T>> {
        let Some(text) = self.text(file)? else {
            return Ok(None);
        };
        let odd = || self.error(file, &io::Error::from(io::ErrorKind::InvalidData));
        parse(&text).map(Some).ok_or_else(odd)
    }

    fn text(&self, file: &str) -> io::Result<Option<String>> {
        absent(self.roots.read_text(&self.dir.join(file))).map_err(|error| self.error(file, &error))
    }

    fn error(&self, file: &str, error: &io::Error) -> io::Error {
        let path = self.dir.join(file);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    }
}

/// A disabled pressure file (`cgroup.pressure`) returns `EOPNOTSUPP`.
fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENOTDIR | libc::EOPNOTSUPP) => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::FakeHost;

    /// A group `g` with these files.
    fn host(files: &[(&str, &str)]) -> FakeHost {
        let host = FakeHost::new();
        for (file, text) in files {
            host.file(format!("g/{file}"), text);
        }
        host
    }

    fn reported(host: &FakeHost, version: Version) -> [Option<u64>; 5] {
        let roots = Roots::below(host.root());
        let group = Group::new(&roots, version, host.path("g"));
        [
            group.quota().unwrap().map(|q| q.quota),
            group.throttling().unwrap().map(|t| t.periods),
            group.weight().unwrap(),
            group.cpuset_cpus().unwrap(),
            group.pressure(Resource::Io).unwrap().map(|p| p.some),
        ]
    }

    #[test]
    fn each_version_has_its_files() {
        let pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let v2 = host(&[
            ("cpu.max", "50000 100000\n"),
            (
                "cpu.stat",
                "nr_periods 3\nnr_throttled 2\nthrottled_usec 1\n",
            ),
            ("cpu.weight", "200\n"),
            ("cpuset.cpus.effective", "0-3\n"),
            ("io.pressure", pressure),
        ]);
        let all = [Some(50_000), Some(3), Some(200), Some(4), Some(7000)];
        assert_eq!(reported(&v2, Version::V2), all);
        let v1 = host(&[
            ("cpu.cfs_quota_us", "20000\n"),
            ("cpu.cfs_period_us", "100000\n"),
            (
                "cpu.stat",
                "nr_periods 4\nnr_throttled 2\nthrottled_time 1\n",
            ),
            ("cpu.shares", "512\n"),
            ("cpuset.effective_cpus", "1\n"),
        ]);
        let all = [Some(20_000), Some(4), Some(50), Some(1), None];
        assert_eq!(reported(&v1, Version::V1), all);
        assert_eq!(reported(&host(&[]), Version::V2), [None; 5]);
        assert_eq!(reported(&host(&[]), Version::V1), [None; 5]);
    }

    #[test]
    fn a_file_of_another_form_is_an_error_that_names_it() {
        let host = host(&[("cpu.max", "much"), ("cpu.weight/x", "")]);
        let roots = Roots::below(host.root());
        let group = Group::new(&roots, Version::V2, host.path("g"));
        let odd = group.quota().unwrap_err().to_string();
        assert!(odd.contains("g/cpu.max: "), "{odd}");
        assert!(group.weight().is_err());
        assert!(group.inode().unwrap().is_some());
        let gone = Group::new(&roots, Version::V2, host.path("gone"));
        assert_eq!(gone.inode().unwrap(), None);
    }
}
