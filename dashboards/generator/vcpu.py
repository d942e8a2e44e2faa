"""KVM / vCPU: the vCPUs of one VM, compared with each other."""

from .frame import dashboard as framed
from .frame import to_cell
from .layout import row
from .panels import (
    BLUE,
    ORANGE,
    RED,
    heatmap,
    override_re,
    query,
    says,
    stat,
    state_timeline,
    steps,
    timeseries,
)
from .selectors import CORE_DEMAND, HOST, PLACE, VCPU, VM, by_core, padded
from .tables import column, core_demand, table
from .words import LIMITS, runbook

HIGH, CRITICAL, STARVED = LIMITS["KvmVcpuDelayHigh"], LIMITS["KvmVcpuDelayCritical"], LIMITS["KvmVcpuStarved"]
# PromQL cannot make a number of a label, so each node is asked for; hosts with more than these have the rest in one.
NODES = 8


def siblings():
    every = f"kvm_vcpu_placement_info{{{VM}}}"
    same = "on (job, instance, vm, vcpu) group_left ()"
    core = f"{every}\n  * on (job, instance, package, core) group_left ()\n    {CORE_DEMAND}"
    return table(
        "Siblings compared",
        f"""All vCPUs of the VM, whatever is chosen above: where each is now, what its core is asked for in all, its
        time, its delay, and the delay of its siblings together. One that waits over 10 % and three times as long as
        its siblings is starved: something busy shares its core. {runbook("KvmVcpuStarved", "KvmVcpuDelayHigh")}""",
        [
            query(core),
            query(f"{every}\n  * {same} kvm_vcpu:time:rate5m{{{VM}}}"),
            query(f"{every}\n  * {same} kvm_vcpu:delay_ratio:rate5m{{{VM}}}"),
            query(f"{every}\n  * {same} kvm_vcpu:delay_ratio_siblings:rate5m{{{VM}}}"),
            query(f'{every}\n  * {same} kvm_vcpu:cpi:rate5m{{{VM},mode="guest"}}'),
            query(f'{every}\n  * {same} kvm_vcpu:cache_mpki:rate5m{{{VM},mode="guest"}}'),
        ],
        [
            column("vcpu", "vCPU", width=65, links=[to_cell("kvm-vcpu", "vcpu", job=None, instance=None, vm=None)]),
            column("numa_node", "Node", width=60),
            column("package", "Package", width=75),
            column("core", "Core", width=60),
            column("cpu", "CPU", width=60),
            core_demand("Value #A", width=125),
            column(
                "Value #B",
                "Time",
                width=120,
                unit="percentunit",
                decimals=0,
                cell="gauge",
                limits=steps(base=BLUE),
                maximum=1,
            ),
            column(
                "Value #C",
                "Delay",
                width=110,
                unit="percentunit",
                decimals=1,
                cell="gauge",
                limits=steps((HIGH, ORANGE), (CRITICAL, RED)),
                maximum=0.5,
            ),
            column("Value #D", "Siblings' delay", width=130, unit="percentunit", decimals=1),
            column("Value #E", "CPI", width=70, unit="none", decimals=2),
            column("Value #F", "MPKI", unit="none", decimals=1),
        ],
        width=14,
        height=10,
        sort=("Delay", True),
        none="The VM does not run here now",
    )


def affinity():
    return table(
        "Where they may run",
        f"""CPUs and NUMA nodes each chosen vCPU is allowed on. One CPU is pinned: it cannot get away from a busy
        neighbour. More than one node: the scheduler may move it away from its memory.
        {runbook("KvmVcpuStarved", "KvmVmSpreadOverNodes")}""",
        [
            query(f"max by (vcpu) (kvm_vcpu_affinity_cpus{{{VCPU}}})"),
            query(f"max by (vcpu) (kvm_vcpu_affinity_numa_nodes{{{VCPU}}})"),
        ],
        [
            column("vcpu", "vCPU", width=80),
            column("Value #A", "CPUs", unit="none", decimals=0),
            column("Value #B", "Nodes", unit="none", decimals=0),
        ],
        width=4,
        height=10,
        sort=("vCPU", False),
    )


def starved():
    delay = f"kvm_vcpu:delay_ratio:rate5m{{{VCPU}}}"
    siblings = f"kvm_vcpu:delay_ratio_siblings:rate5m{{{VCPU}}}"
    most = f"topk(3, max_over_time({delay}[$__range] @ end()))"
    return timeseries(
        "Starved: delay against its siblings",
        f"""The delay of the worst chosen vCPUs (lines) and that of their siblings together (dashed). Lines close
        together: the whole VM waits. One far above: it alone is starved, by what shares its core.
        {runbook("KvmVcpuStarved")}""",
        [
            query(f"{delay}\n  and on (vcpu) {most}", "vCPU {{vcpu}}"),
            query(f"{siblings}\n  and on (vcpu) {most}", "siblings of vCPU {{vcpu}}"),
        ],
        "percentunit",
        width=6,
        height=10,
        limits=[(STARVED, RED)],
        decimals=1,
        overrides=[override_re("siblings.*", custom_lineStyle={"fill": "dash", "dash": [6, 6]}, custom_fillOpacity=0)],
    )


def _node():
    """The number of the node as a value."""
    node = lambda match: f"max by (vcpu) (kvm_vcpu_placement_info{{{VCPU},numa_node{match}}})"
    known = [f"{number} * " + node(f'="{number}"') for number in range(NODES)]
    rest = f"{NODES} * " + node(f'!~"|[0-{NODES - 1}]"')
    either = "\nor ".join([*known, rest])
    return f"max by (padded_vcpu) ({padded(either, 'padded_vcpu', 'vcpu')})"


