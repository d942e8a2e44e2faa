"""KVM / Fleet: which host or VM is in trouble."""

from .frame import dashboard as framed
from .frame import to_cell, to_runbook
from .layout import row
from .panels import BLUE, GREEN, ORANGE, RED, YELLOW, query, says, stat, steps, timeseries
from .selectors import HOSTS
from .tables import column, hidden, table
from .words import CAUSES, LIMITS, runbook

FIRING = f'ALERTS{{alertname=~"Kvm.*",alertstate="firing",{HOSTS}}}'

# Scores: near is worth a look, 1 is where the alert begins.
SCORE = steps((0.8, YELLOW), (1, RED), base="transparent")

HOT = LIMITS["KvmPackageThrottled"]

HOST_LINK = to_cell("kvm-host", "job", "instance")
VM_LINK = to_cell("kvm-vm", "job", "instance", "vm")
VCPU_LINK = to_cell("kvm-vcpu", "job", "instance", "vm", "vcpu")


def letter(at):
    return f"Value #{chr(ord('A') + at)}"


def glance():
    return [
        stat(
            "Hosts up",
            f"""Exporters that Prometheus reaches. Good: as many as hosts known. Where one is missing its VMs are
            not watched: look at the host's service and network. {runbook("KvmExporterDown")}""",
            [query(f"sum(up{{{HOSTS}}})")],
            "none",
            width=3,
            limits=steps((1, GREEN), base=RED),
            graph="none",
            none="0",
        ),
        stat(
            "Hosts down",
            f"""Exporters that Prometheus does not reach. Good: 0. {runbook("KvmExporterDown")}""",
            [query(f"count(up{{{HOSTS}}} == 0) or vector(0)")],
            "none",
            width=3,
            limits=steps((1, RED)),
            graph="none",
        ),
        stat(
            "Alerts firing",
            """Firing alerts of these hosts, of every severity. Good: 0. They are listed below, each with a link to
            its runbook.""",
            [query(f"count({FIRING}) or vector(0)")],
            "none",
            width=3,
            limits=steps((1, ORANGE)),
        ),
        stat(
            "VMs",
            """VMs the exporters watch. A sudden drop is a host that went away, or an inventory that sees nothing:
            `vcpu-exporter check` on the host says why.""",
            [query(f"count(kvm_vm_info{{{HOSTS}}})")],
            "none",
            width=3,
            none="0",
        ),
        stat("vCPUs", """vCPUs of all VMs.""", [query(f"sum(kvm_vm_vcpus{{{HOSTS}}})")], "none", width=3, none="0"),
        stat(
            "VMs in trouble",
            f"""VMs with a score of 1 or more for any cause: what is observed is at or over the limit of its alert.
            Good: 0. The table below names them. {runbook("that of the column's cause")}""",
            [query(f"count(max by (job, instance, vm) (kvm_vm:trouble:score{{{HOSTS}}}) >= 1) or vector(0)")],
            "none",
            width=3,
            limits=steps((1, ORANGE)),
        ),
        stat(
            "Highest demand",
            f"""Of the busiest host: what vCPUs and the VMs' other threads want, over its online CPUs. Below 0.8
            there is room. Over 1 somebody always waits: move VMs away. {runbook("KvmVcpuDelayHigh")}""",
            [query(f"max(kvm_host:demand:ratio{{{HOSTS}}})")],
            "percentunit",
            width=3,
            decimals=0,
            limits=steps((0.8, YELLOW), (1, RED)),
            none="unknown",
        ),
        stat(
            "Packages throttled",
            f"""Packages (sockets) that were too hot for more than 5 % of the last five minutes. Good: 0. Else look
            at fans, inlet air and power limits. {runbook("KvmPackageThrottled")}""",
            [query(f"count(kvm_host_package:throttled_ratio:rate5m{{{HOSTS}}} > {HOT}) or vector(0)")],
            "none",
            width=3,
            limits=steps((1, RED)),
            graph="none",
        ),
    ]


