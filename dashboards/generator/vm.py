"""KVM / VM: why one VM is slow, on one page and one time axis."""

from .frame import dashboard as framed
from .frame import to_cell, to_runbook, to_series
from .layout import row
from .panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    color,
    override,
    override_re,
    query,
    says,
    stat,
    state_timeline,
    steps,
    timeseries,
)
from .selectors import HOST, MISSES, TIME_BY_LLC, VM, worst
from .tables import column, table
from .words import CAUSES, LIMITS, NOTHING, ONLY_SYMPTOMS, UNKNOWN, runbook

SCORE = f"kvm_vm:trouble:score{{{VM}}}"
NEIGHBOUR = to_series("kvm-vm", "vm", job=None, instance=None)
VCPU_SERIES = to_series("kvm-vcpu", "vcpu", job=None, instance=None, vm=None)


def _by_cause(score):
    """The score of each cause, which `score` makes of a selector, with the cause's runbook."""
    with_runbook = lambda expr, name: f'label_replace({expr}, "runbook", "{name}", "", "")'
    of = lambda cause: f'kvm_vm:trouble:score{{{VM},cause="{cause}"}}'
    return "\nor ".join(with_runbook(score(of(cause)), name) for cause, (_, name, _) in CAUSES.items())


def _over(selector):
    """Over its limit for a tenth of the time shown, or now: a moment is no trouble."""
    return f"(quantile_over_time(0.9, {selector}[$__range]) >= 1 or {selector} >= 1)"


def _worst(selector):
    return f"max by (job, instance, vm, cause) (max_over_time({selector}[$__range]) and {_over(selector)})"


def _now(selector):
    return f"max by (job, instance, vm, cause) ({selector}) and {_worst(selector)}"


def _verdict_query():
    """Every cause that was over its limit; else that there is none, CPI high or not; else that nothing is known."""
    score = lambda causes: f"kvm_vm:trouble:score{{{VM}{causes}}}"
    row_of = lambda expr, cause: f'label_replace(0 * {expr}, "cause", "{cause}", "", "")'
    explained = "max by (job, instance, vm) " + _over(score(',cause!~"cpi_.*"'))
    symptom = "max by (job, instance, vm) " + _over(score(',cause=~"cpi_.*"'))
    known = f"max by (job, instance, vm) (max_over_time({score('')}[$__range]))"
    exists = f"max by (job, instance, vm) (kvm_vm_info{{{VM}}})"
    return "\nor ".join(
        [
            _by_cause(_worst),
            row_of(f"{symptom} unless {explained}", "symptom"),
            row_of(f"{known} unless {explained} unless {symptom}", "none"),
            row_of(f"{exists} unless {known}", "unknown"),
        ]
    )


def verdict():
    words = {cause: (sentence, RED) for cause, (_, _, sentence) in CAUSES.items()}
    words["cpi_week"] = (words["cpi_week"][0], ORANGE)
    words["cpi_peers"] = (words["cpi_peers"][0], ORANGE)
    words["symptom"] = (ONLY_SYMPTOMS, BLUE)
    words["none"] = (NOTHING, GREEN)
    words["unknown"] = (UNKNOWN, BLUE)
    score = {"unit": "none", "decimals": 1, "limits": steps((1, ORANGE), (2, RED))}
    return table(
        "Why is it slow?",
        f"""The verdict: every cause that is over its limit, or was for a tenth of the time shown, in a sentence,
        the worst now first. The score is what is observed over the limit of the cause's alert. When no cause on the
        host is over its limit it says so, and the guest itself is where to look: its own load, its programs, its
        I/O. A cause that is below 1 now was there before: move the time to when it began. A click on the runbook
        opens it. {runbook("the one in the row")}""",
        [query(_verdict_query()), query(_by_cause(_now))],
        [
            column("cause", "Verdict", mappings=[says(words)], cell="color-text"),
            column("Value #B", "Now", width=150, cell="gauge", maximum=5, **score),
            column("Value #A", "Worst", width=80, cell="color-text", **score),
            column("runbook", "Runbook", width=215, links=[to_runbook("instance", "__value.raw")]),
        ],
        width=24,
        height=7,
        sort=("Now", True),
        none="Nothing is known about this VM: it does not run here now, or Prometheus does not scrape its host",
    )


