//! Validates troubles and converts them from [`RawTrouble`].

use super::raw::{RawKind, RawTrouble};
use super::scenario::{cpus, expects, number, time, Kind, Trouble, VmSpec};

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
        kind: keys.kind()?,
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
    fn kind(&self) -> Result<Kind, String> {
        let raw = self.raw;
        let demand = |n| self.or(raw.demand, "demand", n, 0.0, 1.0);
        let cpi = |n| self.or(raw.cpi, "cpi", n, 0.1, 20.0);
        let share = |n| self.or(raw.share, "share", n, 0.0, 1.0);
        Ok(match raw.kind {
            RawKind::NoisyNeighbour => Kind::NoisyNeighbour {
                vm: self.vm()?,
                demand: demand(0.45)?,
                victims: self.victims()?,
                cpi: cpi(2.0)?,
                misses: self.or(raw.misses, "misses", 6.0, 0.1, 100.0)?,
            },
            RawKind::MemoryRemote => Kind::MemoryRemote {
                vm: self.vm()?,
                cpi: cpi(1.3)?,
            },
            RawKind::SharedCores => Kind::SharedCores {
                vm: self.vm()?,
                cpus: self.cpus("cpus: required, the CPUs to confine it to")?,
                demand: demand(0.9)?,
                cpi: cpi(1.35)?,
            },
            RawKind::Quota => Kind::Quota {
                vm: self.with_quota()?,
                demand: demand(1.0)?,
            },
            RawKind::IothreadOnCore => Kind::IothreadOnCore {
                vm: self.vm()?,
                vcpu: self.vcpu()?,
                demand: demand(0.9)?,
                share: share(0.45)?,
            },
            RawKind::PackageThrottled => Kind::PackageThrottled {
                package: number("package", f64::from(raw.package.unwrap_or(0)), 0.0, 1.0)? as u32,
                share: share(0.8)?,
            },
            RawKind::ExitStorm => Kind::ExitStorm {
                vm: self.vm()?,
                exits: self.or(raw.exits, "exits", 90_000.0, 0.0, 1e6)?,
            },
            RawKind::DeviceRemote => Kind::DeviceRemote {
                vm: self.with_device()?,
            },
            RawKind::Multiplexed => Kind::Multiplexed { share: share(0.3)? },
            RawKind::HostProcess => Kind::HostProcess {
                cpus: self.cpus("cpus: required, the CPUs it runs on")?,
                share: share(0.8)?,
            },
            RawKind::Steady => Kind::Steady,
        })
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
        let wrong = given
            .iter()
            .find(|(key, given)| *given && !takes.contains(key));
        match wrong {
            Some((key, _)) if takes.is_empty() => {
                Err(format!("{key}: not a key of this kind, which takes none"))
            }
            Some((key, _)) => Err(format!(
                "{key}: not a key of this kind, which takes {}",
                takes.join(", ")
            )),
            None => Ok(()),
        }
    }

    fn cpus(&self, missing: &str) -> Result<Vec<u32>, String> {
        cpus(self.raw.cpus.as_deref().ok_or(missing)?)
    }

    fn or(
        &self,
        given: Option<f64>,
        key: &str,
        default: f64,
        least: f64,
        most: f64,
    ) -> Result<f64, String> {
        number(key, given.unwrap_or(default), least, most)
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

    fn vcpu(&self) -> Result<u32, String> {
        let vm = &self.vms[self.vm()?];
        let vcpu = self.raw.vcpu.unwrap_or(0);
        if !vm.iothread {
            return Err(format!("VM {:?} has no iothread: true", vm.name));
        }
        number("vcpu", f64::from(vcpu), 0.0, f64::from(vm.vcpus - 1)).map(|n| n as u32)
    }

    fn with_quota(&self) -> Result<usize, String> {
        let vm = self.vm()?;
        match self.vms[vm].quota {
            Some(_) => Ok(vm),
            None => Err(format!("VM {:?} has no quota_cores", self.vms[vm].name)),
        }
    }

    fn with_device(&self) -> Result<usize, String> {
        let vm = self.vm()?;
        match self.vms[vm].device {
            true => Ok(vm),
            false => Err(format!("VM {:?} has no device: true", self.vms[vm].name)),
        }
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