def alerts():
    # As numbers, so that the worst come first.
    by_severity = "\nor ".join(
        f'{number} * {FIRING[:-1]},severity="{severity}"}}'
        for number, severity in ((3, "critical"), (2, "warning"), (1, "info"))
    )
    words = {3: ("critical", RED), 2: ("warning", ORANGE), 1: ("info", BLUE)}
    return table(
        "Firing alerts",
        """Alerts of these hosts that fire now, the worst first. Good: none. A click on the alert opens its runbook as
        the exporter serves it; a click on a VM, vCPU or host opens its dashboard.""",
        [query(by_severity)],
        [
            column("Value", "Severity", width=90, cell="color-text", mappings=[says(words)], align="left"),
            column("alertname", "Alert", links=[to_runbook("__data.fields.instance", "__data.fields.alertname")]),
            column("instance", "Host", links=[HOST_LINK]),
            column("vm", "VM", width=100, links=[VM_LINK]),
            column("vcpu", "vCPU", width=60, links=[VCPU_LINK]),
            column("package", "Package", width=75),
            column("core", "Core", width=60),
            hidden("job"),
        ],
        width=12,
        height=9,
        sort=("Severity", True),
        none="No alert fires",
    )


def hosts():
    by_host = [
        query(f"max by (job, instance) (up{{{HOSTS}}})"),
        query(f"count by (job, instance) (kvm_vm_info{{{HOSTS}}})"),
        query(f"sum by (job, instance) (kvm_vm_vcpus{{{HOSTS}}})"),
        query(f"max by (job, instance) (kvm_host:overcommit:ratio{{{HOSTS}}})"),
        query(f"max by (job, instance) (kvm_host:demand:ratio{{{HOSTS}}})"),
        query(f"max by (job, instance) (kvm_host:core_imbalance:max_over_mean{{{HOSTS}}})"),
        query(f"max by (job, instance) (kvm_host_package:throttled_ratio:rate5m{{{HOSTS}}})"),
        query(f"max by (job, instance) (kvm_vm:trouble:score{{{HOSTS}}})"),
    ]
    up = says({"1": ("up", GREEN), "0": ("DOWN", RED)})
    return table(
        "Hosts at a glance",
        f"""Each host: whether its exporter answers, its VMs and vCPUs, vCPUs for each online CPU (overcommit, a
        plan), what they want of the CPUs (demand, the truth), the busiest core over the mean (imbalance), the share
        of time a package was too hot, and the worst score of its VMs. Demand below 80 % and imbalance below 2 are
        good; little demand beside much imbalance means that pinning makes vCPUs wait.
        {runbook("KvmExporterDown", "KvmCoreOvercommitted", "KvmPackageThrottled")}""",
        by_host,
        [
            column("instance", "Host", links=[HOST_LINK]),
            column(letter(0), "Exporter", width=80, mappings=[up], cell="color-text"),
            column(letter(1), "VMs", width=60, unit="none"),
            column(letter(2), "vCPUs", width=65, unit="none"),
            column(letter(3), "Overcommit", width=110, unit="none", decimals=2),
            column(
                letter(4),
                "Demand",
                width=110,
                unit="percentunit",
                decimals=0,
                cell="gauge",
                maximum=1.5,
                limits=steps((0.8, YELLOW), (1, RED)),
            ),
            column(letter(5), "Imbalance", width=90, unit="none", decimals=1),
            column(
                letter(6),
                "Too hot",
                width=75,
                unit="percentunit",
                decimals=0,
                cell="color-text",
                limits=steps((HOT, RED)),
            ),
            column(letter(7), "Worst VM", width=85, unit="none", decimals=1, cell="color-background", limits=SCORE),
            hidden("job"),
        ],
        width=12,
        height=9,
        sort=("Worst VM", True),
        none="No exporter is known: is the recording of kvm_exporter_build_info in this data source?",
    )


def trouble():
    worst = f"topk(25, max by (job, instance, vm) (kvm_vm:trouble:score{{{HOSTS}}}))"
    queries = [query(worst)]
    columns = [
        column("vm", "VM", width=150, links=[VM_LINK]),
        column("instance", "Host", width=160, links=[HOST_LINK]),
        column(letter(0), "Worst", width=75, unit="none", decimals=1, cell="color-background", limits=SCORE),
    ]
    for at, (cause, (name, _, _)) in enumerate(CAUSES.items(), start=1):
        queries.append(
            query(
                f'max by (job, instance, vm) (kvm_vm:trouble:score{{{HOSTS},cause="{cause}"}})\n'
                f"  and on (job, instance, vm) {worst}"
            )
        )
        columns.append(
            column(letter(at), name, unit="none", decimals=1, cell="color-background", limits=SCORE, align="center")
        )
    columns.append(hidden("job"))
    return table(
        "VMs with the highest trouble score, by cause",
        f"""The 25 worst VMs. A score is what is observed over the limit of the cause's alert: 1 and more is
        trouble, 0.8 is near, empty is unknown or does not apply. CPI columns are symptoms: a cause is in the
        others. A click on the VM opens the page that explains it.
        {runbook(*[name for _, name, _ in CAUSES.values()])}""",
        queries,
        columns,
        width=24,
        height=11,
        sort=("Worst", True),
        none="No VM has a score: the rules of alerts/recording.yaml are not loaded",
    )


