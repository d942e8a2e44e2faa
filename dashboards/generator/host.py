"""KVM / Host: the topology of one host and who runs where."""

from .frame import dashboard as framed
from .frame import to_cell, to_series
from .layout import row
from .panels import GREEN, ORANGE, RED, YELLOW, bargauge, heatmap, query, says, stat, state_timeline, steps, timeseries
from .selectors import CORE_DEMAND, HOST, MISSES, PLACE, TIME_BY_LLC, by_core, worst, worst_of
from .tables import column, core_demand, table
from .words import LIMITS, runbook

VM_CELL = to_cell("kvm-vm", "vm", job=None, instance=None)
VCPU_CELL = to_cell("kvm-vcpu", "vm", "vcpu", job=None, instance=None)
VM_SERIES = to_series("kvm-vm", "vm", job=None, instance=None)


def glance():
    age = LIMITS["KvmExporterSampleTooOld"]
    return [
        stat(
            "Exporter",
            f"""Whether Prometheus reaches the exporter of this host. While it is down nothing on this page is new.
            {runbook("KvmExporterDown")}""",
            [query(f"max(up{{{HOST}}})")],
            "none",
            limits=steps((1, GREEN), base=RED),
            graph="none",
            mappings=[says({"1": ("up", GREEN), "0": ("DOWN", RED)})],
        ),
        stat(
            "Age of the sample",
            f"""How old the newest sample was when it was scraped. Up to a few seconds is good. Over {age} s the
            sampler is stuck or starved, and totals stand still. {runbook("KvmExporterSampleTooOld")}""",
            [query(f"max(kvm_exporter_sample_age_seconds{{{HOST}}})")],
            "s",
            limits=steps((5, YELLOW), (age, RED)),
            decimals=1,
        ),
        stat("VMs", """VMs that run here now.""", [query(f"count(kvm_vm_info{{{HOST}}})")], "none", none="0"),
        stat(
            "vCPUs per CPU",
            """Overcommit: vCPUs over online CPUs. It is a plan, not a load: look at the demand beside it. Over 1
            VMs can get in each other's way when all are busy.""",
            [query(f"max(kvm_host:overcommit:ratio{{{HOST}}})")],
            "none",
            decimals=2,
        ),
        stat(
            "Demand",
            f"""What vCPUs and the VMs' other threads want, time on a core and waiting for one, over the online
            CPUs. Below 80 % there is room. Over 100 % somebody always waits: move VMs away.
            {runbook("KvmVcpuDelayHigh")}""",
            [query(f"max(kvm_host:demand:ratio{{{HOST}}})")],
            "percentunit",
            decimals=0,
            limits=steps((0.8, YELLOW), (1, RED)),
        ),
        stat(
            "Imbalance",
            f"""Imbalance of the cores' demand. 1 is even. Over 2 with a demand below 100 % pinning or NUMA
            placement makes vCPUs wait while other cores idle. {runbook("KvmCoreOvercommitted")}""",
            [query(f"max(kvm_host:core_imbalance:max_over_mean{{{HOST}}})")],
            "none",
            decimals=1,
            limits=steps((2, YELLOW), (4, ORANGE)),
        ),
        stat(
            "Too hot",
            f"""Share of the last five minutes in which the hottest package was too hot and slowed its cores down.
            Good: 0. Over 5 %: fans, inlet air, power limits. {runbook("KvmPackageThrottled")}""",
            [query(f"max(kvm_host_package:throttled_ratio:rate5m{{{HOST}}})")],
            "percentunit",
            decimals=0,
            limits=steps((LIMITS["KvmPackageThrottled"], RED)),
            none="unknown",
        ),
        stat(
            "Counters counted",
            f"""Share of the time in which hardware counters counted. 100 % is good. Below 50 % they take turns, and
            CPI and misses are estimates: count fewer events, or look who else uses the PMU.
            {runbook("KvmPmuMultiplexed", "KvmPmuHostOnly")}""",
            [query(f"max(kvm_host:pmu_running_ratio:rate5m{{{HOST}}})")],
            "percentunit",
            decimals=0,
            limits=steps((LIMITS["KvmPmuMultiplexed"], YELLOW), (0.95, GREEN), base=RED),
            none="no PMU",
        ),
    ]


