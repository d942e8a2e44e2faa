//! The `kernel_log` source: lines of the kernel log about hardware errors and KVM, by kind.
//!
//! - `kvm_host_kernel_log_lines_total{kind}`: since the exporter started; a kind that this kernel
//!   cannot log is absent
//! - `kvm_host_kernel_log_lost_total`: records overwritten before they were read
//!
//! Only lines that the kernel wrote itself count, and none of their text is exposed: a guest or a
//! process chooses much of it. `/dev/kmsg` requires `CAP_SYSLOG` if `kernel.dmesg_restrict` is 1;
//! it is opened before privileges are dropped, and stays open.

use std::io;

use super::unreadable;
use crate::engine::{Fact, Found, HostSource, Reason, ReasonCode, Source, SourceInfo};
use crate::host::cpu_model::{field, first_block};
use crate::host::kernel_log::{self, KernelLog, LineKind, Record};
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "kernel_log":
    KERNEL_LOG_LINES = Metric::counter("kvm_host_kernel_log_lines_total", Keys::Host, &["kind"],
        "Lines of the kernel log since the exporter started, by kind: machine_check, memory_error (corrected or not, from an EDAC driver), memory_failure (a lost page), throttle, split_lock, kvm_msr, kvm (any other line of KVM); a kind that this host cannot log is absent");
    KERNEL_LOG_LOST = Metric::counter("kvm_host_kernel_log_lost_total", Keys::Host, &[],
        "Records of the kernel log that were overwritten before the exporter read them");
}

/// Maximum number of records per read, so that a flooded log does not delay the collector.
const MOST: usize = 20_000;

/// Follows /dev/kmsg; counts what is logged from its first read on.
#[derive(Default)]
pub(super) struct Log {
    log: Option<KernelLog>,
    /// Number of lines of each of [`LineKind::ALL`].
    lines: [u64; LineKind::ALL.len()],
    lost: u64,
    /// Flags of the CPU, read once.
    flags: Option<CpuFlags>,
}

impl Log {
    fn advance(&mut self, roots: &Roots) -> io::Result<()> {
        let log = match &mut self.log {
            Some(log) => log,
            none => none.insert(KernelLog::open(roots)?),
        };
        let lines = &mut self.lines;
        let count = |record: Record<'_>| {
            let kind = kernel_log::kind(&record);
            if let Some(n) = LineKind::ALL.iter().position(|one| Some(*one) == kind) {
                lines[n] += 1;
            }
        };
        self.lost = self.lost.saturating_add(log.read(MOST, count)?);
        Ok(())
    }

    fn facts(&mut self, roots: &Roots, topology: &Topology) -> Vec<Fact> {
        let flags = self.flags.get_or_insert_with(|| CpuFlags::read(roots));
        let could = |kind| can_log(kind, roots, topology, flags);
        let known = LineKind::ALL.into_iter().zip(self.lines);
        let known = known.filter(|(kind, n)| *n > 0 || could(*kind));
        let line = |(kind, n): (LineKind, u64)| {
            let labels = [("kind", kind.label().into())];
            Fact::int(&KERNEL_LOG_LINES, labels, n)
        };
        let lost = Fact::int(&KERNEL_LOG_LOST, [], self.lost);
        known.map(line).chain([lost]).collect()
    }
}

/// Features of the CPU by the kernel's names; `None` if cpuinfo does not list them.
struct CpuFlags(Option<Vec<String>>);

impl CpuFlags {
    fn read(roots: &Roots) -> Self {
        let block = first_block(roots).unwrap_or_default();
        // x86 has "flags", arm64 has "Features".
        let listed = field(&block, "flags").or_else(|| field(&block, "Features"));
        Self(listed.map(|flags| flags.split_ascii_whitespace().map(str::to_owned).collect()))
    }

    fn lists_any(&self, flags: &[&str]) -> Option<bool> {
        let listed = self.0.as_ref()?;
        Some(listed.iter().any(|flag| flags.contains(&flag.as_str())))
    }
}

