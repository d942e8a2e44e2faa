//! `pt record`: records one vCPU once and writes the trace.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, Context};
use clap::Args;

use crate::cli::{out, roots, CommonArgs};
use crate::config::values::{duration, show_duration, PT_WINDOW};
use crate::config::Config;
use crate::discover::{Inventory, Scanner, Vcpu};
use crate::engine::Reason;
use crate::host::privileges;
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::sources::pt::{plan, Capture, Outcome, PerfPt, PtPlan, RecordPt};

/// Flags of `pt record`.
#[derive(Debug, Clone, Args)]
pub(super) struct RecordArgs {
    /// Name of the VM, as in `list`
    #[arg(long, value_name = "NAME")]
    vm: String,
    /// Index of the vCPU, as in `list`
    #[arg(long, value_name = "N")]
    vcpu: u32,
    /// Where to write the trace [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How long to record, 1ms to 1s [default: sources.pt.window]
    #[arg(long, value_name = "DURATION", value_parser = window)]
    window: Option<Duration>,
}

fn window(text: &str) -> Result<Duration, String> {
    let window = duration(text).filter(|window| PT_WINDOW.contains(window));
    window.ok_or_else(|| {
        let [least, most] = [PT_WINDOW.start(), PT_WINDOW.end()].map(|end| show_duration(*end));
        format!("expected a duration from {least} to {most}, such as 10ms")
    })
}

/// Records and writes. Reports the outcome on standard error.
pub(super) fn run(common: &CommonArgs, args: &RecordArgs) -> anyhow::Result<()> {
    let config = common.start()?;
    if args.output.is_none() && io::stdout().is_terminal() {
        bail!("cannot write a binary trace to a terminal; redirect standard output or use --output FILE");
    }
    // Keep only what `serve` keeps with the source enabled.
    privileges::drop_all_but(&privileges::needed(true));
    let roots = roots(&config.paths);
    let capture = record(&config, &roots, args, &PerfPt)?;
    write(args, &capture.trace.bytes)?;
    out::say(&summary(&capture));
    Ok(())
}

fn record(
    config: &Config,
    roots: &Arc<Roots>,
    args: &RecordArgs,
    recorder: &dyn RecordPt,
) -> anyhow::Result<Capture> {
    // Report a machine that cannot record before looking for the vCPU.
    let plan = PtPlan::read(roots).map_err(|reason| refusal(&reason))?;
    if let Some(reason) = &plan.gaps {
        out::say(&reason.detail);
    }
    let mut request = plan.request(&config.sources.pt);
    request.window = args.window.unwrap_or(request.window);
    let topology = Arc::new(Topology::read(roots, &Topology::default())?);
    let inventory = Scanner::new(roots.clone()).scan(&topology);
    let vcpu = find(&inventory, args)?;
    let capture = match recorder.record(vcpu.tid, &request) {
        Ok(capture) => capture,
        Err(error) => match plan::refusal(&error, roots) {
            Some(reason) => return Err(refusal(&reason)),
            None => bail!("vCPU {} of VM {} has ended", args.vcpu, args.vm),
        },
    };
    match capture.outcome() {
        Outcome::Idle => bail!(
            "vCPU {} of VM {} did not run for {}; try again, or a longer --window",
            args.vcpu,
            args.vm,
            show_duration(request.window)
        ),
        Outcome::Busy => {
            bail!("the vCPU ran, but another user of Intel PT has its CPU; try again later")
        }
        _ => Ok(capture),
    }
}

fn find(inventory: &Inventory, args: &RecordArgs) -> anyhow::Result<Vcpu> {
    let vm = inventory.vms.iter().find(|vm| vm.name == args.vm);
    let vm = vm.with_context(|| format!("no VM named {:?}; see vcpu-exporter list", args.vm))?;
    let vcpu = vm.vcpus.iter().find(|vcpu| vcpu.index == args.vcpu);
    let vcpu = vcpu.with_context(|| {
        format!(
            "VM {} has no vCPU {}; see vcpu-exporter list",
            args.vm, args.vcpu
        )
    })?;
    Ok(*vcpu)
}

