//! Machine facts of three machines in sysfs, procfs and /dev: frequencies, throttling, sensors,
//! NUMA memory, CPU features, KVM parameters, vulnerabilities and the kernel log. Texts are from
//! Linux 6.x, shortened.

use super::files::machine::{self, NodeMemory, Ticks, CPU, NODE};
use super::FakeHost;

impl FakeHost {
    /// RK3588 (4 + 2 + 2 cores, no SMT) with device tree on Linux 6.0 and later: core_id counts
    /// within a cluster, and the package is 0 for all CPUs (drivers/base/arch_topology.c).
    pub fn rk3588(&self) -> &Self {
        self.cpus(1, 8, 1, 1);
        for (cpu, [cluster, core]) in (0..).zip([
            [0, 0],
            [0, 1],
            [0, 2],
            [0, 3],
            [1, 0],
            [1, 1],
            [2, 0],
            [2, 1],
        ]) {
            self.file(
                format!("{CPU}/cpu{cpu}/topology/core_id"),
                format!("{core}\n"),
            );
            self.files(machine::parts(cpu, -1, cluster));
            let khz = if cluster == 0 { 1_800_000 } else { 2_400_000 };
            self.frequency(cpu, khz, 408_000, khz);
        }
        self
    }

    /// A virtual machine with `-smp sockets=1,dies=2,cores=16` whose kernel counts core_id within a
    /// die.
    pub fn guest_of_two_dies(&self) -> &Self {
        self.cpus(1, 32, 1, 1);
        for cpu in 0..32 {
            self.file(
                format!("{CPU}/cpu{cpu}/topology/core_id"),
                format!("{}\n", cpu % 16),
            );
            self.die(cpu, cpu / 16);
        }
        self
    }

    /// The die of a CPU, without a cluster.
    pub fn die(&self, cpu: u32, die: u32) -> &Self {
        self.files(machine::parts(cpu, die as i32, 65_535))
    }

    /// Frequencies of a CPU in kHz: current, lowest, highest.
    pub fn frequency(&self, cpu: u32, now: u64, min: u64, max: u64) -> &Self {
        self.files(machine::frequency(cpu, now, min, max))
    }

    /// Throttle counters of a CPU on Intel: count and milliseconds of core and package.
    pub fn throttles(&self, cpu: u32, core: [u64; 2], package: [u64; 2]) -> &Self {
        self.files(machine::throttles(cpu, core, package))
    }

    /// CPU times of the online CPUs, in clock ticks and the order of /proc/stat.
    pub fn stat(&self, cpus: &[(u32, Ticks)]) -> &Self {
        self.files(machine::stat(cpus))
    }

    /// The same for `cpus` CPUs with slightly different times: half of each is guest time.
    fn busy(&self, cpus: u32) -> &Self {
        let times = |cpu| {
            let n = u64::from(cpu);
            let guest = 50_000 + 100 * n;
            (
                cpu,
                [guest + 900, 40, 700 + n, 60_000, 20, 5, 30, 0, guest, 0],
            )
        };
        self.stat(&(0..cpus).map(times).collect::<Vec<_>>())
    }

    /// An hwmon chip with label and thousandths of a degree of each temperature.
    pub fn sensor(&self, n: u32, name: &str, device: &str, temperatures: &[(&str, i64)]) -> &Self {
        self.files(machine::sensor(n, name, temperatures));
        let link = format!("sys/class/hwmon/hwmon{n}/device");
        self.link(link, &format!("../../../{device}"))
    }

    pub fn node_memory(&self, node: u32, m: NodeMemory) -> &Self {
        self.files(machine::node_memory(node, m))
    }

    /// Distances of a node, as reported by firmware.
    pub fn distance(&self, node: u32, distances: &str) -> &Self {
        self.file(
            format!("{NODE}/node{node}/distance"),
            format!("{distances}\n"),
        )
    }

    /// Allocations of a node, in the order of numastat.
    pub fn numastat(&self, node: u32, outcomes: [u64; 6]) -> &Self {
        self.files(machine::numastat(node, outcomes))
    }

    /// A node's pool of huge pages of `size_kb` kB.
    pub fn pool(&self, node: u32, size_kb: u64, total: u64, free: u64) -> &Self {
        self.files(machine::pool(node, size_kb, total, free))
    }

