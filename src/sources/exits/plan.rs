//! Decides what this machine counts: a function of the configuration and of tracefs.

use std::io;
use std::path::Path;

use super::format::{self, Isa, Reasons};
use crate::config;
use crate::engine::{Reason, ReasonCode};
use crate::host::roots::Roots;
use crate::sources::pmu::counters::{Attr, Filter, Test};
use crate::sources::pmu::events::tracepoint;

/// Tracepoints of KVM's work for a vCPU, with the filter of the hits that count. The label is the
/// name without `kvm_` and `_arm64`.
pub(super) const EVENTS: [(&str, Option<Filter>); 6] = [
    // One hit per return from KVM_RUN to the VMM (virt/kvm/kvm_main.c).
    ("kvm_userspace_exit", None),
    // One hit per halt that KVM waited out itself, polling or asleep.
    ("kvm_vcpu_wakeup", None),
    ("kvm_pio", None),
    // A read that the VMM has to answer hits twice, first as `KVM_TRACE_MMIO_READ_UNSATISFIED`
    // (include/trace/events/kvm.h).
    ("kvm_mmio", Some(READY)),
    ("kvm_inj_virq", None),
    ("kvm_wfx_arm64", None),
];

const READY: Filter = Filter {
    first: Test::IsNot("type", 0),
    second: None,
};

/// The `event` label of a tracepoint.
pub(super) fn label(tracepoint: &str) -> &str {
    let name = tracepoint.strip_prefix("kvm_").unwrap_or(tracepoint);
    name.strip_suffix("_arm64").unwrap_or(name)
}

/// What an event of the group counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    /// Hits of tracepoint n of [`EVENTS`].
    Event(usize),
    Exits,
    /// Exits with reason n of the configuration.
    Reason(usize),
}

/// The events counted on each vCPU thread, in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExitPlan {
    /// The events of the group, and what each counts.
    pub(super) events: Vec<(Feed, Attr)>,
    /// Why part of the configured events is missing.
    pub(super) lacking: Option<Reason>,
}

impl ExitPlan {
    /// Reads the tracepoints from tracefs.
    ///
    /// # Errors
    /// The reason if nothing can be counted.
    pub(super) fn read(config: &config::Exits, roots: &Roots) -> Result<Self, Reason> {
        let dir = roots.tracing.join("events/kvm");
        if roots.list(&dir).is_err() {
            return Err(no_events(roots, &dir));
        }
        let mut events = Vec::new();
        for (n, (name, filter)) in EVENTS.iter().enumerate() {
            let id = id(roots, &dir.join(name))?;
            events.extend(id.map(|id| (Feed::Event(n), tracepoint(id, *filter))));
        }
        let lacking = match id(roots, &dir.join("kvm_exit"))? {
            Some(id) => add_exits(config, roots, id, &dir.join("kvm_exit"), &mut events)?,
            None => Some(no_exits(&dir)),
        };
        if events.is_empty() {
            Err(no_events(roots, &dir))
        } else {
            Ok(Self { events, lacking })
        }
    }

    /// The plan without an event that the kernel refuses and without those that depend on it;
    /// `None` if nothing is left.
    pub(super) fn without(&self, event: usize, why: &io::Error) -> Option<Self> {
        let (refused, _) = *self.events.get(event)?;
        let depends = |feed: Feed| match refused {
            // Without the total, the number of exits with other reasons is unknown.
            Feed::Exits => matches!(feed, Feed::Exits | Feed::Reason(_)),
            _ => feed == refused,
        };
        let kept = self.events.iter().filter(|(feed, _)| !depends(*feed));
        let events: Vec<_> = kept.copied().collect();
        let what = match refused {
            Feed::Event(n) => EVENTS.get(n).map_or("a tracepoint", |(name, _)| name),
            Feed::Exits => "kvm_exit, which counts exits",
            Feed::Reason(_) => "kvm_exit with the filter of a reason",
        };
        let detail = format!("not counted: the kernel refused {what} ({why})");
        let lacking = match &self.lacking {
            Some(before) => Reason {
                detail: format!("{}; {detail}", before.detail),
                ..before.clone()
            },
            None => ReasonCode::Refused.reason(detail),
        };
        (!events.is_empty()).then_some(Self {
            events,
            lacking: Some(lacking),
        })
    }

    /// The attributes for opening the group.
    pub(super) fn attrs(&self) -> Vec<Attr> {
        self.events.iter().map(|(_, attr)| *attr).collect()
    }
}

