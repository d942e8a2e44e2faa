//! `check`: whether each source works, why not, and the command or setting that fixes it. Exit
//! status 0: the sources host, inventory and sched work.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::out::{self, count};
use super::pipeline::Pipeline;
use super::CommonArgs;
use crate::config::Config;
use crate::discover::Inventory;
use crate::engine::{ReasonCode, SourceInfo, SourceState};
use crate::host::privileges::{self, Capabilities, DescriptorLimit};
use crate::host::roots::Roots;
use crate::host::topology::{Topology, TopologyError};
use crate::snapshot::Snapshot;
use crate::sources::pmu::perf::Perf;
use crate::telemetry::Telemetry;

mod probes;

/// Flags of `check`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct CheckArgs {
    /// Print one JSON object: usable, findings
    #[arg(long)]
    json: bool,
}

/// Whether a requirement is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It is met.
    Ok,
    /// It is met in part: the source delivers less.
    Degraded,
    /// It is not met.
    Missing,
    /// This machine does not have it, and needs no fix.
    Absent,
    /// The configuration disables it.
    Off,
}

/// The result for one requirement of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) source: &'static str,
    pub(super) need: &'static str,
    /// Whether `need` lists all requirements of a source, which is too long for a line.
    #[serde(skip)]
    pub(super) is_whole: bool,
    pub(super) state: State,
    /// What the probe found.
    pub(super) detail: String,
    /// The command or setting that fixes it, if there is one.
    pub(super) fix: Option<String>,
}

impl Finding {
    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// A source's name and one of its requirements.
#[derive(Debug, Clone, Copy)]
struct Need(&'static str, &'static str);

impl Need {
    fn ok(self, detail: impl Into<String>) -> Finding {
        self.found(State::Ok, detail)
    }

    fn degraded(self, detail: impl Into<String>) -> Finding {
        self.found(State::Degraded, detail)
    }

    fn absent(self, detail: impl Into<String>) -> Finding {
        self.found(State::Absent, detail)
    }

    fn missing(self, detail: impl Into<String>) -> Finding {
        self.found(State::Missing, detail)
    }

    fn found(self, state: State, detail: impl Into<String>) -> Finding {
        Finding {
            source: self.0,
            need: self.1,
            is_whole: false,
            state,
            detail: detail.into(),
            fix: None,
        }
    }
}

pub(super) fn run(common: &CommonArgs, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    // No logs: they would repeat the findings below for each vCPU.
    let mut config = common.config()?;
    // `check` changes nothing on the host, least of all beside a running exporter.
    config.sources.resctrl.create_groups = false;
    let roots = super::roots(&config.paths);
    super::hold_kernel_log(&config, &roots);
    // Drop the capabilities that `serve` drops, so that the findings hold for `serve`.
    privileges::drop_all_but(&privileges::needed(config.sources.pt.enabled));
    let topology = Topology::read(&roots, &Topology::default());
    let seen = sample(&config, &roots);
    let mut findings = findings(&config, &roots, &topology, seen.as_deref());
    findings.extend(probes::otlp(&config));
    let usable = usable(&findings);
    if args.json {
        out::print_json(&serde_json::json!({ "usable": usable, "findings": findings }))?
    } else {
        out::print(&report(&findings, usable, out::width()))?
    }
    Ok(ExitCode::from(u8::from(!usable)))
}

/// One pass and one tick of the real pipeline; `None` without a topology, which is a finding.
fn sample(config: &Config, roots: &Arc<Roots>) -> Option<Arc<Snapshot>> {
    let counters = Arc::new(Perf);
    let (telemetry, _) = Telemetry::new();
    let mut pipeline = Pipeline::new(config, roots.clone(), counters, 0, telemetry).ok()?;
    pipeline.pass();
    pipeline.tick();
    pipeline.snapshots().load()
}

/// All findings about this machine and this process, ordered by source.
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
    let visibility_gaps = inventory.map_or(&[][..], |inventory| &inventory.visibility_gaps);
    if inventory.is_some() && visibility_gaps.is_empty() {
        findings.push(Need("inventory", "every VM is visible").ok("yes"));
    }
    let gaps = visibility_gaps.iter();
    findings.extend(gaps.map(|gap| probes::blind_spot(gap, &caps)));
    findings.extend([
        probes::schedstat(roots),
        probes::sched(roots),
        probes::perf_events(roots, &caps),
        probes::mediated_pmu(roots),
        probes::descriptors(DescriptorLimit::now(), vcpus),
        probes::tracefs(roots),
    ]);
    let cpus = topology.as_ref().map_or(1, |topology| topology.cpus.len());
    findings.extend(probes::pt(roots, &config.sources.pt, &caps, cpus));
    let sources = seen.map_or(&[][..], |seen| &seen.sources);
    // Findings about the inventory's visibility gaps are above.
    let sources = sources.iter().filter(|row| row.info.name != "inventory");
    for row in sources {
        if !is_reported(&row.state, row.info.name, &findings) {
            findings.push(of_source(&row.info, &row.state));
        }
    }
    // The sort is stable: findings of one source keep their order.
    let order = ["host", "inventory", "sched", "pmu", "exits", "pt"];
    findings.sort_by_key(|finding| order.iter().position(|s| *s == finding.source).unwrap_or(9));
    findings
}