def facts():
    return table(
        "The VM",
        """What the VM is, as its manager says. A click on the host opens KVM / Host. Empty where the manager does
        not tell.""",
        [query(f"max by (instance, vmm, manager, openstack_flavor, openstack_project) (kvm_vm_info{{{VM}}})")],
        [
            column("instance", "Host", links=[to_cell("kvm-host", job=None, instance=None)]),
            column("manager", "Manager", width=110),
            column("vmm", "VMM", width=65),
            column("openstack_flavor", "Flavor", width=130),
            column("openstack_project", "Project", width=130),
        ],
        width=13,
        height=4,
        none="It does not run here now",
    )


def numbers():
    return [
        stat(
            "vCPUs",
            """vCPUs it has now.""",
            [query(f"max(kvm_vm_vcpus{{{VM}}})")],
            "none",
            width=4,
            height=4,
            graph="none",
        ),
        stat(
            "Uses",
            f"""Cores' worth of time its vCPUs are on a core. Near its number of vCPUs the guest wants all it has.
            {runbook("KvmVcpuDelayHigh")}""",
            [query(f"max(kvm_vm:time:rate5m{{{VM}}})")],
            "suffix:cores",
            width=3,
            height=4,
            decimals=1,
        ),
        stat(
            "Quota",
            f"""Cores its tightest CPU quota leaves to it; "none" is no quota. {runbook("KvmVmQuotaThrottled")}""",
            [query(f"min(kvm_vm_cpu_quota_cores{{{VM}}})")],
            "suffix:cores",
            width=4,
            height=4,
            decimals=1,
            graph="none",
        ),
    ]


def scores():
    return state_timeline(
        "Causes over time",
        f"""Each cause's score: green is far from trouble, yellow from 0.8 of the alert's limit on, red from 1 on.
        What turned red first, before CPI did, is the likely cause. Move along the axis: the panels below share it.
        {runbook("that of the cause")}""",
        [query(SCORE, "{{cause}}")],
        "none",
        width=24,
        height=9,
        limits=steps((0.8, YELLOW), (1, RED)),
        legend=False,
    )


def _band(mean, limit, colour):
    """From the mean up to the limit, filled."""
    return [
        override(limit, custom_fillBelowTo=mean, custom_fillOpacity=18, custom_lineWidth=0, color=color(colour)),
        override(mean, custom_lineStyle={"fill": "dash", "dash": [6, 6]}, custom_fillOpacity=0, color=color(colour)),
    ]


