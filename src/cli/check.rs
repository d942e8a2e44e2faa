//! `check`: what each source needs, whether it is there, and the exact command or setting that
//! would mend it. Exit status 0 says that the inventory and the scheduling source work.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::pipeline::Pipeline;
use super::{out, CommonArgs};
use crate::config::Config;
use crate::discover::Inventory;
use crate::host::privileges::{self, Capabilities, DescriptorLimit};
use crate::host::roots::Roots;
use crate::host::topology::{Topology, TopologyError};
use crate::sample::pmu::perf::Perf;
use crate::sample::{SourceInfo, SourceState};
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

mod probes;

/// Flags of `check`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct CheckArgs {
    /// One JSON object: usable, findings
    #[arg(long)]
    json: bool,
}

/// Whether a need is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It is.
    Ok,
    /// In part: the source delivers less.
    Degraded,
    /// It is not.
    Missing,
}

/// What was found about one need of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) source: &'static str,
    pub(super) need: &'static str,
    pub(super) state: State,
    /// What was seen.
    pub(super) detail: String,
    /// The exact command or setting that would mend it, if there is one.
    pub(super) fix: Option<String>,
}

impl Finding {
    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// A source's name and one thing it needs.
#[derive(Debug, Clone, Copy)]
struct Need(&'static str, &'static str);

impl Need {
    fn ok(self, detail: impl Into<String>) -> Finding {
        self.found(State::Ok, detail)
    }

    fn degraded(self, detail: impl Into<String>) -> Finding {
        self.found(State::Degraded, detail)
    }

    fn missing(self, detail: impl Into<String>) -> Finding {
        self.found(State::Missing, detail)
    }