    /// Further lines of the first CPU in cpuinfo.
    pub fn cpuinfo(&self, lines: &[(&str, &str)]) -> &Self {
        let before = std::fs::read_to_string(self.path("proc/cpuinfo")).unwrap_or_default();
        let lines = lines
            .iter()
            .map(|(key, value)| format!("\n{key}\t: {value}"));
        let lines = lines.collect::<String>();
        let block = format!("{}{lines}\n\n", before.trim_end());
        self.file("proc/cpuinfo", block)
    }

    /// A module parameter.
    pub fn parameter(&self, module: &str, parameter: &str, value: &str) -> &Self {
        let file = format!("sys/module/{module}/parameters/{parameter}");
        self.file(file, format!("{value}\n"))
    }

    /// A vulnerability of the CPU.
    pub fn vulnerability(&self, name: &str, text: &str) -> &Self {
        self.file(format!("{CPU}/vulnerabilities/{name}"), format!("{text}\n"))
    }

    /// Kernel release, SMT state, and isolated CPUs.
    pub fn system(&self, kernel: &str, smt: bool, isolated: &str) -> &Self {
        self.file("proc/sys/kernel/osrelease", format!("{kernel}\n"));
        self.file(format!("{CPU}/smt/active"), format!("{}\n", u8::from(smt)));
        self.file(format!("{CPU}/isolated"), format!("{isolated}\n"))
    }

    /// The kernel log: its contents at open, and later everything.
    pub fn kernel_log(&self, text: &str) -> &Self {
        self.file("dev/kmsg", text)
    }

    /// Signs that the kernel would log each kind of line: an EDAC driver, recovery from memory
    /// errors, and KVM's reports of unknown registers. Throttling and split locks have other signs.
    pub fn logs_every_kind(&self) -> &Self {
        self.file("sys/devices/system/edac/mc/mc0/ce_count", "0\n")
            .file("proc/sys/vm/memory_failure_early_kill", "0\n")
            .parameter("kvm", "report_ignored_msrs", "Y")
    }

    /// A two-socket Xeon: 2 x 4 cores with 2 threads, one node each; throttled once.
    pub fn xeon_server(&self) -> &Self {
        for cpu in 0..16 {
            // Second threads are idle.
            let now = if cpu < 8 {
                2_900_000 + u64::from(cpu)
            } else {
                800_000
            };
            self.frequency(cpu, now, 800_000, 3_500_000);
            let base = format!("{CPU}/cpu{cpu}/cpufreq/base_frequency");
            self.file(base, "2400000\n");
            let hot = u64::from(cpu % 8 == 2);
            let package = u64::from(cpu % 8 < 4);
            self.throttles(cpu, [3 * hot, 1200 * hot], [7 * package, 4500 * package]);
        }
        for package in 0..2 {
            let label = format!("Package id {package}");
            let temperatures = [
                (&*label, 61_000 + 4_500 * i64::from(package)),
                ("Core 0", 59_000),
            ];
            self.sensor(
                package,
                "coretemp",
                &format!("coretemp.{package}"),
                &temperatures,
            );
            let memory = NodeMemory {
                total: 64 << 20,
                free: 5 << 20,
                anon: 20 << 20,
                file: 8 << 20,
                shmem: 2 << 20,
                slab: 1 << 20,
            };
            self.node_memory(package, memory);
            let n = u64::from(package);
            self.numastat(
                package,
                [9_000_000 + n, 100 * n, 100 - 100 * n, 1134, 8_999_000, 1000],
            );
            self.pool(package, 2048, 1024, 24)
                .pool(package, 1 << 20, 16, 4);
        }
        self.distance(0, "10 21").distance(1, "21 10");
        self.cpuinfo(&[
            ("microcode", "0xd0003f6"),
            (
                "flags",
                "fpu vme mce vmx ept vpid smx intel_pt hle avx2 smep smap md_clear cqm_occup_llc cqm_mbm_total split_lock_detect",
            ),
            ("vmx flags", "vnmi preemption_timer posted_intr invvpid apicv ept_x_only"),
        ]);
        for (module, parameter, value) in [
            ("kvm", "halt_poll_ns", "200000"),
            ("kvm", "enable_pmu", "Y"),
            ("kvm", "nx_huge_pages", "Y"),
            ("kvm_intel", "pt_mode", "0"),
            ("kvm_intel", "nested", "Y"),
            ("kvm_intel", "ept", "Y"),
            ("kvm_intel", "enable_mediated_pmu", "N"),
        ] {
            self.parameter(module, parameter, value);
        }
        self.vulnerability("meltdown", "Not affected")
            .vulnerability("itlb_multihit", "KVM: Mitigation: Split huge pages")
            .vulnerability(
                "mmio_stale_data",
                "Mitigation: Clear CPU buffers; SMT vulnerable",
            )
            .system("6.12.43+deb13-amd64", true, "2-3,10-11")
            .busy(16)
            .logs_every_kind()
            .kernel_log("4,1,1,-;mce: [Hardware Error]: logged before\n")
    }

