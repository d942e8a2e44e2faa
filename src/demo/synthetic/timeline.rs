//! The troubles that are active at a time, and their effects.

use std::time::Duration;

use super::scenario::{Effect, PerCpu, Scenario, CPUS};

/// Differences from a calm host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Influence {
    pub(super) vms: Vec<VmInfluence>,
    /// Share of time in which each package is throttled.
    pub(super) throttled: [f64; 2],
    /// Share of time in which counters have hardware.
    pub(super) running: f64,
    /// Share of each CPU that host processes want.
    pub(super) processes: PerCpu,
}

/// Differences for one VM.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct VmInfluence {
    /// Demand of every vCPU, in place of its workload's.
    pub(super) demand: Option<f64>,
    /// Demand of one vCPU.
    pub(super) demand_of: Option<(u32, f64)>,
    /// Factor for cycles per instruction and cache misses.
    pub(super) cpi: f64,
    pub(super) misses: f64,
    /// Exits per second of vCPU time; those above the usual rate are port I/O.
    pub(super) exits: Option<f64>,
    /// Its memory is on the other node.
    pub(super) memory_far: bool,
    /// Its device is on the other node.
    pub(super) device_far: bool,
    /// CPUs that its vCPUs are confined to, one for each in turn.
    pub(super) cpus: Option<Vec<u32>>,
    /// The vCPU whose CPU its I/O thread uses, and the share that it uses.
    pub(super) iothread: Option<(u32, f64)>,
}

/// The effects of all troubles that are active at this time.
pub(super) fn influence(scenario: &Scenario, at: Duration) -> Influence {
    let calm = VmInfluence {
        cpi: 1.0,
        misses: 1.0,
        ..VmInfluence::default()
    };
    let mut all = Influence {
        vms: vec![calm; scenario.vms.len()],
        throttled: [0.0; 2],
        running: 1.0,
        processes: [0.0; CPUS as usize],
    };
    for trouble in scenario.troubles.iter().filter(|t| t.is_on(at)) {
        trouble.effects.iter().for_each(|effect| all.add(effect));
    }
    all
}

impl Influence {
    fn add(&mut self, effect: &Effect) {
        match effect {
            Effect::Demand(vm, demand) => self.vms[*vm].demand = Some(*demand),
            Effect::DemandOf(vm, vcpu, demand) => self.vms[*vm].demand_of = Some((*vcpu, *demand)),
            Effect::Cpi(vm, factor) => self.vms[*vm].cpi *= factor,
            Effect::Misses(vm, factor) => self.vms[*vm].misses *= factor,
            Effect::Exits(vm, exits) => self.vms[*vm].exits = Some(*exits),
            Effect::MemoryFar(vm) => self.vms[*vm].memory_far = true,
            Effect::DeviceFar(vm) => self.vms[*vm].device_far = true,
            Effect::Cpus(vm, cpus) => self.vms[*vm].cpus = Some(cpus.clone()),
            Effect::Iothread(vm, vcpu, share) => self.vms[*vm].iothread = Some((*vcpu, *share)),
            Effect::Throttled(package, share) => self.throttled[*package as usize] = *share,
            Effect::Running(share) => self.running = *share,
            Effect::Processes(cpus, share) => {
                cpus.iter()
                    .for_each(|cpu| self.processes[*cpu as usize] += share);
            }
        }
    }
}

/// Starts and ends of troubles and VMs after `from` and up to `to`, in order, as lines with the
/// scenario time. At 0, VMs that run from the beginning are not events.
pub(super) fn happenings(scenario: &Scenario, from: Duration, to: Duration) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |at: Duration, text: String| {
        if from < at && at <= to {
            all.push((at, text));
        }
    };
    for trouble in &scenario.troubles {
        let expected = trouble.expect.iter().map(expected);
        let expected: Vec<String> = expected.collect();
        let expected = match expected.as_slice() {
            [] => "no alert".to_owned(),
            some => some.join(", "),
        };
        let name = &trouble.name;
        let begins = format!("{name} begins; expected: {expected}");
        add(trouble.start, begins);
        add(trouble.end(), format!("{name} ends"));
    }
    for vm in &scenario.vms {
        add(vm.starts, format!("VM {} starts", vm.name));
        vm.ends
            .into_iter()
            .for_each(|end| add(end, format!("VM {} ends", vm.name)));
    }
    all.sort_by_key(|(at, _)| *at);
    let line = |(at, text): (Duration, String)| {
        let s = at.as_secs();
        let (hours, minutes) = (s / 3600, s / 60 % 60);
        format!("{hours:02}:{minutes:02}:{:02} {text}", s % 60)
    };
    all.into_iter().map(line).collect()
}

fn expected(expect: &super::scenario::Expect) -> String {
    let label = |(name, value): (&String, &String)| format!("{name}=\"{value}\"");
    let labels: Vec<String> = expect.labels.iter().map(label).collect();
    let within = crate::config::values::show_duration(expect.within);
    format!("{}{{{}}} within {within}", expect.alert, labels.join(","))
}