def work():
    return [
        timeseries(
            "Cycles per instruction",
            f"""The guest's CPI with what is usual for it: from the mean of its last week (blue band) and of the
            other VMs of its flavor (purple band) up to the limit beyond which it is an outlier. Below or in the
            bands is good. Above: the same work takes longer; look for the cause in the other panels.
            {runbook("KvmVmCpiAboveItsWeek", "KvmVmCpiAbovePeers")}""",
            [
                query(f'kvm_vm:cpi:rate5m{{{VM},mode="guest"}}', "guest"),
                query(f"kvm_vm:cpi_week:avg{{{VM}}}", "its week, mean"),
                query(f"kvm_vm:cpi_week:limit{{{VM}}}", "its week, limit"),
                query(f"kvm_vm:cpi_peers:avg{{{VM}}}", "its peers, mean"),
                query(f"kvm_vm:cpi_peers:limit{{{VM}}}", "its peers, limit"),
            ],
            "none",
            decimals=2,
            overrides=[
                override("guest", custom_lineWidth=2, custom_fillOpacity=0, color=color(ORANGE)),
                *_band("its week, mean", "its week, limit", BLUE),
                *_band("its peers, mean", "its peers, limit", "purple"),
            ],
        ),
        timeseries(
            "Cache misses",
            f"""Misses per 1000 guest instructions (last level on Intel, L2 on AMD), and the mean of the hour
            before. Near its usual is good. Over 10 and three times the usual a neighbour may push its data out: see
            neighbours in its cache. {runbook("KvmVmCacheMissStorm")}""",
            [
                query(f'kvm_vm:cache_mpki:rate5m{{{VM},mode="guest"}}', "misses per 1000 instructions"),
                query(f"kvm_vm:cache_mpki_hour:avg{{{VM}}}", "usual: mean of the hour before"),
            ],
            "none",
            decimals=1,
            limits=[(LIMITS["KvmVmCacheMissStorm"], RED)],
            overrides=[
                override(
                    "usual: mean of the hour before",
                    custom_lineStyle={"fill": "dash", "dash": [6, 6]},
                    custom_fillOpacity=0,
                )
            ],
        ),
        timeseries(
            "Delay: waiting for a core",
            f"""Of the time its vCPUs want a core, the share they wait: the VM, and its three worst vCPUs. Below 5 %
            is good; over 20 % the guest stutters. On kernels before 6.18 a VM held back by its quota waits too. A
            click on a vCPU opens it. {runbook("KvmVcpuDelayHigh", "KvmVcpuDelayCritical", "KvmVcpuStarved")}""",
            [
                query(f"kvm_vm:delay_ratio:rate5m{{{VM}}}", "VM"),
                query(worst(3, "vcpu", f"kvm_vcpu:delay_ratio:rate5m{{{VM}}}"), "vCPU {{vcpu}}"),
            ],
            "percentunit",
            decimals=1,
            limits=[(LIMITS["KvmVcpuDelayHigh"], ORANGE), (LIMITS["KvmVcpuDelayCritical"], RED)],
            overrides=[override("VM", custom_lineWidth=2, color=color(BLUE))],
            links=[VCPU_SERIES],
        ),
    ]


def quota_and_neighbours():
    mine = f"sum by (job, instance, llc) ({TIME_BY_LLC.replace(HOST + ',core', VM + ',core', 1)}) > 0.05"
    neighbours = f"max by (job, instance, vm) ({TIME_BY_LLC} > 0.05\n  and on (job, instance, llc) {mine})"
    return [
        timeseries(
            "Quota throttling",
            f"""Share of the quota's periods in which it was used up, by the level it is set on: its vCPUs, the VM,
            or a group around it. 0, or no line (no quota), is good. Over 25 % the quota is what makes it slow:
            raise it or give the VM less to do. {runbook("KvmVmQuotaThrottled")}""",
            [query(f"kvm_vm:cpu_throttled_ratio:rate5m{{{VM}}}", "quota of {{level}}")],
            "percentunit",
            decimals=0,
            limits=[(LIMITS["KvmVmQuotaThrottled"], RED)],
            none="It has no CPU quota",
        ),
        timeseries(
            "Neighbours in its cache",
            f"""Cache misses a second of the VMs that share a last-level cache with it, itself included. The line
            that rose when its own trouble began is the noisy neighbour; a click opens it. Move one of them to
            another cache. {runbook("KvmVmCacheMissStorm", "KvmVmCpiAbovePeers")}""",
            [query(f"{MISSES}\n  and on (job, instance, vm) {neighbours}", "{{vm}}")],
            "short",
            links=[NEIGHBOUR],
        ),
        timeseries(
            "What it wants",
            f"""Cores' worth of time on a core, waiting for one, and what its quota leaves it. Waiting under little
            use is contention on single cores; use at the quota is the quota.
            {runbook("KvmVcpuDelayHigh", "KvmVmQuotaThrottled")}""",
            [
                query(f"kvm_vm:time:rate5m{{{VM}}}", "on a core"),
                query(f"kvm_vm:delay:rate5m{{{VM}}}", "waiting"),
                query(f"kvm_vm_cpu_quota_cores{{{VM}}}", "quota of {{level}}"),
            ],
            "suffix:cores",
            decimals=2,
            overrides=[
                override("waiting", color=color(RED)),
                override_re("quota.*", custom_lineStyle={"fill": "dash", "dash": [6, 6]}, custom_fillOpacity=0),
            ],
        ),
    ]


