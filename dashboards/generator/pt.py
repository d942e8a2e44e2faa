"""KVM / PT: what Intel Processor Trace tells of the VMs of a host."""

from .frame import dashboard as framed
from .frame import to_cell, to_series
from .layout import row
from .panels import BLUE, ORANGE, RED, YELLOW, bargauge, override_re, query, stat, steps, timeseries
from .selectors import HOST, worst
from .tables import column, table
from .words import LIMITS, runbook

VMS = HOST + ',vm=~"$vm"'
LOST = LIMITS["KvmPtDataLost"]
VM_SERIES = to_series("kvm-vm", "vm", job=None, instance=None)


def over_time(title, description, expr, legend, unit, **rest):
    return timeseries(
        title, description, [query(expr, legend)], unit, width=12, height=8, legend="table", links=[VM_SERIES], **rest
    )


def quality():
    captures = f"kvm_vcpu_pt_captures_total{{{VMS}}}"
    return [
        stat(
            "VMs traced",
            """VMs of which the last quarter of an hour has a recording. 0: `sources.pt` is off, the CPU has no
            Intel PT, or another program has it; `vcpu-exporter check` says which.""",
            [query(f"count(count by (job, instance, vm) (kvm_vcpu:pt_lost_ratio:rate15m{{{VMS}}})) or vector(0)")],
            "none",
            width=4,
            height=6,
            limits=steps((1, "green"), base=YELLOW),
            graph="none",
        ),
        stat(
            "Recordings that lost data",
            f"""The worst vCPU's share of recordings that lost data. Good: 0. Over 25 % the figures below lean to
            the calm moments: a larger buffer or a shorter window (`sources.pt`). {runbook("KvmPtDataLost")}""",
            [query(f"max(kvm_vcpu:pt_lost_ratio:rate15m{{{VMS}}})")],
            "percentunit",
            width=4,
            height=6,
            decimals=0,
            limits=steps((0.1, YELLOW), (LOST, RED)),
            none="no recording",
        ),
        timeseries(
            "Lost data, worst vCPUs",
            f"""Share of each vCPU's recordings that were truncated, had gaps, collided or overflowed, the five
            worst. Below 25 % is good. {runbook("KvmPtDataLost")}""",
            [query(worst(5, "vm, vcpu", f"kvm_vcpu:pt_lost_ratio:rate15m{{{VMS}}}"), "{{vm}} vCPU {{vcpu}}")],
            "percentunit",
            width=8,
            height=6,
            decimals=0,
            limits=[(LOST, RED)],
            links=[VM_SERIES],
        ),
        bargauge(
            "Captures since each VM was found, by result",
            f"""Turns to be recorded, by how they ended: complete is good; idle is a vCPU that did not run; busy
            means another program had Intel PT; truncated, partial and collision lost data.
            {runbook("KvmPtDataLost")}""",
            [query(f"sum by (result) ({captures})", "{{result}}", now=True)],
            "short",
            width=8,
            height=6,
            decimals=0,
        ),
    ]


def code():
    return [
        over_time(
            "Conditional branches a cycle",
            """How fast the guest's code branches: conditional branches for each core cycle in recordings. Falling at
            the same work means that the code stalls: cache, memory or a busy sibling. It is no IPC: instructions are
            not known without the guest's code.""",
            f'kvm_vm:pt_branches_per_cycle:rate15m{{{VMS},mode="guest"}}',
            "{{vm}}",
            "none",
            decimals=3,
        ),
        over_time(
            "Indirect branches a cycle",
            """Indirect jumps, calls and returns of the guest for each core cycle. High in interpreters and virtual
            calls; with retpolines and other mitigations they are what costs.""",
            f'kvm_vm:pt_indirect_branches_per_cycle:rate15m{{{VMS},mode="guest"}}',
            "{{vm}}",
            "none",
            decimals=4,
        ),
    ]


def exits():
    return [
        over_time(
            "Traced time outside the guest",
            f"""Share of the recordings' time that KVM and the VMM took (host), or that the trace does not tell
            (unknown). A few percent are good. Much host: exits cost, see handling below.
            {runbook("KvmVmExitStorm")}""",
            f'kvm_vm:pt_traced_share:rate15m{{{VMS},mode!="guest"}}',
            "{{vm}} {{mode}}",
            "percentunit",
        ),
        over_time(
            "Exits a second, as traced",
            f"""VM exits for each second of recording, exact even where tracepoints are off. Compare with KVM / VM.
            Over 50,000 handling them takes the time. {runbook("KvmVmExitStorm")}""",
            f"kvm_vm:pt_exits_per_second:rate15m{{{VMS}}}",
            "{{vm}}",
            "cps",
        ),
    ]