/// Adds all exits and those with the configured reasons; returns why some are missing.
fn add_exits(
    config: &config::Exits,
    roots: &Roots,
    id: u64,
    dir: &Path,
    events: &mut Vec<(Feed, Attr)>,
) -> Result<Option<Reason>, Reason> {
    let file = dir.join("format");
    let text = roots
        .read_text(&file)
        .map_err(|error| refused(roots, &file, &error))?;
    let Some(isa) = isa(roots, &text) else {
        return Ok(Some(unreported(roots)));
    };
    events.push((Feed::Exits, tracepoint(id, None)));
    let reasons = format::reasons(&text, isa);
    let mut unknown = Vec::new();
    for (n, name) in config.reasons.iter().enumerate() {
        let name = &name.0;
        match reasons.known.get(name) {
            Some(filter) => events.push((Feed::Reason(n), tracepoint(id, Some(*filter)))),
            // One configuration is shared by hosts of both vendors.
            None if reasons.elsewhere.contains(name) => {}
            None => unknown.push(name.as_str()),
        }
    }
    Ok((!unknown.is_empty()).then(|| unknown_reasons(&unknown, &reasons)))
}

/// The number of a tracepoint for perf_event_open(2); `None` if this kernel does not have it.
fn id(roots: &Roots, dir: &Path) -> Result<Option<u64>, Reason> {
    let file = dir.join("id");
    match roots.read_text(&file) {
        Ok(text) => match text.trim().parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(not_understood(&file)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(roots, &file, &error)),
    }
}

/// The numbering of this machine's exits. On x86 the vendor's module reports them; another module,
/// such as kvm_pvm, runs guests without a single hit.
fn isa(roots: &Roots, format: &str) -> Option<Isa> {
    let has = |module: &str| roots.sys.join("module").join(module).exists();
    match () {
        () if format::is_arm(format) => Some(Isa::Arm),
        () if has("kvm_intel") => Some(Isa::Vmx),
        () if has("kvm_amd") => Some(Isa::Svm),
        () => None,
    }
}

fn unknown_reasons(unknown: &[&str], reasons: &Reasons) -> Reason {
    let known: Vec<&str> = reasons.known.keys().map(String::as_str).collect();
    ReasonCode::UnknownReason
        .reason(format!(
            "no such exit reason: {}; this host has: {}",
            unknown.join(", "),
            known.join(", ")
        ))
        .with_fix("correct sources.exits.reasons")
}

fn no_exits(dir: &Path) -> Reason {
    ReasonCode::NoExitTracepoint.reason(format!(
        "{} has no kvm_exit: exits are not counted",
        dir.display()
    ))
}

/// kvm_exit exists, but no loaded module hits it.
fn unreported(roots: &Roots) -> Reason {
    ReasonCode::NoExitTracepoint.reason(format!(
        "exits are not counted: neither kvm_intel nor kvm_amd is in {}, and no other module \
             reports them",
        roots.sys.join("module").display()
    ))
}

/// No KVM tracepoints: tracefs is not mounted, or KVM is not loaded.
fn no_events(roots: &Roots, dir: &Path) -> Reason {
    let events = roots.tracing.join("events");
    match roots.list(&events) {
        Ok(_) => ReasonCode::NoKvm
            .reason(format!(
                "{} is empty or missing: KVM is not loaded",
                dir.display()
            ))
            .with_fix("modprobe kvm_intel, or modprobe kvm_amd"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => ReasonCode::NoTracefs
            .reason(format!("{} does not exist", events.display()))
            .with_fix(format!(
                "mount -t tracefs tracefs {}, or set --path.tracefs=DIR",
                roots.tracing.display()
            )),
        Err(error) => refused(roots, &events, &error),
    }
}

fn not_understood(file: &Path) -> Reason {
    ReasonCode::NotUnderstood.reason(format!(
        "unexpected format in {}: not a number",
        file.display()
    ))
}

/// EPERM comes from a locked-down kernel (`tracefs` in security/lockdown/lockdown.c), EACCES from
/// file permissions.
fn refused(roots: &Roots, path: &Path, error: &io::Error) -> Reason {
    let detail = format!("cannot read {}: {error}", path.display());
    match error.raw_os_error() {
        Some(libc::EPERM) => ReasonCode::Lockdown
            .reason(detail)
            .with_fix("boot without lockdown=confidentiality"),
        Some(libc::EACCES) => ReasonCode::NoPermission.reason(detail).with_fix(format!(
            "give the exporter CAP_DAC_READ_SEARCH, or mount -o remount,gid=GROUP,mode=750 {}",
            roots.tracing.display()
        )),
        _ => ReasonCode::Unreadable.reason(detail),
    }
}

#[cfg(test)]
mod tests;
