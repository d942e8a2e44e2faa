"""What is said in more than one place: the limits of the alerts, and the causes of a slow VM in plain words."""

# The limits that panels draw, by the alert that has them in its expression (alerts/alerts.yaml); a test compares.
LIMITS = {
    "KvmVmCacheMissStorm": 10,
    "KvmVmMemoryRemote": 0.5,
    "KvmVmDeviceRemote": 1,
    "KvmVmSpreadOverNodes": 1,
    "KvmVcpuDelayHigh": 0.05,
    "KvmVcpuDelayCritical": 0.2,
    "KvmVcpuStarved": 0.1,
    "KvmCoreOvercommitted": 1.1,
    "KvmVmSmtContention": 0.3,
    "KvmVmQuotaThrottled": 0.25,
    "KvmPackageThrottled": 0.05,
    "KvmVmExitStorm": 50000,
    "KvmPtDataLost": 0.25,
    "KvmPmuMultiplexed": 0.5,
    "KvmExporterSampleTooOld": 30,
}

# Causes of kvm_vm:trouble:score: the name in a column, the runbook, and the verdict.
CAUSES = {
    "delay": (
        "Delay",
        "KvmVcpuDelayHigh",
        "Its vCPUs wait for a core: others want the same cores. The guest sees it as steal. See delay, and "
        "the cores on KVM / Host.",
    ),
    "starved": (
        "Starved",
        "KvmVcpuStarved",
        "One vCPU waits far longer than its siblings: something busy shares its core. See KVM / vCPU.",
    ),
    "quota": (
        "Quota",
        "KvmVmQuotaThrottled",
        "Its CPU quota holds it back: it wants more than it may use. See quota throttling.",
    ),
    "memory_remote": (
        "Memory",
        "KvmVmMemoryRemote",
        "Its memory is on a NUMA node with CPUs where its vCPUs do not run. See vCPU time and memory by node.",
    ),
    "device_remote": (
        "Device",
        "KvmVmDeviceRemote",
        "A passed-through device is on a NUMA node where its vCPUs do not run. See devices.",
    ),
    "cache": (
        "Cache",
        "KvmVmCacheMissStorm",
        "It misses the cache far more than in the hour before: a neighbour may push its data out. See "
        "neighbours in its cache.",
    ),
    "smt": (
        "SMT",
        "KvmVmSmtContention",
        "Its vCPUs share cores with busy siblings while other cores of its nodes idle. See time beside a "
        "busy sibling.",
    ),
    "throttling": (
        "Heat",
        "KvmPackageThrottled",
        "The package it runs on is too hot and slows its cores down. See frequency and heat.",
    ),
    "exits": (
        "Exits",
        "KvmVmExitStorm",
        "It leaves the guest so often that handling the exits takes the time. See exits by reason.",
    ),
    "cpi_week": (
        "CPI, week",
        "KvmVmCpiAboveItsWeek",
        "The guest needs more cycles per instruction than in its last week: the same work takes longer. A "
        "symptom, not yet a cause.",
    ),
    "cpi_peers": (
        "CPI, peers",
        "KvmVmCpiAbovePeers",
        "The guest needs more cycles per instruction than other VMs of its flavor: its place may be worse. "
        "A symptom, not yet a cause.",
    ),
}

NOTHING = "Nothing on the host explains it: look inside the guest."
# A storm of misses becomes usual after half an hour, and its score falls, while the neighbour goes on.
ONLY_SYMPTOMS = (
    "No cause on the host is over its limit: look inside the guest, and whether "
    "neighbours in its cache are others than before."
)
UNKNOWN = (
    "Nothing can be said: no score is known for this VM. It uses too little CPU to be judged, "
    "or the rules of alerts/recording.yaml are not loaded."
)


def runbook(*names):
    """The last sentence of a description."""
    return "Runbook: " + ", ".join(names) + "."