def numa():
    limit = LIMITS["KvmVmMemoryRemote"]
    return [
        timeseries(
            "vCPU time by NUMA node",
            f"""Where its vCPUs run: share of their time on each node. One node is best for a VM that fits; compare
            with memory beside. {runbook("KvmVmSpreadOverNodes", "KvmVmMemoryRemote")}""",
            [query(f"kvm_vm:time_by_node:share{{{VM}}}", "node {{numa_node}}")],
            "percentunit",
            stack=True,
            maximum=1,
            decimals=0,
        ),
        timeseries(
            "Memory by NUMA node",
            f"""Where its memory lives: share on each node. The colours should match those of vCPU time beside. Else
            move its vCPUs to the memory, or the memory to them. {runbook("KvmVmMemoryRemote")}""",
            [query(f"kvm_vm:memory_by_node:share{{{VM}}}", "node {{numa_node}}")],
            "percentunit",
            stack=True,
            maximum=1,
            decimals=0,
        ),
        timeseries(
            "Remote: memory, loads",
            f"""Share of its memory on nodes where its vCPUs spend less than 5 % of their time, and share of its
            loads from DRAM that went to another node (event set dram_loads). 0 is good; over 50 % of memory every
            miss is slow. {runbook("KvmVmMemoryRemote")}""",
            [
                query(f"kvm_vm:memory_remote:ratio{{{VM}}}", "memory"),
                query(f"kvm_vm:dram_loads_remote_ratio:rate5m{{{VM}}}", "loads from DRAM"),
            ],
            "percentunit",
            decimals=0,
            limits=[(limit, RED)],
        ),
    ]


def devices_and_moves():
    return [
        table(
            "Devices it holds",
            f"""Host devices that are passed through to it, and the node each is on. They should be on a node where
            its vCPUs run: compare with vCPU time by node. Else pin it to the device's node, or give it a device of
            its own node. {runbook("KvmVmDeviceRemote")}""",
            [query(f"max by (device, class, driver, numa_node) (kvm_vm_device_info{{{VM}}})")],
            [
                column("device", "Device", width=120),
                column("class", "Class", width=85),
                column("driver", "Driver"),
                column("numa_node", "Node", width=60),
            ],
            width=8,
            height=7,
            none="It holds no host device",
        ),
        timeseries(
            "Nodes and remote devices",
            f"""NUMA nodes its vCPUs run on against those it needs, and its devices on nodes where it does not run.
            Used equal to needed and no remote device is good.
            {runbook("KvmVmSpreadOverNodes", "KvmVmDeviceRemote")}""",
            [
                query(f"kvm_vm:numa_nodes_used:count{{{VM}}}", "nodes used"),
                query(f"kvm_vm:numa_nodes_needed:count{{{VM}}}", "nodes needed"),
                query(f"kvm_vm:devices_remote:count{{{VM}}}", "remote devices"),
            ],
            "none",
            decimals=0,
            overrides=[
                override(
                    "nodes needed",
                    custom_lineStyle={"fill": "dash", "dash": [6, 6]},
                    custom_fillOpacity=0,
                    color=color(GREEN),
                ),
                override("remote devices", color=color(RED)),
            ],
        ),
        timeseries(
            "Moves between CPUs and nodes",
            f"""Moves a second of its vCPUs to another CPU, and to another NUMA node. Few are good. Many between
            nodes leave memory and caches behind: pin the VM to a node. {runbook("KvmVmSpreadOverNodes")}""",
            [
                query(f"sum without (vcpu) (kvm_vcpu:migrations:rate5m{{{VM}}})", "between CPUs"),
                query(f"kvm_vm:numa_moves:rate5m{{{VM}}}", "between nodes"),
            ],
            "cps",
            decimals=2,
        ),
    ]