fn found(inventory: &Inventory, vcpus: usize) -> Finding {
    let (vms, vcpus) = (count(inventory.vms.len(), "VM"), count(vcpus, "vCPU"));
    Need("inventory", "running now").ok(format!("{vms}, {vcpus}"))
}

/// Reasons that a probe reports too, with more detail.
const OF_PROBES: [ReasonCode; 10] = [
    ReasonCode::GuestNotVisible,
    ReasonCode::MediatedVpmu,
    ReasonCode::NoDescriptors,
    ReasonCode::NoKvm,
    ReasonCode::NoPerf,
    ReasonCode::NoPermission,
    ReasonCode::NoPt,
    ReasonCode::NoSchedFile,
    ReasonCode::NoSchedstat,
    ReasonCode::NoTracefs,
];

/// Whether the findings already contain the reason why a source does not work. For a disabled
/// source, that is a finding that the machine does not have the hardware: enabling it would not
/// help.
fn is_reported(state: &SourceState, source: &str, findings: &[Finding]) -> bool {
    let Some(reason) = state.reason() else {
        return false;
    };
    let mut of_source = findings.iter().filter(|finding| finding.source == source);
    match reason.code {
        ReasonCode::Disabled => of_source.any(|finding| finding.state == State::Absent),
        code if OF_PROBES.contains(&code) => of_source.any(|finding| finding.state != State::Ok),
        _ => false,
    }
}

/// The state that a source reports itself.
fn of_source(info: &SourceInfo, state: &SourceState) -> Finding {
    let reason = state.reason();
    let state = match (state, reason.map(|reason| reason.code)) {
        (SourceState::Up, _) => State::Ok,
        (SourceState::Down(_), Some(ReasonCode::Disabled)) => State::Off,
        (_, Some(code)) if code.is_absent() => State::Absent,
        (SourceState::Degraded(_), _) => State::Degraded,
        (SourceState::Down(_), _) => State::Missing,
    };
    let detail = reason.map_or("works", |reason| &reason.detail);
    Finding {
        fix: reason.and_then(|reason| reason.fix.clone()),
        is_whole: true,
        ..Need(info.name, info.needs).found(state, out::printable(detail))
    }
}

/// Sources without which the exporter has nothing to show.
const REQUIRED: [&str; 3] = ["host", "inventory", "sched"];

fn usable(findings: &[Finding]) -> bool {
    let mut required = findings.iter().filter(|one| REQUIRED.contains(&one.source));
    required.all(|one| one.state != State::Missing)
}

