//! The `ksm` source: memory that the kernel merged (KSM, kernel samepage merging).
//!
//! - `kvm_host_ksm_bytes{state}`: merged memory, and memory that the kernel compares
//! - `kvm_host_ksm_full_scans_total`: passes of ksmd over all memory, since boot
//!
//! Merged pages of guests save memory and cost CPU time: ksmd compares, and a guest that writes to
//! a merged page waits for its copy. Documentation/admin-guide/mm/ksm.rst of the kernel describes
//! the files.

use crate::engine::total::Total;
use crate::engine::{Fact, Found, HostSource, Origin, Source, SourceInfo};
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "ksm":
    KSM = Metric::gauge("kvm_host_ksm_bytes", Keys::Host, &["state"],
        "Memory that KSM handles, of all processes, by state: shared (used by merged pages), saved (what merging saves), unshared (unique so far, but compared again and again), volatile (changes too fast to be merged)");
    FULL_SCANS = Metric::counter("kvm_host_ksm_full_scans_total", Keys::Host, &[],
        "Passes of ksmd over all memory that it may merge; how fast they follow each other tells how soon pages are merged");
}

/// States and their files.
const STATES: [(&str, &str); 4] = [
    ("shared", "pages_shared"),
    ("saved", "pages_sharing"),
    ("unshared", "pages_unshared"),
    ("volatile", "pages_volatile"),
];

/// Reads KSM's numbers.
#[derive(Default)]
struct Ksm {
    scans: Total,
}

impl HostSource for Ksm {
    fn read(&mut self, roots: &Roots, _topology: &Topology) -> Found {
        let dir = roots.sys.join("kernel/mm/ksm");
        let number = |file| -> Option<u64> { roots.read_text(&dir.join(file)).ok()?.parse().ok() };
        let page = rustix::param::page_size() as u64;
        let known = STATES.into_iter().filter_map(|(state, file)| {
            let bytes = number(file)?.saturating_mul(page);
            Some(Fact::int(&KSM, [("state", state.into())], bytes))
        });
        let mut facts: Vec<Fact> = known.collect();
        if let Some(scans) = number("full_scans") {
            let total = self.scans.advance(scans);
            facts.push(Fact::int(&FULL_SCANS, [], total).since(Origin::Boot));
        }
        facts.into()
    }
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "ksm",
        needs: "a kernel with KSM (CONFIG_KSM)",
        cost: "5 small files per period",
    },
    about: "Memory merged by KSM, every 15 s. All is 0 while KSM is off (`/sys/kernel/mm/ksm/run`). A guest's pages are merged only if its VMM allows it (QEMU's `-machine mem-merge=on`, the default).",
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().ksm, Ksm::default()),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::FactValue;

    #[test]
    fn pages_become_bytes_and_missing_files_are_absent() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        let ksm = roots.sys.join("kernel/mm/ksm");
        std::fs::create_dir_all(&ksm).unwrap();
        let mut source = Ksm::default();
        let mut read = || source.read(&roots, &Topology::default()).facts;
        assert!(read().is_empty());
        for (file, text) in [
            ("pages_shared", "3\n"),
            ("pages_sharing", "70\n"),
            ("pages_volatile", "?"),
            ("full_scans", "9\n"),
        ] {
            std::fs::write(ksm.join(file), text).unwrap();
        }
        let facts = read();
        let label = |fact: &Fact| fact.labels.first().map(|(_, state)| state.to_string());
        let values: Vec<_> = facts
            .iter()
            .map(|fact| (label(fact), &fact.value))
            .collect();
        let bytes = |pages: u64| FactValue::Int(pages * rustix::param::page_size() as u64);
        let state = |name: &str| Some(name.to_owned());
        let expected = [
            (state("shared"), &bytes(3)),
            (state("saved"), &bytes(70)),
            (None, &FactValue::Int(9)),
        ];
        assert_eq!(values, expected);
    }
}
