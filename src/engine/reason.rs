//! Why a source is degraded or down.

/// Declares the codes with their labels; `absent` are those of hardware and kernel features that
/// this machine does not have.
macro_rules! codes {
    (
        absent { $($absent:ident = $absent_label:literal,)+ }
        other { $($other:ident = $other_label:literal,)+ }
    ) => {
        /// Identifies the cause for dashboards, alerts and runbooks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum ReasonCode {
            $($absent,)+
            $($other,)+
        }

        impl ReasonCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$absent,)+ $(Self::$other,)+];

            /// Value of the `reason` label.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$absent => $absent_label,)+
                    $(Self::$other => $other_label,)+
                }
            }

            /// Whether this machine lacks the feature, so that the exporter works as intended. The
            /// page and `check` report such a source as absent, and the alert
            /// `KvmExporterSourceDegraded` does not fire for it.
            pub fn is_absent(self) -> bool {
                matches!(self, $(Self::$absent)|+)
            }
        }
    };
}

codes! {
    absent {
        NoCpufreq = "no_cpufreq", NoData = "no_data", NoExitTracepoint = "no_exit_tracepoint",
        NoNuma = "no_numa", NoPmu = "no_pmu", NoPressure = "no_pressure", NoPt = "no_pt",
        NoResctrl = "no_resctrl", NoSensor = "no_sensor", NoVfio = "no_vfio", NotX86 = "not_x86",
    }
    other {
        BlindSpots = "blind_spots", Blocked = "blocked", BlockedReads = "blocked_reads",
        Budget = "budget", Busy = "busy", Delayed = "delayed", Disabled = "disabled",
        EventNotSupported = "event_not_supported", ExcludeHostRefused = "exclude_host_refused",
        GuestMemfd = "guest_memfd", GuestNotCounted = "guest_not_counted",
        GuestNotVisible = "guest_not_visible", Hangs = "hangs", Lockdown = "lockdown",
        ManyDescriptors = "many_descriptors", ManyThreads = "many_threads",
        MediatedVpmu = "mediated_vpmu", MlockLimit = "mlock_limit", NoCgroupfs = "no_cgroupfs",
        NoCpuLine = "no_cpu_line", NoDebugfs = "no_debugfs", NoDescriptors = "no_descriptors",
        NoFile = "no_file", NoGroup = "no_group", NoGuestRam = "no_guest_ram", NoKmsg = "no_kmsg",
        NoKvm = "no_kvm", NoMemory = "no_memory", NoPerf = "no_perf",
        NoPermission = "no_permission", NoRmid = "no_rmid", NoSchedFile = "no_sched_file",
        NoSchedstat = "no_schedstat", NoSuchThread = "no_such_thread", NoTracefs = "no_tracefs",
        NotUnderstood = "not_understood", PidNamespace = "pid_namespace", PtBusy = "pt_busy",
        Refused = "refused", Seccomp = "seccomp", SharedProcess = "shared_process",
        UnknownReason = "unknown_reason", Unreadable = "unreadable", WalksOff = "walks_off",
    }
}

/// Tests compare the label, which is what users see.
#[cfg(test)]
impl PartialEq<&str> for ReasonCode {
    fn eq(&self, label: &&str) -> bool {
        self.label() == *label
    }
}

/// Why a source is degraded or down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The cause.
    pub code: ReasonCode,
    /// One sentence for the operator.
    pub detail: String,
    /// The exact command or setting that fixes it, if one exists.
    pub fix: Option<String>,
}

impl ReasonCode {
    /// A reason with this code, without a fix.
    pub fn reason(self, detail: impl Into<String>) -> Reason {
        Reason {
            code: self,
            detail: detail.into(),
            fix: None,
        }
    }
}

impl Reason {
    /// The first reason, with the number of all; `what` has them. `None` if there are none.
    pub(crate) fn first_of<'a>(
        what: &str,
        mut all: impl Iterator<Item = &'a Self>,
    ) -> Option<Self> {
        let first = all.next()?;
        let count = 1 + all.count();
        Some(Self {
            detail: format!("{what}: {count}; the first: {}", first.detail),
            ..first.clone()
        })
    }

    /// Adds the fix.
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The reason of a source that is disabled in the configuration.
    pub(crate) fn disabled(source: &str) -> Self {
        ReasonCode::Disabled
            .reason("disabled in the configuration")
            .with_fix(format!("set sources.{source}.enabled: true"))
    }
}