/// One line for each finding, wrapped to the width of the terminal, with its fix below. A fix is
/// not wrapped, because users copy it. A repeated fix is printed once.
fn report(findings: &[Finding], usable: bool, width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX);
    let mut text = format!("{:SOURCE$}{:STATE$}WHAT\n", "SOURCE", "STATE");
    let mut fixes: Vec<&str> = Vec::new();
    for finding in findings {
        let state = match finding.state {
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Missing => "missing",
            State::Absent => "absent",
            State::Off => "off",
        };
        let what = match (finding.state, finding.is_whole) {
            (State::Absent, _) => format!("not available on this machine: {}", finding.detail),
            (_, true) => finding.detail.clone(),
            (_, false) => format!("{}: {}", finding.need, finding.detail),
        };
        text += &format!("{:SOURCE$}{state:STATE$}", finding.source);
        text += &out::wrap(&out::printable(&what), width, SOURCE + STATE);
        text.push('\n');
        if let Some(fix) = &finding.fix {
            let fix = if fixes.contains(&fix.as_str()) {
                "the same as above"
            } else {
                fixes.push(fix);
                fix
            };
            let fix = out::printable(fix);
            text += &format!("{:1$}fix: {fix}\n", "", SOURCE + STATE);
        }
    }
    let verdict = if usable {
        "usable: the sources host, inventory and sched work"
    } else {
        "not usable: fix what is missing for host, inventory and sched"
    };
    format!("{text}\n{verdict}\n")
}

/// Width of the first column: two more than `vulnerabilities`, the longest name.
const SOURCE: usize = 17;

/// Width of the second column: two more than `degraded`.
const STATE: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
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
    fn source_state_becomes_a_finding() {
        let reason = ReasonCode::NoPmu
            .reason("this machine has no PMU")
            .with_fix("expose a vPMU to this VM");
        assert_eq!(of_source(&PMU, &SourceState::Up).state, State::Ok);
        let finding = of_source(&PMU, &SourceState::Down(reason));
        assert_eq!(finding.state, State::Absent);
        assert_eq!(finding.detail, "this machine has no PMU");
        assert_eq!(finding.fix.as_deref(), Some("expose a vPMU to this VM"));
    }

    #[test]
    fn a_source_does_not_repeat_its_probe() {
        let reason = |code: ReasonCode| code.reason("refused");
        let down = SourceState::Down(reason(ReasonCode::NoPermission));
        assert!(is_reported(&down, "pmu", &[finding("pmu", State::Missing)]));
        assert!(!is_reported(&down, "pmu", &[finding("pmu", State::Ok)]));
        assert!(!is_reported(
            &down,
            "pmu",
            &[finding("sched", State::Missing)]
        ));
        let other = SourceState::Down(reason(ReasonCode::NoPmu));
        assert!(!is_reported(
            &other,
            "pmu",
            &[finding("pmu", State::Missing)]
        ));
        assert!(!is_reported(
            &SourceState::Up,
            "pmu",
            &[finding("pmu", State::Missing)]
        ));
        let off = SourceState::Down(reason(ReasonCode::Disabled));
        assert!(is_reported(&off, "pt", &[finding("pt", State::Absent)]));
        assert!(!is_reported(&off, "pt", &[finding("pt", State::Ok)]));
        let finding = of_source(&PMU, &off);
        assert_eq!(
            (finding.state, finding.detail.as_str()),
            (State::Off, "refused")
        );
    }

    /// A line with all of a source's requirements and the reason had 150 characters.
    #[test]
    fn a_line_has_the_reason_and_not_the_needs() {
        let down = SourceState::Down(ReasonCode::NoPmu.reason("this machine has no PMU"));
        let text = report(
            &[of_source(&PMU, &down), of_source(&PMU, &SourceState::Up)],
            true,
            None,
        );
        let lines: Vec<&str> = text.lines().skip(1).take(2).collect();
        let expected = [
            "pmu              absent    not available on this machine: this machine has no PMU",
            "pmu              ok        works",
        ];
        assert_eq!(lines, expected);
    }

    const PMU: SourceInfo = SourceInfo {
        name: "pmu",
        needs: "CAP_PERFMON",
        cost: "",
    };

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

            usable: the sources host, inventory and sched work
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