def where():
    colours = [BLUE, ORANGE, "purple", "green", "yellow", "red", "light-blue", "light-orange", "text"]
    words = {
        number: (f"node {number}" if number < NODES else f"node {NODES} or above", colours[number])
        for number in range(NODES + 1)
    }
    return [
        state_timeline(
            "NUMA node over time",
            f"""The node each chosen vCPU was found on. One colour all along is good; a vCPU of another colour than
            its siblings is away from their data, and perhaps from its memory.
            {runbook("KvmVmSpreadOverNodes", "KvmVmMemoryRemote")}""",
            [query(_node(), "vCPU {{padded_vcpu}}")],
            "none",
            width=12,
            height=10,
            mappings=[says(words)],
            legend=True,
        ),
        heatmap(
            "Cores over time (node, package, core)",
            f"""The cores the chosen vCPUs were found on, and how many of them at once: one row a core. Straight
            lines are pinned or quiet. Two on one core take turns, or share it as siblings. Choose one vCPU above to
            follow it. {runbook("KvmCoreOvercommitted", "KvmVmSmtContention")}""",
            [
                query(
                    by_core(f"count by (job, instance, numa_node, package, core) (kvm_vcpu_placement_info{{{VCPU}}})"),
                    PLACE,
                )
            ],
            "none",
            width=12,
            height=10,
            low=0,
            high=4,
            scheme="Oranges",
            zeros=False,
            decimals=0,
        ),
    ]


def lines(title, description, expr, unit, **rest):
    return timeseries(title, description, [query(expr, "vCPU {{vcpu}}")], unit, height=8, **rest)


def scheduling():
    return [
        lines(
            "Time on a core",
            """Share of each second the vCPU is on a core, in the guest or working for it. 100 % is a vCPU that
            never rests: the guest's own work, or a loop in it.""",
            f"kvm_vcpu:time:rate5m{{{VCPU}}}",
            "percentunit",
            maximum=1,
            decimals=0,
        ),
        lines(
            "Delay of each vCPU",
            f"""Of the time it wants a core, the share the vCPU waits for one. Below 5 % is good, over 20 % is
            critical. See who shares its core in "Siblings compared" and on KVM / Host.
            {runbook("KvmVcpuDelayHigh", "KvmVcpuDelayCritical")}""",
            f"kvm_vcpu:delay_ratio:rate5m{{{VCPU}}}",
            "percentunit",
            limits=[(HIGH, ORANGE), (CRITICAL, RED)],
            decimals=1,
        ),
        lines(
            "Migrations",
            f"""Moves a second to another CPU. Each leaves warm caches behind; a few a second are harmless, many
            with delay mean that it looks for room and finds none. {runbook("KvmVcpuDelayHigh")}""",
            f"kvm_vcpu:migrations:rate5m{{{VCPU}}}",
            "cps",
            decimals=2,
        ),
    ]


def counters():
    return [
        lines(
            "Cycles per instruction, guest",
            f"""CPI inside the guest. What is normal depends on the program; one vCPU above its siblings works on a
            slower core or beside a busy sibling. {runbook("KvmVmCpiAboveItsWeek", "KvmVmCpiAbovePeers")}""",
            f'kvm_vcpu:cpi:rate5m{{{VCPU},mode="guest"}}',
            "none",
            decimals=2,
        ),
        lines(
            "Cache misses, guest",
            f"""Misses per 1000 guest instructions. A rise on all vCPUs at once is a neighbour in the cache, on one
            it is its own work or its core. {runbook("KvmVmCacheMissStorm")}""",
            f'kvm_vcpu:cache_mpki:rate5m{{{VCPU},mode="guest"}}',
            "none",
            decimals=1,
            limits=[(LIMITS["KvmVmCacheMissStorm"], RED)],
        ),
        lines(
            "Exits of each vCPU",
            f"""Times a second the vCPU leaves the guest. One vCPU far above the others handles the interrupts of a
            device. {runbook("KvmVmExitStorm")}""",
            f"kvm_vcpu:exits:rate5m{{{VCPU}}}",
            "cps",
        ),
    ]


def quality():
    return [
        lines(
            "Cycles per instruction, host",
            """CPI of KVM and the VMM working for the vCPU. It is usually higher than the guest's; a rise beside
            many exits is the cost of handling them.""",
            f'kvm_vcpu:cpi:rate5m{{{VCPU},mode="host"}}',
            "none",
            decimals=2,
        ),
        timeseries(
            "Counters counted (PMU quality)",
            f"""Share of the vCPU's time in which each group of hardware counters counted. 100 % is good. Below 50 %
            the values are estimates: count fewer events, or look who else uses the PMU.
            {runbook("KvmPmuMultiplexed", "KvmPmuHostOnly")}""",
            [
                query(
                    f"min by (job, instance, vm, group) (kvm_vcpu:pmu_running_ratio:rate5m{{{VCPU}}})",
                    "{{group}}, worst vCPU",
                )
            ],
            "percentunit",
            maximum=1,
            decimals=0,
        ),
        stat(
            "What the PMU allows",
            f"""Which hardware counting this host allows: full (guest and host), host_only, software, or off. With
            host_only the guest's CPI and misses are unknown. {runbook("KvmPmuHostOnly")}""",
            [query(f"kvm_exporter_pmu_mode{{{HOST}}} == 1", "{{mode}} {{reason}}")],
            "none",
            width=8,
            height=8,
            text="name",
            graph="none",
            none="unknown",
        ),
    ]


def dashboard():
    return framed(
        "kvm-vcpu",
        "The vCPUs of one VM: each one's time, waits, counters and places, and how they compare.",
        [
            [siblings(), affinity(), starved()],
            row("Where they run"),
            where(),
            row("Scheduling"),
            scheduling(),
            row("Counters"),
            counters(),
            quality(),
        ],
    )