def lengths():
    run, handling = "kvm_vm:pt_guest_run_seconds", "kvm_vm:pt_host_handling_seconds"
    shortest = f"bottomk(5, min_over_time({run}:p50_rate15m{{{VMS}}}[$__range] @ end()))"
    longest = f"topk(5, max_over_time({handling}:p99_rate15m{{{VMS}}}[$__range] @ end()))"
    pair = lambda metric, those: [
        query(f"{metric}:p50_rate15m{{{VMS}}}\n  and on (vm) {those}", "{{vm}}, median"),
        query(f"{metric}:p99_rate15m{{{VMS}}}\n  and on (vm) {those}", "{{vm}}, 99 %"),
    ]
    rest = {
        "width": 12,
        "height": 8,
        "legend": "table",
        "links": [VM_SERIES],
        "overrides": [override_re(".*99 %", custom_lineStyle={"fill": "dash", "dash": [6, 6]})],
    }
    return [
        timeseries(
            "Runs of the guest between exits",
            f"""How long the guest runs from entry to exit, of the five VMs with the shortest: median, and 99th
            percentile (dashed). Long is good. A median of microseconds means that it hardly gets to work.
            {runbook("KvmVmExitStorm")}""",
            pair(run, shortest),
            "s",
            **rest,
        ),
        timeseries(
            "Handling by the host",
            f"""How long the host takes from exit to the next entry, of the five VMs with the longest: median, and 99th
            percentile (dashed); halts waited out are in it. Microseconds are good for the median. A long 99th
            percentile is a halt, the VMM, or a preempted vCPU. {runbook("KvmVmExitStorm", "KvmVcpuDelayHigh")}""",
            pair(handling, longest),
            "s",
            **rest,
        ),
    ]


def each_vm():
    column_of = lambda at, name, unit, decimals, **rest: column(
        f"Value #{chr(65 + at)}", name, unit=unit, decimals=decimals, **rest
    )
    return table(
        "Each VM now",
        f"""The last quarter of an hour of each VM: branches a cycle in the guest, share of time in it, exits a
        second, median run of the guest and median handling by the host, and the worst lost data of its vCPUs. A
        click opens the VM. {runbook("KvmVmExitStorm", "KvmPtDataLost")}""",
        [
            query(f'max by (vm) (kvm_vm:pt_branches_per_cycle:rate15m{{{VMS},mode="guest"}})'),
            query(f'max by (vm) (kvm_vm:pt_traced_share:rate15m{{{VMS},mode="guest"}})'),
            query(f"max by (vm) (kvm_vm:pt_exits_per_second:rate15m{{{VMS}}})"),
            query(f"max by (vm) (kvm_vm:pt_guest_run_seconds:p50_rate15m{{{VMS}}})"),
            query(f"max by (vm) (kvm_vm:pt_host_handling_seconds:p50_rate15m{{{VMS}}})"),
            query(f"max by (vm) (kvm_vcpu:pt_lost_ratio:rate15m{{{VMS}}})"),
        ],
        [
            column("vm", "VM", links=[to_cell("kvm-vm", "vm", job=None, instance=None)]),
            column_of(0, "Branches a cycle", "none", 3),
            column_of(1, "In the guest", "percentunit", 0, cell="gauge", limits=steps(base=BLUE), maximum=1),
            column_of(2, "Exits a second", "short", 1),
            column_of(3, "Guest run, median", "s", 1),
            column_of(4, "Host handling, median", "s", 1),
            column_of(5, "Lost data", "percentunit", 0, cell="color-text", limits=steps((0.1, ORANGE), (LOST, RED))),
        ],
        width=24,
        height=9,
        sort=("Exits a second", True),
        none="No VM has a recording of the last quarter of an hour",
    )


def volume():
    result = lambda name, label: [query(f"sum by ({label}) ({name}{{{VMS}}})", f"{{{{{label}}}}}", now=True)]
    return [
        bargauge(
            "Trace recorded since each VM was found",
            """Bytes of trace, the ten VMs with most. Trace of a vCPU that branches much fills its buffer sooner;
            `sources.pt.window` bounds it.""",
            [query(f"topk(10, sum by (job, instance, vm) (kvm_vcpu_pt_bytes_total{{{VMS}}}))", "{{vm}}", now=True)],
            "bytes",
            width=8,
            height=8,
            decimals=0,
        ),
        bargauge(
            "Exits in recordings, by reason",
            f"""VM exits seen in recordings, by VMX reason where the CPU has event trace, else all of them unknown.
            {runbook("KvmVmExitStorm")}""",
            result("kvm_vcpu_pt_exits_total", "reason"),
            "short",
            width=8,
            height=8,
            decimals=0,
        ),
        bargauge(
            "Trouble with the trace itself",
            f"""Overflows (the CPU lost packets), places that are no packet, and bytes that could not be decoded,
            all since each VM was found. Good: 0. {runbook("KvmPtDataLost")}""",
            [
                query(f"sum(kvm_vcpu_pt_overflows_total{{{VMS}}})", "overflows", now=True),
                query(f"sum(kvm_vcpu_pt_decode_errors_total{{{VMS}}})", "decoding errors", now=True),
                query(f"sum(kvm_vcpu_pt_skipped_bytes_total{{{VMS}}})", "bytes skipped", now=True),
            ],
            "short",
            width=8,
            height=8,
            decimals=0,
            limits=steps((1, ORANGE)),
        ),
    ]


def dashboard():
    return framed(
        "kvm-pt",
        "Intel Processor Trace: what short recordings of each vCPU tell of its guest and of the host's work for it.",
        [quality(), [each_vm()], row("Code"), code(), row("Exits"), exits(), lengths(), row("Volume"), volume()],
    )