def exits():
    return [
        timeseries(
            "Exits by reason",
            f"""Times a second its vCPUs leave the guest, by reason where reasons are counted. What grew tells what
            to look for in the guest: hlt is idling, ept_violation is memory, io and msr are devices and timers.
            {runbook("KvmVmExitStorm")}""",
            [query(f"kvm_vm:exits:rate5m{{{VM}}}", "{{reason}}")],
            "cps",
            stack=True,
        ),
        timeseries(
            "Exits for each second of CPU",
            f"""Exits over its vCPU time. Some thousands are usual for I/O. Over 50,000 handling them takes the
            time: the interface of a device, a timer, or a spinning poll. {runbook("KvmVmExitStorm")}""",
            [query(f"kvm_vm:exits_per_cpu_second:rate5m{{{VM}}}", "exits a second of CPU")],
            "short",
            limits=[(LIMITS["KvmVmExitStorm"], RED)],
        ),
        timeseries(
            "Time beside a busy sibling",
            f"""SMT: share of its time on a core whose other thread ran a vCPU too. Low is good. Over 30 % while
            cores of its nodes idle, pin it apart; when the host is full it is what SMT is for.
            {runbook("KvmVmSmtContention")}""",
            [query(f"kvm_vm:smt_shared_ratio:rate5m{{{VM}}}", "beside a busy sibling")],
            "percentunit",
            decimals=0,
            limits=[(LIMITS["KvmVmSmtContention"], RED)],
        ),
    ]


def speed_and_threads():
    return [
        timeseries(
            "Frequency and heat",
            f"""Frequency of the cores it runs on over what they are made for, and the share of time their package
            was too hot. At or above 100 % and 0 are good. {runbook("KvmPackageThrottled")}""",
            [
                query(f"kvm_vm:frequency_ratio:rate5m{{{VM}}}", "frequency over base"),
                query(f"kvm_vm:package_throttled_ratio:rate5m{{{VM}}}", "package too hot"),
            ],
            "percentunit",
            decimals=0,
            overrides=[override("package too hot", color=color(RED))],
        ),
        timeseries(
            "Threads by role",
            f"""Cores' worth of time of its threads by what they do: vCPUs, I/O threads, vhost workers, and the
            emulator for the rest. A busy emulator or I/O thread is the VM's own I/O; see whether it shares cores
            with its vCPUs. {runbook("KvmVcpuStarved", "KvmCoreOvercommitted")}""",
            [query(f"kvm_vm:thread_time:rate5m{{{VM}}}", "{{role}}")],
            "suffix:cores",
            stack=True,
            decimals=2,
        ),
        timeseries(
            "Delay of threads by role",
            f"""Of the time its threads want a core, the share they wait, by role. A waiting I/O thread is latency
            of the guest's disks and network: pin it apart from the vCPUs. Below 5 % is good.
            {runbook("KvmVcpuStarved", "KvmVcpuDelayHigh")}""",
            [query(f"kvm_vm:thread_delay_ratio:rate5m{{{VM}}}", "{{role}}")],
            "percentunit",
            decimals=1,
            limits=[(LIMITS["KvmVcpuDelayHigh"], ORANGE)],
        ),
    ]


def dashboard():
    return framed(
        "kvm-vm",
        "One VM: why it is slow. The verdict first, then every possible cause side by side on one time axis.",
        [
            [verdict()],
            [facts(), *numbers()],
            [scores()],
            row("Work: cycles, cache, waiting"),
            work(),
            quota_and_neighbours(),
            row("NUMA: where it runs, where its memory and devices are"),
            numa(),
            devices_and_moves(),
            row("Exits, siblings, frequency, threads"),
            exits(),
            speed_and_threads(),
        ],
    )
