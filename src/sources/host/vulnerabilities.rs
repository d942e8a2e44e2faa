//! The `vulnerabilities` source: vulnerabilities of the CPU, and the kernel's mitigations.
//!
//! Feeds `kvm_host_vulnerability_info{vulnerability,state,detail}`, from `cpu/vulnerabilities`
//! (Documentation/admin-guide/hw-vuln). `state` is `not_affected`, `mitigated`, `vulnerable` or
//! `unknown`; `detail` is the rest of the kernel's text, which may name a part that is still
//! vulnerable.

use super::{label, unreadable};
use crate::engine::{Fact, Found, Source, SourceInfo};
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "vulnerabilities":
    VULNERABILITY_INFO = Metric::info("kvm_host_vulnerability_info", Keys::Host, &["vulnerability", "state", "detail"],
        "Vulnerabilities of the CPU; state is not_affected, mitigated, vulnerable or unknown");
}

/// Maximum number of files; Linux 6.18 has 19.
const MOST: usize = 128;

/// Reads cpu/vulnerabilities.
pub(super) fn read(roots: &Roots, _topology: &Topology) -> Found {
    let dir = roots.sys.join("devices/system/cpu/vulnerabilities");
    let mut names = match roots.list(&dir) {
        Ok(names) => names,
        Err(error) => return Found::nothing(unreadable(&dir, &error)),
    };
    names.sort_unstable();
    names.truncate(MOST);
    let one = |name: &String| -> Option<Fact> {
        let text = roots.read_text(&dir.join(name)).ok()?;
        let (state, detail) = parse(&text);
        let labels = [
            ("vulnerability", label(name).into()),
            ("state", state.into()),
            ("detail", label(detail).into()),
        ];
        Some(Fact::int(&VULNERABILITY_INFO, labels, 1))
    };
    names.iter().filter_map(one).collect::<Vec<_>>().into()
}

/// State and detail. The kernel's texts start with fixed words (arch/x86/kernel/cpu/bugs.c);
/// `itlb_multihit` puts `KVM: ` before them.
fn parse(text: &str) -> (&'static str, &str) {
    let text = text.strip_prefix("KVM: ").unwrap_or(text);
    let words = [
        ("Not affected", "not_affected"),
        ("Mitigation", "mitigated"),
        ("Vulnerable", "vulnerable"),
        ("Processor vulnerable", "vulnerable"),
    ];
    let found = words.iter().find_map(|(word, state)| {
        let detail = text.strip_prefix(word)?;
        Some((*state, detail.trim_start_matches([':', ';', ',', ' '])))
    });
    let unknown = || text.strip_prefix("Unknown: ").unwrap_or(text);
    found.unwrap_or_else(|| ("unknown", unknown()))
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "vulnerabilities",
        needs: "cpu/vulnerabilities in sysfs (Linux 4.15)",
        cost: "about 20 small files per period",
    },
    about: "Vulnerabilities of the CPU, and the kernel's mitigations, every 10 min.",
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().vulnerabilities, read),
};

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_first_words_are_the_state() {
        for (text, expected) in [
            ("Not affected", ("not_affected", "")),
            ("Vulnerable", ("vulnerable", "")),
            (
                "Vulnerable: Safe RET, no microcode",
                ("vulnerable", "Safe RET, no microcode"),
            ),
            (
                "Mitigation: PTE Inversion; VMX: cache flushes, SMT vulnerable",
                (
                    "mitigated",
                    "PTE Inversion; VMX: cache flushes, SMT vulnerable",
                ),
            ),
            (
                "KVM: Mitigation: Split huge pages",
                ("mitigated", "Split huge pages"),
            ),
            ("Processor vulnerable", ("vulnerable", "")),
            ("Unknown: No mitigations", ("unknown", "No mitigations")),
            ("what", ("unknown", "what")),
            ("", ("unknown", "")),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
