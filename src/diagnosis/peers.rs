//! Peers of a VM: VMs that do the same work, so that their numbers can be compared.

use std::collections::HashMap;

use super::thresholds::thresholds;
use super::VmView;

/// Names and values of busy VMs, by group of peers.
#[derive(Default)]
pub(super) struct Peers {
    cpi: Groups,
    mpki: Groups,
}

type Groups = HashMap<String, Vec<(String, f64)>>;

impl Peers {
    pub(super) fn new(vms: &[VmView]) -> Self {
        let mut peers = Self::default();
        for vm in vms {
            let Some(group) = group(vm).filter(|_| busy(vm).is_some()) else {
                continue;
            };
            let numbers = [vm.numbers.cpi, vm.numbers.cache_mpki];
            for (all, number) in [&mut peers.cpi, &mut peers.mpki].into_iter().zip(numbers) {
                let of_group = all.entry(group.clone()).or_default();
                of_group.extend(number.map(|number| (vm.name.clone(), number)));
            }
        }
        peers
    }

    /// The limit of its CPI: the mean of its peers plus 2 sigma, or a multiple of the mean.
    pub(super) fn cpi_limit(&self, vm: &VmView) -> Option<f64> {
        let others = others(&self.cpi, vm)?;
        let mean = mean(&others);
        let squares: Vec<f64> = others.iter().map(|cpi| (cpi - mean).powi(2)).collect();
        let sigma = self::mean(&squares).sqrt();
        Some((mean + thresholds().cpi_sigmas * sigma).max(thresholds().cpi_over_mean * mean))
    }

    /// Cache misses of its peers per 1000 instructions.
    pub(super) fn cache_mpki(&self, vm: &VmView) -> Option<f64> {
        Some(mean(&others(&self.mpki, vm)?))
    }
}

/// VMs that do the same work, judging by their names: the name without the number at its end,
/// within a project or namespace. Same as `by: name` of `peers` in mixin/config.libsonnet. VMs of
/// the same flavor are not peers.
pub(super) fn group(vm: &VmView) -> Option<String> {
    let of_manager = [
        ("openstack_name", "openstack_project_id"),
        ("kubevirt_name", "kubevirt_namespace"),
    ];
    let fact = |name: &str| {
        let (_, value) = vm.info.iter().find(|(known, _)| known == name)?;
        Some(value.as_str())
    };
    let named = |(name, within)| Some((fact(name)?, fact(within).unwrap_or_default()));
    let named: Vec<(&str, &str)> = of_manager.into_iter().filter_map(named).collect();
    let mut groups = named.iter();
    let group = groups.find_map(|(name, within)| Some(format!("{within}/{}", word(name)?)));
    let by_vm = named.is_empty() && !is_meaningless(&vm.name);
    group.or_else(|| by_vm.then(|| word(&vm.name))?.map(str::to_owned))
}

/// A name without the number at its end: `web` of `web-1`.
fn word(name: &str) -> Option<&str> {
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let has_number = word.len() < name.len();
    let word = word.strip_suffix(['-', '_', '.']).unwrap_or(word);
    let names_work = word.ends_with(|c: char| c.is_ascii_alphabetic());
    (has_number && names_work).then_some(word)
}

/// Names that say nothing: nova's own (`instance-0000002a`), and those of installers (`vm-3`).
fn is_meaningless(name: &str) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let of_nova = name.strip_prefix("instance-");
    of_nova.is_some_and(|id| id.len() == 8 && id.chars().all(is_hex))
        || word(name).is_some_and(|word| word.eq_ignore_ascii_case("vm"))
}

/// The values of its peers; `None` if there are too few.
fn others(all: &Groups, vm: &VmView) -> Option<Vec<f64>> {
    let peers = all.get(&group(vm)?)?.iter();
    let others = peers.filter(|(name, _)| *name != vm.name);
    let others: Vec<f64> = others.map(|(_, number)| *number).collect();
    (others.len() >= thresholds().cpi_peers).then_some(others)
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// CPU time of a VM that uses enough to be judged by it.
pub(super) fn busy(vm: &VmView) -> Option<f64> {
    let time = vm.numbers.time;
    time.filter(|time| *time >= thresholds().vm_busy_cores)
}