def top(title, description, expr, unit, decimals, limits, maximum, links, extra=(), name="Value"):
    return table(
        title,
        description,
        [query(f"topk(15, {expr})")],
        [
            column("vm", "VM", links=links),
            *extra,
            column("instance", "Host", links=[HOST_LINK]),
            column(
                "Value", name, width=140, unit=unit, decimals=decimals, cell="gauge", limits=limits, maximum=maximum
            ),
            hidden("job"),
        ],
        width=8,
        height=10,
        sort=(name, True),
    )


def tops():
    high, critical = LIMITS["KvmVcpuDelayHigh"], LIMITS["KvmVcpuDelayCritical"]
    return [
        top(
            "Longest waits",
            f"""vCPUs that wait longest for a core, as a share of the time they want one. Below 5 % is good; over 20
            % the guest stutters. {runbook("KvmVcpuDelayHigh", "KvmVcpuDelayCritical")}""",
            f"kvm_vcpu:delay_ratio:rate5m{{{HOSTS}}} and kvm_vcpu:demand:rate5m{{{HOSTS}}} >= 0.1",
            "percentunit",
            1,
            steps((high, ORANGE), (critical, RED)),
            0.5,
            [VM_LINK],
            [column("vcpu", "vCPU", width=55, links=[VCPU_LINK])],
            "Delay",
        ),
        top(
            "Most cycles per instruction",
            f"""Guests that need most cycles for an instruction, of those that use a quarter of a core or more. What
            is normal depends on the program: compare a VM with its week and its peers on its page.
            {runbook("KvmVmCpiAboveItsWeek", "KvmVmCpiAbovePeers")}""",
            f"kvm_vm:cpi_busy:rate5m{{{HOSTS}}}",
            "none",
            2,
            steps(base=BLUE),
            5,
            [VM_LINK],
            name="CPI",
        ),
        top(
            "Most cache misses",
            f"""Guests with most cache misses per 1000 instructions (last level on Intel). Over 10 and three times
            its own hour before is an alert. The one at the top may be the neighbour that disturbs the others.
            {runbook("KvmVmCacheMissStorm")}""",
            f'kvm_vm:cache_mpki:rate5m{{{HOSTS},mode="guest"}}',
            "none",
            1,
            steps((LIMITS["KvmVmCacheMissStorm"], ORANGE)),
            30,
            [VM_LINK],
            name="MPKI",
        ),
    ]


def over_time():
    return [
        timeseries(
            "Demand of each host",
            f"""What vCPUs and the VMs' other threads want of each host, over its online CPUs. Below 80 % there is
            room, over 100 % somebody always waits: place no more VMs there.
            {runbook("KvmVcpuDelayHigh", "KvmCoreOvercommitted")}""",
            [query(f"kvm_host:demand:ratio{{{HOSTS}}}", "{{instance}}")],
            "percentunit",
            limits=[(1, RED)],
            decimals=0,
        ),
        timeseries(
            "VMs in trouble, by cause",
            f"""How many VMs have a score of 1 or more, by cause. Good: empty. Many of one cause at once point at
            the host, not at the VM. {runbook("that of the cause")}""",
            [query(f"count by (cause) (kvm_vm:trouble:score{{{HOSTS}}} >= 1)", "{{cause}}")],
            "none",
            stack=True,
            decimals=0,
        ),
        timeseries(
            "Imbalance of cores",
            f"""The busiest core's demand over the mean of its host. 1 is even. Over 2 with a demand below 100 %
            pinning or NUMA placement makes vCPUs wait while cores idle. {runbook("KvmCoreOvercommitted")}""",
            [query(f"kvm_host:core_imbalance:max_over_mean{{{HOSTS}}}", "{{instance}}")],
            "none",
            decimals=1,
        ),
    ]


def dashboard():
    return framed(
        "kvm-fleet",
        "Which KVM host or VM is in trouble, and why: the page to begin with.",
        [glance(), [alerts(), hosts()], [trouble()], row("Top lists"), tops(), row("Over time"), over_time()],
    )