    fn found(self, state: State, detail: impl Into<String>) -> Finding {
        Finding {
            source: self.0,
            need: self.1,
            state,
            detail: detail.into(),
            fix: None,
        }
    }
}

pub(super) fn run(common: &CommonArgs, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    // No logs: what they would say of each vCPU is said here once.
    let mut config = common.config()?;
    // It changes nothing on the host, least of all under an exporter that runs.
    config.sources.resctrl.create_groups = false;
    let roots = super::roots(&config.paths);
    super::hold_kernel_log(&config, &roots);
    // As `serve` does: what works only with more than it keeps does not work.
    privileges::drop_all_but(&privileges::needed(config.sources.pt.enabled));
    let topology = Topology::read(&roots, &Topology::default());
    let seen = look(&config, &roots);
    let mut findings = findings(&config, &roots, &topology, seen.as_deref());
    findings.extend(probes::otlp(&config));
    let usable = usable(&findings);
    match args.json {
        true => out::print_json(&serde_json::json!({ "usable": usable, "findings": findings }))?,
        false => out::print(&report(&findings, usable, out::width()))?,
    }
    Ok(match usable {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// One pass and one tick of the real pipeline; `None` without a topology, which is a finding.
fn look(config: &Config, roots: &Arc<Roots>) -> Option<Arc<Snapshot>> {
    let counters = Arc::new(Perf);
    let (telemetry, _) = Telemetry::new();
    let mut pipeline = Pipeline::new(config, roots.clone(), counters, 0, telemetry).ok()?;
    pipeline.pass();
    pipeline.tick();
    pipeline.snapshots().load()
}

/// Everything there is to say about this machine and process, source by source.
fn findings(
    config: &Config,
    roots: &Roots,
    topology: &Result<Topology, TopologyError>,
    seen: Option<&Snapshot>,
) -> Vec<Finding> {
    let caps = Capabilities::effective();
    let inventory = seen.map(|seen| &*seen.inventory);
    let vcpus = seen.map_or(0, |seen| seen.vcpus.len());
    let mut findings = vec![
        probes::topology(topology),
        probes::procfs(roots),
        probes::hidepid(roots, &caps),
        probes::kvm(roots),
        probes::kvm_debugfs(roots, &caps),
    ];
    findings.extend(seen.and_then(probes::unplaced));
    findings.extend(inventory.map(|inventory| found(inventory, vcpus)));
    let blind_spots = inventory.map_or(&[][..], |inventory| &inventory.blind_spots);
    if inventory.is_some() && blind_spots.is_empty() {
        findings.push(Need("inventory", "to see every VM").ok("every process was looked into"));
    }
    findings.extend(
        blind_spots
            .iter()
            .map(|line| probes::blind_spot(line, &caps)),
    );
    findings.push(probes::schedstat(roots));
    findings.push(probes::sched(roots));
    findings.push(probes::perf_events(roots, &caps));
    findings.push(probes::mediated_pmu(roots));
    findings.push(probes::descriptors(DescriptorLimit::now(), vcpus));
    findings.push(probes::tracefs(roots));
    let cpus = topology.as_ref().map_or(1, |topology| topology.cpus.len());
    findings.extend(probes::pt(roots, &config.sources.pt, &caps, cpus));
    let sources = seen.map_or(&[][..], |seen| &seen.sources);
    // The inventory's own word is its blind spots, above.
    let sources = sources.iter().filter(|row| row.info.name != "inventory");
    for row in sources {
        if !is_told(&row.state, row.info.name, &findings) {
            findings.push(of_source(&row.info, &row.state));
        }
    }
    // Stable: the findings of a source stay in their order.
    let order = ["host", "inventory", "sched", "pmu", "exits", "pt"];
    findings.sort_by_key(|finding| order.iter().position(|s| *s == finding.source).unwrap_or(9));
    findings
}

fn found(inventory: &Inventory, vcpus: usize) -> Finding {
    let detail = format!(
        "{}, {}",
        count(inventory.vms.len(), "VM"),
        count(vcpus, "vCPU")
    );
    Need("inventory", "VMs running now").ok(detail)
}

fn count(n: usize, thing: &str) -> String {
    match n {
        1 => format!("1 {thing}"),
        n if thing.ends_with('s') => format!("{n} {thing}es"),
        n => format!("{n} {thing}s"),
    }
}

/// Reasons of sources that a probe gives too, with what was seen.
const OF_PROBES: [&str; 10] = [
    "guest_not_visible",
    "mediated_vpmu",
    "no_descriptors",
    "no_kvm",
    "no_perf",
    "no_permission",
    "no_pt",
    "no_sched_file",
    "no_schedstat",
    "no_tracefs",
];

/// Whether what keeps a source from working is among the findings.
fn is_told(state: &SourceState, source: &str, findings: &[Finding]) -> bool {
    let (SourceState::Degraded(reason) | SourceState::Down(reason)) = state else {
        return false;
    };
    let unmet = |finding: &Finding| finding.source == source && finding.state != State::Ok;
    OF_PROBES.contains(&reason.code) && findings.iter().any(unmet)
}

/// A source's own word.
fn of_source(info: &SourceInfo, state: &SourceState) -> Finding {
    let (state, reason) = match state {
        SourceState::Up => (State::Ok, None),
        SourceState::Degraded(reason) => (State::Degraded, Some(reason)),
        SourceState::Down(reason) => (State::Missing, Some(reason)),
    };
    let detail = reason.map_or("works", |reason| &reason.detail);
    Finding {
        fix: reason.and_then(|reason| reason.fix.clone()),
        ..Need(info.name, info.needs).found(state, out::printable(detail))
    }
}

/// Without these the exporter has nothing to show; every other source may be missing.
const REQUIRED: [&str; 3] = ["host", "inventory", "sched"];

fn usable(findings: &[Finding]) -> bool {
    !findings.iter().any(blocks)
}

fn blocks(finding: &Finding) -> bool {
    finding.state == State::Missing && REQUIRED.contains(&finding.source)
}

/// A line for each finding, with its fix below it, broken to fit the terminal. A fix is never
/// broken, because it is there to be copied, and is told once.
fn report(findings: &[Finding], usable: bool, width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX);
    let mut text = format!("{:SOURCE$}{:STATE$}WHAT\n", "SOURCE", "STATE");
    let mut told: Vec<&str> = Vec::new();
    for finding in findings {
        let state = match finding.state {
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Missing => "missing",
        };
        let what = format!("{}: {}", finding.need, finding.detail);
        text += &format!("{:SOURCE$}{state:STATE$}", finding.source);
        text += &out::wrap(&out::printable(&what), width, SOURCE + STATE);
        text.push('\n');
        if let Some(fix) = &finding.fix {
            let again = told.contains(&fix.as_str());
            let fix = if again {
                "the same as above"
            } else {
                told.push(fix);
                fix
            };
            let fix = out::printable(fix);
            text += &format!("{:1$}fix: {fix}\n", "", SOURCE + STATE);
        }
    }
    let verdict = match usable {
        true => "usable: the inventory and the scheduling source work",
        false => "not usable: what is missing from host, inventory or sched must be there",
    };
    format!("{text}\n{verdict}\n")
}

/// Width of the first column: two more than `vulnerabilities`.
const SOURCE: usize = 17;

/// Width of the second: two more than `degraded`.
const STATE: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Reason;
    use expect_test::expect;

    fn finding(source: &'static str, state: State) -> Finding {
        Need(source, "something").found(state, "seen")
    }

    #[test]
    fn usable_is_host_inventory_and_sched() {
        for source in REQUIRED {
            assert!(usable(&[finding(source, State::Ok)]));
            assert!(usable(&[finding(source, State::Degraded)]));
            assert!(!usable(&[
                finding("pmu", State::Ok),
                finding(source, State::Missing)
            ]));
        }
        assert!(usable(&[
            finding("pmu", State::Missing),
            finding("debugfs", State::Missing)
        ]));
    }

    #[test]
    fn a_source_speaks_for_itself() {
        let info = SourceInfo {
            name: "pmu",
            needs: "CAP_PERFMON",
            cost: "",
        };
        let reason = Reason {
            code: "no_pmu",
            detail: "this machine has no PMU".to_owned(),
            fix: Some("expose a vPMU to this VM".to_owned()),
        };
        assert_eq!(of_source(&info, &SourceState::Up).state, State::Ok);
        let finding = of_source(&info, &SourceState::Down(reason));
        assert_eq!(finding.state, State::Missing);
        assert_eq!(finding.detail, "this machine has no PMU");
        assert_eq!(finding.fix.as_deref(), Some("expose a vPMU to this VM"));
    }

    #[test]
    fn what_a_probe_told_its_source_does_not_repeat() {
        let reason = |code| Reason {
            code,
            detail: "refused".to_owned(),
            fix: None,
        };
        let down = SourceState::Down(reason("no_permission"));
        assert!(is_told(&down, "pmu", &[finding("pmu", State::Missing)]));
        assert!(!is_told(&down, "pmu", &[finding("pmu", State::Ok)]));
        assert!(!is_told(&down, "pmu", &[finding("sched", State::Missing)]));
        let other = SourceState::Down(reason("no_pmu"));
        assert!(!is_told(&other, "pmu", &[finding("pmu", State::Missing)]));
        assert!(!is_told(
            &SourceState::Up,
            "pmu",
            &[finding("pmu", State::Missing)]
        ));
    }

    #[test]
    fn the_report_puts_the_fix_below_what_was_found() {
        let findings = [
            finding("host", State::Ok),
            finding("pmu", State::Missing).fix("sysctl kernel.perf_event_paranoid=1"),
            finding("tracefs", State::Missing).fix("sysctl kernel.perf_event_paranoid=1"),
        ];
        expect![[r#"
            SOURCE           STATE     WHAT
            host             ok        something: seen
            pmu              missing   something: seen
                                       fix: sysctl kernel.perf_event_paranoid=1
            tracefs          missing   something: seen
                                       fix: the same as above

            usable: the inventory and the scheduling source work
        "#]]
        .assert_eq(&report(&findings, true, Some(80)));
        let narrow = report(&findings, true, Some(39));
        assert!(
            narrow.contains("something:\n                           seen\n"),
            "{narrow}"
        );
        assert!(
            narrow.contains("fix: sysctl kernel.perf_event_paranoid=1\n"),
            "{narrow}"
        );
    }

    #[test]
    fn on_this_machine_every_need_is_looked_at() {
        let roots = Roots::default();
        let topology = Topology::read(&roots, &Topology::default());
        let findings = findings(&Config::default(), &roots, &topology, None);
        let text = report(&findings, usable(&findings), None);
        assert_eq!(text.matches("host ").count(), 1, "{text}");
        assert!(text.contains("kernel.perf_event_paranoid"), "{text}");
    }

    #[test]
    fn an_empty_tree_is_not_usable_and_every_need_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        let topology = Topology::read(&roots, &Topology::default());
        let findings = findings(&Config::default(), &roots, &topology, None);
        assert!(!usable(&findings));
        assert!(findings.iter().all(|finding| !finding.detail.is_empty()));
        let unmet = |finding: &&Finding| finding.state == State::Missing;
        assert!(findings
            .iter()
            .filter(unmet)
            .all(|finding| finding.fix.is_some()));
    }
}