/// Whether this kernel on this machine could log a line of this kind. Otherwise a 0 would report
/// health that nothing checks.
fn can_log(kind: LineKind, roots: &Roots, topology: &Topology, flags: &CpuFlags) -> bool {
    let sys = |path: &str| roots.sys.join(path);
    match kind {
        // Machine checks come from the CPU or from error records of the firmware.
        LineKind::MachineCheck => {
            flags.lists_any(&["mce"]) != Some(false)
                || sys("devices/system/machinecheck").exists()
                || sys("firmware/acpi/tables/HEST").exists()
        }
        // A memory controller with an EDAC driver: mcN, not always from 0
        // (drivers/edac/edac_mc_sysfs.c).
        LineKind::MemoryError => {
            let controllers = roots.list(&sys("devices/system/edac/mc"));
            let is_one = |name: &String| name.strip_prefix("mc").is_some_and(is_number);
            controllers.is_ok_and(|names| names.iter().any(is_one))
        }
        // CONFIG_MEMORY_FAILURE (mm/memory-failure.c).
        LineKind::MemoryFailure => roots.proc.join("sys/vm/memory_failure_early_kill").exists(),
        // therm_throt.c creates the directory for each CPU that it monitors.
        LineKind::Throttle => topology.cpus.iter().any(|cpu| {
            sys(&format!(
                "devices/system/cpu/cpu{}/thermal_throttle",
                cpu.id
            ))
            .exists()
        }),
        // X86_FEATURE_{SPLIT_LOCK,BUS_LOCK}_DETECT (arch/x86/include/asm/cpufeatures.h).
        LineKind::SplitLock => {
            flags.lists_any(&["split_lock_detect", "bus_lock_detect"]) == Some(true)
        }
        // KVM on x86 has the parameter, and logs nothing if it is N (arch/x86/kvm/x86.c).
        LineKind::KvmMsr => {
            let report = sys("module/kvm/parameters/report_ignored_msrs");
            roots.read_text(&report).is_ok_and(|value| value != "N")
        }
        LineKind::Kvm => true,
    }
}

impl HostSource for Log {
    fn read(&mut self, roots: &Roots, topology: &Topology) -> Found {
        match self.advance(roots) {
            Ok(()) => self.facts(roots, topology).into(),
            Err(error) => {
                // The log is opened again at the next read; the counts are kept.
                self.log = None;
                Found::nothing(missing(roots, &error))
            }
        }
    }
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

pub(super) fn missing(roots: &Roots, error: &io::Error) -> Reason {
    let path = kernel_log::path(roots);
    let detail = unreadable(&path, error).detail;
    let restrict = roots.proc.join("sys/kernel/dmesg_restrict");
    let open_to_all = roots.read_text(&restrict).is_ok_and(|value| value == "0");
    match error.raw_os_error() {
        // CAP_SYSLOG is not missing here (`check_syslog_permissions`, kernel/printk/printk.c): the
        // device controller of a container's cgroup returns EPERM too.
        Some(libc::EPERM) if open_to_all => ReasonCode::NoPermission
            .reason(detail)
            .with_fix("in a container, allow the device: --device=/dev/kmsg:/dev/kmsg:r"),
        Some(libc::EPERM | libc::EACCES) => ReasonCode::NoPermission.reason(detail).with_fix(
            "give the exporter CAP_SYSLOG, which it drops after start, or: \
             sysctl kernel.dmesg_restrict=0",
        ),
        Some(libc::ENOENT) => ReasonCode::NoKmsg.reason(detail).with_fix(
            "in a container, pass the device /dev/kmsg; under systemd, ProtectKernelLogs=no \
             and PrivateDevices=no",
        ),
        _ => unreadable(&path, error),
    }
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "kernel_log",
        needs: "/dev/kmsg: CAP_SYSLOG at start, or kernel.dmesg_restrict=0",
        cost: "one system call per line of the kernel log",
    },
    about: "Lines of the kernel log about machine checks and KVM, counted by kind, every 15 s. Needs `CAP_SYSLOG` at start (dropped afterwards) or `kernel.dmesg_restrict=0`.",
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().kernel_log, Log::default()),
};