def cores():
    limit = LIMITS["KvmCoreOvercommitted"]
    threads = f"kvm_host_core:threads:count{{{HOST}}}"
    demand = f"kvm_host_core:demand:rate5m{{{HOST}}} / on (job, instance, package, core, numa_node) {threads}"
    return heatmap(
        "Demand of each core over time (node, package, core)",
        f"""One row a core, named by NUMA node, package and core; the colour is the demand for each of its threads:
        what vCPUs and the VMs' other threads wanted, on it or waiting. Green is room, yellow is busy, from {limit}
        on (red) somebody waits. Red rows beside green ones of the same node: spread the VMs out, see the table
        beside. {runbook("KvmCoreOvercommitted")}""",
        [query(by_core(demand), PLACE)],
        "none",
        width=13,
        height=22,
        low=0,
        high=1.5,
    )


def who():
    place = f"kvm_vcpu_placement_info{{{HOST}}}"
    demand = f"{place}\n  * on (job, instance, package, core) group_left ()\n    {CORE_DEMAND}"
    wait = f"{place}\n  * on (job, instance, vm, vcpu) group_left () kvm_vcpu:delay_ratio:rate5m{{{HOST}}}"
    cpi = f'{place}\n  * on (job, instance, vm, vcpu) group_left () kvm_vcpu:cpi:rate5m{{{HOST},mode="guest"}}'
    return table(
        "Who runs there now",
        f"""Each vCPU with the core where it was found last, the demand of that core in all, the share of time the
        vCPU waits, and its CPI. Sorted by the core's demand: rows of one core at the top share it. A core with two
        threads serves a demand of 2. A click opens the VM or vCPU.
        {runbook("KvmCoreOvercommitted", "KvmVcpuDelayHigh", "KvmVcpuStarved")}""",
        [query(demand), query(wait), query(cpi)],
        [
            column("numa_node", "Node", width=55),
            column("package", "Pkg", width=50),
            column("core", "Core", width=55),
            column("cpu", "CPU", width=55),
            column("vm", "VM", links=[VM_CELL]),
            column("vcpu", "vCPU", width=60, links=[VCPU_CELL]),
            core_demand("Value #A", width=115),
            column(
                "Value #B",
                "Delay",
                width=75,
                unit="percentunit",
                decimals=1,
                cell="color-text",
                limits=steps((LIMITS["KvmVcpuDelayHigh"], ORANGE), (LIMITS["KvmVcpuDelayCritical"], RED)),
            ),
            column("Value #C", "CPI", width=60, unit="none", decimals=2),
        ],
        width=11,
        height=22,
        sort=("Core demand", True),
        none="No vCPU runs here",
        filterable=True,
    )


def load():
    return [
        timeseries(
            "Demand of each package",
            f"""Cores' worth of CPU wanted on each package (socket). Even lines are good; one high and one low:
            memory and devices permitting, move VMs to the other. {runbook("KvmCoreOvercommitted")}""",
            [query(f"kvm_host_package:demand:rate5m{{{HOST}}}", "package {{package}}")],
            "suffix:cores",
            decimals=1,
        ),
        timeseries(
            "Imbalance over time",
            f"""The busiest core or package over the mean, and the coefficient of variation (spread over mean). Even
            is 1 and 0. High for cores with little demand: pinning, or few busy vCPUs. High for packages: placement
            of VMs. {runbook("KvmCoreOvercommitted")}""",
            [
                query(f"kvm_host:core_imbalance:max_over_mean{{{HOST}}}", "cores, busiest over mean"),
                query(f"kvm_host:core_imbalance:cv{{{HOST}}}", "cores, variation"),
                query(f"kvm_host:package_imbalance:max_over_mean{{{HOST}}}", "packages, busiest over mean"),
                query(f"kvm_host:package_imbalance:cv{{{HOST}}}", "packages, variation"),
            ],
            "none",
            decimals=1,
        ),
        timeseries(
            "Busiest VMs",
            f"""Cores' worth of time of the ten VMs that use most. A click opens the VM. Use alone is no trouble;
            look at delay when others wait. {runbook("KvmVcpuDelayHigh")}""",
            [query(worst(10, "vm", f"kvm_vm:time:rate5m{{{HOST}}}"), "{{vm}}")],
            "suffix:cores",
            legend="table",
            decimals=1,
            links=[VM_SERIES],
        ),
    ]


