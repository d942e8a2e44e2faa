//! What this machine can trace, from sysfs and procfs, and the reason if it is limited.

use super::{RecordError, Request, Step, SOURCE};
use crate::config;
use crate::engine::{descriptors, Reason, ReasonCode};
use crate::host::cpu_model::{self, field, first_block, CpuModel, X86Vendor};
use crate::host::pmu::{Pmu, Words};
use crate::host::privileges::MemoryLock;
use crate::host::roots::Roots;
use crate::sources::pmu::denied::Gate;
use crate::sources::pmu::plan::{foreign_pid, pid_namespace};

/// The PMU's name in sysfs.
const PMU: &str = "intel_pt";

/// Terms that are set if the PMU has them, and the capability that each requires as well
/// (Documentation/admin-guide/perf/ of the kernel, tools/perf/Documentation/perf-intel-pt.txt).
///
/// `noretcomp`: compressed returns would appear as taken conditional branches. No `mtc`: in a
/// guest, the TMA packet that comes with it is followed by a stray byte (erratum SKZ84, of every
/// Xeon Scalable), and cycles do not need it. `psb_period` stays 0, a PSB every 2 KiB: little is
/// lost when decoding has to resynchronize.
const TERMS: [(&str, Option<&str>); 7] = [
    ("pt", None),
    ("branch", None),
    ("tsc", None),
    ("noretcomp", None),
    ("cyc", Some("psb_cyc")),
    ("event", Some("event_trace")),
    ("pwr_evt", Some("power_event_trace")),
];

/// How vCPUs are recorded on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtPlan {
    /// `type` of perf_event_attr.
    pub kind: u32,
    /// `config` to `config3`
    pub words: Words,
    /// The terms that are set.
    pub terms: Vec<&'static str>,
    /// Why the guest is not visible, if it is not.
    pub gaps: Option<Reason>,
}

impl PtPlan {
    /// Reads the machine's PMU and capabilities.
    ///
    /// # Errors
    /// The reason if nothing can be recorded.
    pub fn read(roots: &Roots) -> Result<Self, Reason> {
        let devices = roots.sys.join("bus/event_source/devices");
        if !devices.join(PMU).is_dir() {
            return Err(no_pt(roots));
        }
        if foreign_pid(roots).is_some() {
            return Err(pid_namespace());
        }
        let pmu = Pmu::read(roots, PMU).map_err(|error| not_understood(error.to_string()))?;
        let able = |(term, cap): &(&str, Option<&str>)| {
            pmu.has_term(term) && cap.is_none_or(|cap| pmu.cap(roots, cap) > Some(0))
        };
        let terms: Vec<&str> = TERMS.iter().filter(|t| able(t)).map(|(t, _)| *t).collect();
        let encoded = pmu.encode(&terms.join(","));
        let encoding = encoded.map_err(|error| not_understood(error.to_string()))?;
        Ok(Self {
            kind: encoding.kind,
            words: encoding.words,
            terms,
            gaps: host_guest_mode(roots),
        })
    }

    /// Parameters of a recording.
    pub fn request(&self, config: &config::Pt) -> Request {
        Request {
            kind: self.kind,
            words: self.words,
            window: config.window,
            max_bytes: config.max_bytes,
        }
    }
}

/// `pt_mode` of kvm_intel: 0 (system) keeps the host's tracing on in the guest, 1 (host-guest)
/// turns it off. Kernels since CVE-2024-53135 have only mode 0, and mostly no parameter.
fn host_guest_mode(roots: &Roots) -> Option<Reason> {
    let file = roots.sys.join("module/kvm_intel/parameters/pt_mode");
    let mode = roots.read_text(&file).ok()?;
    (mode.trim() == "1").then(|| {
        ReasonCode::GuestNotVisible
            .reason(format!(
            "{} is 1 (host-guest): KVM stops the host's tracing while a guest runs, so only host \
             mode is visible",
            file.display()
        ))
            .with_fix("with no VM running: modprobe -r kvm_intel && modprobe kvm_intel pt_mode=0")
    })
}