fn refusal(reason: &Reason) -> anyhow::Error {
    match &reason.fix {
        Some(fix) => anyhow::anyhow!("{} ({}); {fix}", reason.detail, reason.code.label()),
        None => anyhow::anyhow!("{} ({})", reason.detail, reason.code.label()),
    }
}

fn write(args: &RecordArgs, bytes: &[u8]) -> anyhow::Result<()> {
    match &args.output {
        Some(path) => {
            let written = File::create(path).and_then(|mut file| file.write_all(bytes));
            written.with_context(|| format!("cannot write {}", path.display()))
        }
        None => {
            let mut out = io::stdout().lock();
            let written = out.write_all(bytes).and_then(|()| out.flush());
            written.context("cannot write to standard output")
        }
    }
}

fn summary(capture: &Capture) -> String {
    format!(
        "{} bytes from {:?} on a CPU in {:?}: {}",
        capture.trace.bytes.len(),
        capture.on_cpu,
        capture.elapsed,
        capture.outcome().label()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{FakeHost, UUID_A};
    use crate::sources::pt::scripted::ScriptedPt;
    use crate::sources::pt::Step;

    fn args(vm: &str, vcpu: u32) -> RecordArgs {
        RecordArgs {
            vm: vm.to_owned(),
            vcpu,
            output: None,
            window: Some(Duration::from_millis(3)),
        }
    }

    fn host() -> FakeHost {
        let host = FakeHost::new();
        host.cpus(1, 2, 1, 1);
        let pmu = "sys/bus/event_source/devices/intel_pt";
        host.file(format!("{pmu}/type"), "8\n");
        host.file(format!("{pmu}/format/pt"), "config:0\n");
        host
    }

    fn recorded(host: &FakeHost, args: &RecordArgs, pt: &ScriptedPt) -> Result<Capture, String> {
        let roots = Arc::new(Roots::below(host.root()));
        record(&Config::default(), &roots, args, pt).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_vcpu_that_was_named_is_recorded() {
        let host = host();
        let vm = host.qemu(1000, "web", UUID_A, 2);
        let pt = ScriptedPt::of_bytes(vec![1, 2, 3]);
        let who = pt.recorded();
        let capture = recorded(&host, &args("web", 1), &pt).unwrap();
        assert_eq!(capture.trace.bytes, [1, 2, 3]);
        assert_eq!(capture.elapsed, Duration::from_millis(3), "its own window");
        assert_eq!(*who.lock().unwrap(), [vm.vcpus[1]]);
        assert!(summary(&capture).starts_with("3 bytes"));
    }

    #[test]
    fn missing_vm_or_vcpu_is_named() {
        let host = host();
        host.qemu(1000, "web", UUID_A, 2);
        let fails = |args| recorded(&host, &args, &ScriptedPt::of_bytes(vec![1])).unwrap_err();
        assert!(fails(args("db", 0)).contains("no VM named \"db\""));
        assert!(fails(args("web", 2)).contains("VM web has no vCPU 2"));
        let idle = recorded(&host, &args("web", 0), &ScriptedPt::of_bytes(Vec::new()));
        // An empty trace of a thread that ran.
        assert!(idle.unwrap_err().contains("did not run"));
        let refused = ScriptedPt::refusing(Step::MapTrace, libc::EPERM);
        let error = recorded(&host, &args("web", 0), &refused).unwrap_err();
        assert!(error.contains("mlock_limit") && error.contains("CAP_IPC_LOCK"));
        let gone = ScriptedPt::refusing(Step::Open, libc::ESRCH);
        let error = recorded(&host, &args("web", 0), &gone).unwrap_err();
        assert!(error.contains("has ended"), "{error}");
    }

    #[test]
    fn missing_pt_is_reported_before_missing_vm() {
        let host = FakeHost::new();
        let pt = ScriptedPt::of_bytes(vec![1]);
        let error = recorded(&host, &args("absent", 0), &pt).unwrap_err();
        assert!(error.contains("(no_pt)"), "{error}");
    }
}