def sharing():
    smt = f"kvm_host_core:smt_shared:rate5m{{{HOST}}}"
    return [
        timeseries(
            "Neighbours in each last-level cache",
            f"""Who shares an LLC: cores' worth of time of each VM in each cache, the 16 largest. VMs of one cache
            push each other's data out. When a victim's misses rise, look for who grew here at that time, and at
            misses beside. {runbook("KvmVmCacheMissStorm", "KvmVmCpiAbovePeers")}""",
            [query(worst_of(16, "vm, llc", TIME_BY_LLC), "LLC {{llc}}: {{vm}}")],
            "suffix:cores",
            width=12,
            height=9,
            stack=True,
            legend="table",
            decimals=1,
            links=[VM_SERIES],
        ),
        timeseries(
            "Cache misses a second, by VM",
            f"""Misses of the last-level cache (of L2 on AMD) of the ten VMs with most. The one that grew first is
            the likely noisy neighbour; the others' CPI follows. Move it to another cache, or limit it.
            {runbook("KvmVmCacheMissStorm")}""",
            [query(worst_of(10, "vm", MISSES), "{{vm}}")],
            "short",
            width=12,
            height=9,
            legend="table",
            links=[VM_SERIES],
        ),
        heatmap(
            "Time both threads of a core were busy",
            f"""SMT: seconds a second in which two vCPUs ran on one core at once, at least. Each then gets much less
            than the core. Dark is good. Bright while other cores of the node are idle: pin siblings apart or let
            the scheduler choose. {runbook("KvmVmSmtContention")}""",
            [query(by_core(smt), PLACE)],
            "percentunit",
            width=12,
            height=14,
            low=0,
            high=1,
            scheme="Oranges",
            zeros=False,
        ),
        bargauge(
            "VMs beside busy siblings",
            f"""Share of each VM's time on a core whose other thread was busy too, the 15 highest. Over 30 % is
            trouble when cores of its nodes are idle; with none idle it is what SMT is for.
            {runbook("KvmVmSmtContention")}""",
            [query(f"topk(15, kvm_vm:smt_shared_ratio:rate5m{{{HOST}}})", "{{vm}}", now=True)],
            "percentunit",
            width=12,
            height=14,
            limits=steps((LIMITS["KvmVmSmtContention"], ORANGE)),
            decimals=0,
            maximum=1,
            links=[VM_SERIES],
        ),
    ]


def speed():
    ratio = f"kvm_host_core:frequency:ratio{{{HOST}}}"
    return [
        timeseries(
            "Frequency of each package",
            f"""The slowest and the mean core of each package, over the frequency it is made for. At or above 100 %
            is good under load; idle cores may be slow. Below 90 % and busy: heat, power limits, or the governor.
            {runbook("KvmPackageThrottled")}""",
            [
                query(f"min by (job, instance, package) ({ratio})", "package {{package}}, slowest core"),
                query(f"avg by (job, instance, package) ({ratio})", "package {{package}}, mean"),
            ],
            "percentunit",
            decimals=0,
        ),
        timeseries(
            "Throttled for heat",
            f"""Share of time each package was too hot and slowed down. Good: 0. Over 5 % every VM on it is slower.
            {runbook("KvmPackageThrottled")}""",
            [query(f"kvm_host_package:throttled_ratio:rate5m{{{HOST}}}", "package {{package}}")],
            "percentunit",
            limits=[(LIMITS["KvmPackageThrottled"], RED)],
            decimals=0,
        ),
        timeseries(
            "Temperature",
            f"""Temperature of each package. Compare it with its neighbours; throttling beside says when it is too
            high. {runbook("KvmPackageThrottled")}""",
            [query(f"kvm_host_temperature_celsius{{{HOST}}}", "package {{package}}")],
            "celsius",
            decimals=0,
        ),
    ]


