//! Figures that tell what is wrong on a host, from two expositions of it.

use std::collections::BTreeMap;

use crate::support::exposition::Exposition;

/// Figures by what they are and of whom.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) all: BTreeMap<String, f64>,
}

/// Rates of counters between two expositions.
struct Rates<'a> {
    before: &'a Exposition,
    after: &'a Exposition,
    seconds: f64,
}

impl Rates<'_> {
    /// What the counters of this name and these labels have gone on by in a second, for each value
    /// of the label `by`.
    fn by(&self, by: &[&str], name: &str, labels: &[(&str, &str)]) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (shown, sign) in [(self.before, -1.0), (self.after, 1.0)] {
            for sample in shown.all(name, labels) {
                let key: Vec<&str> = by.iter().map(|label| sample.label(label)).collect();
                *sums.entry(key.join(":")).or_insert(0.0) += sign * sample.value / self.seconds;
            }
        }
        sums
    }

    fn vm(&self, name: &str, labels: &[(&str, &str)]) -> BTreeMap<String, f64> {
        self.by(&["vm"], name, labels)
    }
}

/// What counters have gone on by in a second, for each value of the labels `by`.
pub(crate) fn rates(
    before: &Exposition,
    after: &Exposition,
    seconds: f64,
    by: &[&str],
    name: &str,
    labels: &[(&str, &str)],
) -> BTreeMap<String, f64> {
    let rates = Rates {
        before,
        after,
        seconds,
    };
    rates.by(by, name, labels)
}

impl Figures {
    pub(crate) fn between(before: &Exposition, after: &Exposition, seconds: f64) -> Self {
        let rates = Rates {
            before,
            after,
            seconds,
        };
        let mut figures = Self {
            all: BTreeMap::new(),
        };
        figures.of_vms(&rates);
        figures.of_waiting(&rates);
        figures.of_places(&rates);
        figures.of_host(&rates);
        figures
    }

    fn put(&mut self, what: &str, values: BTreeMap<String, f64>) {
        self.all.extend(
            values
                .into_iter()
                .map(|(of, value)| (format!("{what} {of}"), value)),
        );
    }

    fn of_vms(&mut self, rates: &Rates<'_>) {
        let guest = [("mode", "guest")];
        let time = rates.vm("kvm_vcpu_time_seconds_total", &[]);
        let instructions = rates.vm("kvm_vcpu_instructions_total", &guest);
        let misses = rates.vm("kvm_vcpu_cache_misses_total", &guest);
        self.put(
            "cpi",
            over(&rates.vm("kvm_vcpu_cycles_total", &guest), &instructions),
        );
        self.put("mpki", over(&misses, &instructions));
        self.put("exits", over(&rates.vm("kvm_vcpu_exits_total", &[]), &time));
        let loads = rates.vm("kvm_vcpu_dram_loads_total", &guest);
        let far = [("mode", "guest"), ("target", "remote")];
        self.put(
            "dram_remote",
            over(&rates.vm("kvm_vcpu_dram_loads_total", &far), &loads),
        );
        self.put(
            "quota",
            over(
                &rates.vm("kvm_vm_cpu_throttled_periods_total", &[]),
                &rates.vm("kvm_vm_cpu_periods_total", &[]),
            ),
        );
        self.put(
            "iothread",
            rates.vm("kvm_vm_thread_time_seconds_total", &[("role", "iothread")]),
        );
        self.put("busy", time);
    }

    /// Of each VM the vCPU that waits most.
    fn of_waiting(&mut self, rates: &Rates<'_>) {
        let by = ["vm", "vcpu"];
        let time = rates.by(&by, "kvm_vcpu_time_seconds_total", &[]);
        let delay = rates.by(&by, "kvm_vcpu_delay_seconds_total", &[]);
        let wanted = time
            .iter()
            .map(|(vcpu, time)| (vcpu.clone(), time + delay[vcpu]));
        for (vcpu, ratio) in over(&delay, &wanted.collect()) {
            let vm = vcpu.rsplit_once(':').map_or(&*vcpu, |(vm, _)| vm);
            let most = self.all.entry(format!("delay {vm}")).or_insert(0.0);
            *most = most.max(ratio);
        }
    }