/// The driver marks recordings as having gaps if tracing stops with VMXON (`intel_pt_handle_vmx`,
/// arch/x86/events/intel/pt.c; bit 14 of IA32_VMX_MISC, SDM volume 3, appendix A.6).
pub(super) fn no_vmx_tracing() -> Reason {
    ReasonCode::GuestNotVisible.reason(
        "recordings have gaps (PERF_AUX_FLAG_PARTIAL): this CPU cannot trace while VMX is \
                 on, which it is while any VM runs",
    )
}

/// The reason of the disabled source.
pub(super) fn disabled() -> Reason {
    Reason {
        detail: "disabled in the configuration (the default)".to_owned(),
        ..Reason::disabled(SOURCE)
    }
}

fn not_understood(detail: String) -> Reason {
    ReasonCode::NotUnderstood.reason(detail)
}

/// Why there is no such PMU: the CPU, the hypervisor below this machine, or the kernel lacks it.
fn no_pt(roots: &Roots) -> Reason {
    let cpu = first_block(roots).unwrap_or_default();
    let flags = field(&cpu, "flags").unwrap_or_default();
    let has = |flag| flags.split_ascii_whitespace().any(|f| f == flag);
    let reason = |why: &str| ReasonCode::NoPt.reason(format!("there is no PMU {PMU}: {why}"));
    match cpu_model::parse(&cpu) {
        CpuModel::X86 {
            vendor: X86Vendor::Amd,
            ..
        } => reason("this is an AMD CPU; only Intel CPUs have Intel PT"),
        CpuModel::Arm { .. } => reason("this is an Arm CPU; only Intel CPUs have Intel PT"),
        _ if has("hypervisor") => reason(
            "this machine is itself a virtual machine, and its hypervisor does not provide Intel PT",
        )
        .with_fix("run the exporter on the physical host"),
        _ if has("intel_pt") => reason("the CPU has Intel PT, but the kernel did not set it up")
            .with_fix("use a kernel with CONFIG_PERF_EVENTS=y; see dmesg | grep -i 'intel pt'"),
        CpuModel::X86 { .. } => reason("this CPU has no Intel PT, or the firmware hides it")
            .with_fix("on Broadwell or later, enable processor trace in the firmware"),
        CpuModel::Unknown => reason("the CPU model is unknown"),
    }
}

/// Reason of a failed recording; `None` if the thread exited.
pub(crate) fn refusal(error: &RecordError, roots: &Roots) -> Option<Reason> {
    let detail = error.to_string();
    Some(match (error.error.raw_os_error(), error.step) {
        (Some(libc::ESRCH), _) => return None,
        (Some(libc::EBUSY), _) => busy(&detail),
        (Some(libc::EPERM), Step::MapRecords | Step::MapTrace) => mlock_limit(roots),
        (Some(libc::EMFILE | libc::ENFILE), _) => descriptors::none_left(detail),
        (Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::EOPNOTSUPP), _) => {
            ReasonCode::NoPt.reason(detail)
        }
        (Some(libc::ENOMEM), _) => ReasonCode::NoMemory
            .reason(detail)
            .with_fix("lower sources.pt.max_bytes, or free memory"),
        (errno, _) => {
            let denied = Gate::read(roots).reason(errno, &detail);
            denied.unwrap_or_else(|| ReasonCode::Refused.reason(detail))
        }
    })
}

/// Each CPU has one processor trace, and it excludes the use of last branch records.
pub(super) fn busy(detail: &str) -> Reason {
    ReasonCode::PtBusy
        .reason(format!(
            "{detail}: another program uses Intel PT or last branch records; retrying later"
        ))
        .with_fix("stop the other perf record -e intel_pt or perf record -b")
}

/// `perf_mmap` of kernel/events/core.c: each user may lock perf_event_mlock_kb per CPU, the excess
/// counts against RLIMIT_MEMLOCK, and CAP_IPC_LOCK overrides both.
fn mlock_limit(roots: &Roots) -> Reason {
    let lock = MemoryLock::read(roots);
    ReasonCode::MlockLimit
        .reason(format!(
            "the trace buffer exceeds the limit of locked memory ({lock})"
        ))
        .with_fix(
            "give the exporter CAP_IPC_LOCK (AmbientCapabilities=), or raise LimitMEMLOCK= in its \
             unit, or lower sources.pt.max_bytes",
        )
}

#[cfg(test)]
mod tests;