def numa():
    return [
        timeseries(
            "NUMA memory, by node and use",
            f"""Memory of each node by use. Free and file are room. A node whose room is gone gives new VMs memory
            of the other node: place them elsewhere, or make room. {runbook("KvmVmMemoryRemote")}""",
            [query(f"kvm_host_numa_memory_bytes{{{HOST}}} > 0", "node {{numa_node}} {{state}}")],
            "bytes",
            stack=True,
            legend="table",
            width=10,
            height=9,
            decimals=0,
        ),
        timeseries(
            "vCPU time of each node",
            f"""Cores' worth of vCPU time on each NUMA node. Even is good where VMs are spread evenly.
            {runbook("KvmVmSpreadOverNodes")}""",
            [query(f"sum by (job, instance, numa_node) (kvm_vm:time_by_node:rate5m{{{HOST}}})", "node {{numa_node}}")],
            "suffix:cores",
            width=7,
            height=9,
            stack=True,
            decimals=1,
        ),
        table(
            "NUMA distances",
            """How far memory of each node (column) is from each node (row), as firmware tells it: 10 is the node
            itself, 20 about twice as slow to reach. Keep a VM's vCPUs and memory on one node.""",
            [query(f"max by (from, to) (kvm_host_numa_distance{{{HOST}}})")],
            [column(r"from\to", "From / to")],
            width=7,
            height=9,
            unit="none",
            matrix=("from", "to"),
        ),
    ]


def topology():
    return table(
        "Topology",
        """What the host is made of: logical CPUs online of each node, package and last-level cache, and how many
        vCPUs were found there last.""",
        [
            query(f'count by (numa_node, package, llc) (kvm_host_cpu_info{{{HOST},online="true"}})'),
            query(f"""
                count by (numa_node, package, llc) (
                  kvm_vcpu_placement_info{{{HOST}}}
                    * on (job, instance, cpu) group_left (llc)
                      max by (job, instance, cpu, llc) (kvm_host_cpu_info{{{HOST},online="true"}})
                )"""),
        ],
        [
            column("numa_node", "Node", width=70),
            column("package", "Package", width=80),
            column("llc", "LLC", width=70),
            column("Value #A", "CPUs", unit="none"),
            column("Value #B", "vCPUs now", unit="none"),
        ],
        width=12,
        height=5,
        sort=("Node", False),
    )


def kernel():
    return table(
        "Kernel and CPU",
        """Kernel, microcode and model of the CPU. Hosts of one model are comparable; a difference in microcode or
        kernel between two of them is worth a thought when only one has trouble.""",
        [query(f"max by (cpu_model, kernel, microcode) (kvm_host_info{{{HOST}}})")],
        [column("cpu_model", "CPU"), column("kernel", "Kernel"), column("microcode", "Microcode", width=110)],
        width=12,
        height=4,
        none="unknown",
    )


def sources():
    up = says({"1": ("up", GREEN), "0": ("off", RED)})
    return table(
        "Sources of the exporter",
        f"""What the exporter reads, and why not where it does not. Up with a reason is up in part. `vcpu-exporter
        check` on the host says what mends it. {runbook("KvmExporterSourceDegraded")}""",
        [query(f"max by (source, reason) (kvm_exporter_source_up{{{HOST}}})")],
        [
            column("source", "Source", width=140),
            column("Value", "State", width=80, mappings=[up], cell="color-text"),
            column("reason", "Reason"),
        ],
        width=12,
        height=9,
        sort=("State", False),
    )


def troubles():
    return [
        state_timeline(
            "VMs in trouble here",
            f"""The worst score of each VM that is at least near trouble: yellow from 0.8 of an alert's limit on,
            red from 1 on. A click opens the VM, which explains it. {runbook("that of the cause on KVM / VM")}""",
            [query(f"max by (job, instance, vm) (kvm_vm:trouble:score{{{HOST}}}) >= 0.8", "{{vm}}")],
            "none",
            width=24,
            height=9,
            limits=steps((0.8, YELLOW), (1, RED)),
            links=[VM_SERIES],
            legend=False,
        )
    ]


def dashboard():
    smt = sharing()
    return framed(
        "kvm-host",
        "One KVM host: its nodes, packages and cores, who runs there, and what they share.",
        [
            glance(),
            [cores(), who()],
            troubles(),
            row("Load"),
            load(),
            row("What VMs share: caches and threads of cores"),
            smt[:2],
            smt[2:],
            row("NUMA"),
            numa(),
            row("Frequency and heat"),
            speed(),
            row("The host and its exporter"),
            [([topology()], [kernel()]), sources()],
        ],
    )