    fn of_places(&mut self, rates: &Rates<'_>) {
        let core = ["package", "core"];
        let cores = rates.by(&core, "kvm_host_cpu_vcpu_time_seconds_total", &[]);
        let by = ["vm", "package", "core"];
        let mut shared: BTreeMap<String, f64> = BTreeMap::new();
        for (place, time) in rates.by(&by, "kvm_vcpu_time_seconds_total", &[]) {
            let (vm, core) = place.split_once(':').expect("it has three parts");
            let both = (cores[core] - 1.0).max(0.0) / cores[core].max(0.001);
            *shared.entry(vm.to_owned()).or_default() += 2.0 * both * time;
        }
        self.put(
            "smt",
            over(&shared, &rates.vm("kvm_vcpu_time_seconds_total", &[])),
        );
        self.put("core", cores);
        // Where each VM runs, by its first vCPU.
        let first = rates.after.all("kvm_vcpu_placement_info", &[("vcpu", "0")]);
        for (vm, node) in first.map(|info| (info.label("vm"), info.label("numa_node"))) {
            let bytes = |labels: &[(&str, &str)]| rates.after.sum("kvm_vm_memory_bytes", labels);
            let all = bytes(&[("vm", vm)]).expect("its memory is known");
            let near = bytes(&[("vm", vm), ("numa_node", node)]).unwrap_or(0.0);
            self.all
                .insert(format!("memory_remote {vm}"), 1.0 - near / all);
            let devices =
                |labels: &[(&str, &str)]| rates.after.all("kvm_vm_device_info", labels).count();
            let far = devices(&[("vm", vm)]) - devices(&[("vm", vm), ("numa_node", node)]);
            self.all.insert(format!("device_remote {vm}"), far as f64);
        }
    }

    fn of_host(&mut self, rates: &Rates<'_>) {
        let throttled = rates.by(
            &["package"],
            "kvm_host_package_throttled_seconds_total",
            &[],
        );
        self.put("throttled", throttled);
        let running = rates.by(&[], "kvm_vcpu_pmu_running_seconds_total", &[]);
        let enabled = rates.by(&[], "kvm_vcpu_pmu_enabled_seconds_total", &[]);
        self.all
            .insert("running 0".into(), running[""] / enabled[""]);
        for package in ["0", "1"] {
            let mean = |name| {
                let all: Vec<f64> = rates
                    .after
                    .all(name, &[("package", package)])
                    .map(|s| s.value)
                    .collect();
                all.iter().sum::<f64>() / all.len() as f64
            };
            let ratio =
                mean("kvm_host_core_frequency_hertz") / mean("kvm_host_core_frequency_base_hertz");
            self.all.insert(format!("frequency {package}"), ratio);
        }
    }
}

/// Of each that has both.
fn over(a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let ratio =
        |(key, a): (&String, &f64)| Some((key.clone(), a / b.get(key).filter(|b| **b > 0.0)?));
    a.iter().filter_map(ratio).collect()
}

/// Figures that differ by more than noise.
pub(crate) fn changed(before: &Figures, after: &Figures) -> Vec<String> {
    let differs = |(name, now): (&String, &f64)| {
        let was = before.all.get(name)?;
        let what = name.split(' ').next().unwrap_or_default();
        let most = match what {
            // What a VM is charged for moves with where it and others run.
            "core" => return None,
            "delay" | "throttled" | "quota" | "smt" | "memory_remote" | "dram_remote" => 0.1,
            "device_remote" => 0.5,
            "cpi" | "frequency" | "running" => 0.15 * was,
            "iothread" => 0.1,
            _ => 0.4 * was,
        };
        ((now - was).abs() > most).then(|| name.clone())
    };
    after.all.iter().filter_map(differs).collect()
}

/// Time and delay of each vCPU so far.
pub(crate) fn time_and_delay(shown: &Exposition) -> BTreeMap<String, [f64; 2]> {
    let mut all: BTreeMap<String, [f64; 2]> = BTreeMap::new();
    let names = [
        "kvm_vcpu_time_seconds_total",
        "kvm_vcpu_delay_seconds_total",
    ];
    for (n, name) in names.into_iter().enumerate() {
        for sample in shown.all(name, &[]) {
            let vcpu = format!("{}:{}", sample.label("vm"), sample.label("vcpu"));
            all.entry(vcpu).or_default()[n] += sample.value;
        }
    }
    all
}
