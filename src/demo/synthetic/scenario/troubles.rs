//! Validates troubles and converts them from [`RawTrouble`].

use super::super::raw::{RawKind, RawTrouble};
use super::{cpus, expects, number, time, Effect, Trouble, VmSpec};

/// Reads one trouble; the VMs it names must be in `vms`.
pub(super) fn read(raw: &RawTrouble, vms: &[VmSpec]) -> Result<Trouble, String> {
    let keys = Keys { raw, vms };
    keys.fit()?;
    let length = time(&raw.length)?;
    if length.is_zero() {
        return Err("length: expected more than 0".into());
    }
    Ok(Trouble {
        name: raw.name.clone(),
        effects: keys.effects()?,
        vms: keys.slowed()?,
        start: time(&raw.start)?,
        length,
        expect: expects(&raw.expect, vms)?,
    })
}

struct Keys<'a> {
    raw: &'a RawTrouble,
    vms: &'a [VmSpec],
}

impl Keys<'_> {
    fn effects(&self) -> Result<Vec<Effect>, String> {
        let raw = self.raw;
        let demand = |n| number("demand", raw.demand.unwrap_or(n), 0.0, 1.0);
        let cpi = |n| number("cpi", raw.cpi.unwrap_or(n), 0.1, 20.0);
        let share = |n| number("share", raw.share.unwrap_or(n), 0.0, 1.0);
        Ok(match raw.kind {
            RawKind::NoisyNeighbour => {
                let mut effects = vec![Effect::Demand(self.vm()?, demand(0.45)?)];
                let victims = self.victims()?;
                let cpi = cpi(2.0)?;
                let misses = number("misses", raw.misses.unwrap_or(6.0), 0.1, 100.0)?;
                let victims = victims.into_iter();
                let slowed = |vm| [Effect::Cpi(vm, cpi), Effect::Misses(vm, misses)];
                effects.extend(victims.flat_map(slowed));
                effects
            }
            RawKind::MemoryRemote => {
                let vm = self.vm()?;
                vec![Effect::MemoryFar(vm), Effect::Cpi(vm, cpi(1.3)?)]
            }
            RawKind::SharedCores => {
                let vm = self.vm()?;
                let cpus = self.cpus("cpus: required, the CPUs to confine it to")?;
                vec![
                    Effect::Cpus(vm, cpus),
                    Effect::Demand(vm, demand(0.9)?),
                    Effect::Cpi(vm, cpi(1.35)?),
                ]
            }
            RawKind::Quota => {
                let vm = self.vm_with("quota_cores", |vm| vm.quota.is_some())?;
                vec![Effect::Demand(vm, demand(1.0)?)]
            }
            RawKind::IothreadOnCore => {
                let (vm, vcpu) = (self.vm()?, self.vcpu()?);
                vec![
                    Effect::DemandOf(vm, vcpu, demand(0.9)?),
                    Effect::Iothread(vm, vcpu, share(0.45)?),
                ]
            }
            RawKind::PackageThrottled => {
                let package = f64::from(raw.package.unwrap_or(0));
                let package = number("package", package, 0.0, 1.0)? as u32;
                vec![Effect::Throttled(package, share(0.8)?)]
            }
            RawKind::ExitStorm => {
                let vm = self.vm()?;
                let exits = number("exits", raw.exits.unwrap_or(90_000.0), 0.0, 1e6)?;
                vec![Effect::Exits(vm, exits)]
            }
            RawKind::DeviceRemote => {
                let vm = self.vm_with("device: true", |vm| vm.device)?;
                vec![Effect::DeviceFar(vm)]
            }
            RawKind::Multiplexed => vec![Effect::Running(share(0.3)?)],
            RawKind::HostProcess => {
                let cpus = self.cpus("cpus: required, the CPUs it runs on")?;
                vec![Effect::Processes(cpus, share(0.8)?)]
            }
            RawKind::Steady => Vec::new(),
        })
    }

    /// The VMs that it slows down.
    fn slowed(&self) -> Result<Vec<usize>, String> {
        match self.raw.kind {
            RawKind::NoisyNeighbour => self.victims(),
            kind if takes(kind).contains(&"vm") => Ok(vec![self.vm()?]),
            _ => Ok(Vec::new()),
        }
    }

    /// Rejects keys that have no meaning for this kind.
    fn fit(&self) -> Result<(), String> {
        let raw = self.raw;
        let given = [
            ("vm", raw.vm.is_some()),
            ("victims", raw.victims.is_some()),
            ("vcpu", raw.vcpu.is_some()),
            ("package", raw.package.is_some()),
            ("cpus", raw.cpus.is_some()),
            ("demand", raw.demand.is_some()),
            ("cpi", raw.cpi.is_some()),
            ("misses", raw.misses.is_some()),
            ("exits", raw.exits.is_some()),
            ("share", raw.share.is_some()),
        ];
        let takes = takes(raw.kind);
        let wrong = |(key, given): &&(&str, bool)| *given && !takes.contains(key);
        let Some((key, _)) = given.iter().find(wrong) else {
            return Ok(());
        };
        let takes = match takes {
            [] => "none".to_owned(),
            keys => keys.join(", "),
        };
        Err(format!(
            "{key}: not a key of this kind, which takes {takes}"
        ))
    }

    fn cpus(&self, missing: &str) -> Result<Vec<u32>, String> {
        cpus(self.raw.cpus.as_deref().ok_or(missing)?)
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        let found = self.vms.iter().position(|vm| vm.name == name);
        found.ok_or_else(|| format!("no VM named {name:?}"))
    }

    fn vm(&self) -> Result<usize, String> {
        self.find(self.raw.vm.as_deref().ok_or("vm: required")?)
    }

    fn victims(&self) -> Result<Vec<usize>, String> {
        let names = self.raw.victims.as_deref().unwrap_or_default();
        names.iter().map(|name| self.find(name)).collect()
    }

    /// The VM, if it has what this kind of trouble requires.
    fn vm_with(&self, what: &str, has: impl Fn(&VmSpec) -> bool) -> Result<usize, String> {
        let n = self.vm()?;
        let vm = &self.vms[n];
        if has(vm) {
            Ok(n)
        } else {
            Err(format!("VM {:?} has no {what}", vm.name))
        }
    }

    fn vcpu(&self) -> Result<u32, String> {
        let vm = &self.vms[self.vm_with("iothread: true", |vm| vm.iothread)?];
        let vcpu = f64::from(self.raw.vcpu.unwrap_or(0));
        number("vcpu", vcpu, 0.0, f64::from(vm.vcpus - 1)).map(|n| n as u32)
    }
}

fn takes(kind: RawKind) -> &'static [&'static str] {
    match kind {
        RawKind::NoisyNeighbour => &["vm", "victims", "demand", "cpi", "misses"],
        RawKind::MemoryRemote => &["vm", "cpi"],
        RawKind::SharedCores => &["vm", "cpus", "demand", "cpi"],
        RawKind::Quota => &["vm", "demand"],
        RawKind::IothreadOnCore => &["vm", "vcpu", "demand", "share"],
        RawKind::PackageThrottled => &["package", "share"],
        RawKind::ExitStorm => &["vm", "exits"],
        RawKind::DeviceRemote => &["vm"],
        RawKind::Multiplexed => &["share"],
        RawKind::HostProcess => &["cpus", "share"],
        RawKind::Steady => &[],
    }
}