    /// A two-socket EPYC in NPS4 mode: 2 x 8 cores with 2 threads, four nodes each, SEV-SNP on.
    pub fn epyc_server(&self) -> &Self {
        for cpu in 0..32 {
            self.frequency(cpu, 3_400_000, 1_500_000, 3_700_000);
            let nominal = format!("{CPU}/cpu{cpu}/acpi_cppc/nominal_freq");
            self.file(nominal, "2450\n");
        }
        // Unsorted, like a directory listing.
        self.sensor(0, "nvme", "nvme0", &[("Composite", 40_000)])
            .sensor(
                1,
                "k10temp",
                "0000:00:19.3",
                &[("Tctl", 71_250), ("Tccd1", 70_000)],
            )
            .sensor(2, "k10temp", "0000:00:18.3", &[("Tctl", 55_875)]);
        for node in 0..8u32 {
            let memory = NodeMemory {
                total: 32 << 20,
                free: 20 << 20,
                anon: 4 << 20,
                file: 3 << 20,
                shmem: 0,
                slab: 1 << 19,
            };
            self.node_memory(node, memory);
            let to = |to: u32| match (to == node, to / 4 == node / 4) {
                (true, _) => "10",
                (_, true) => "12",
                _ => "32",
            };
            self.distance(node, &(0..8).map(to).collect::<Vec<_>>().join(" "));
            self.pool(node, 1 << 20, 4, 0);
        }
        self.cpuinfo(&[
            ("microcode", "0xa0011d5"),
            (
                "flags",
                "fpu vme svm ibs npt avic x2avic smep smap sme sev sev_es sev_snp avx2",
            ),
        ]);
        for (module, parameter, value) in [
            ("kvm", "halt_poll_ns", "0"),
            ("kvm", "enable_pmu", "Y"),
            ("kvm_amd", "avic", "Y"),
            ("kvm_amd", "nested", "1"),
            ("kvm_amd", "npt", "Y"),
            ("kvm_amd", "sev_snp", "Y"),
        ] {
            self.parameter(module, parameter, value);
        }
        self.vulnerability("meltdown", "Not affected")
            .vulnerability("spec_rstack_overflow", "Vulnerable: Safe RET, no microcode")
            .busy(32)
            .system("6.8.12-15-pve", true, "")
    }

    /// A hybrid client with 2 performance cores of 2 threads and 4 efficiency cores.
    pub fn hybrid_client(&self) -> &Self {
        for cpu in 0..8 {
            let max = if cpu < 4 { 5_200_000 } else { 3_900_000 };
            self.frequency(cpu, max - 1_000_000, 800_000, max);
            self.throttles(cpu, [0, 0], [1, 5]);
        }
        let temperatures = [("Package id 0", 48_000), ("Core 0", 47_000)];
        self.sensor(0, "coretemp", "coretemp.0", &temperatures);
        self.cpuinfo(&[
            ("microcode", "0x3a"),
            ("flags", "fpu vmx ept intel_pt smep smap"),
            ("vmx flags", "vnmi posted_intr ept_5level"),
        ]);
        self.parameter("kvm", "halt_poll_ns", "200000")
            .parameter("kvm_intel", "nested", "N")
            .vulnerability("retbleed", "Not affected")
            .busy(8)
            .system("6.17.0", true, "")
    }
}
