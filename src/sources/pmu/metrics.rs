//! The metrics of hardware counters.

use crate::metric::{metrics, Keys, Metric};

metrics! { METRICS of "pmu":
    CYCLES = Metric::counter("kvm_vcpu_cycles_total", Keys::Placed, &["mode"],
        "CPU cycles on behalf of the vCPU, guest and host separately, scaled if counters were multiplexed");
    INSTRUCTIONS = Metric::counter("kvm_vcpu_instructions_total", Keys::Placed, &["mode"],
        "Instructions retired on behalf of the vCPU, guest and host separately, scaled if counters were multiplexed");
    REF_CYCLES = Metric::counter("kvm_vcpu_ref_cycles_total", Keys::Placed, &["mode"],
        "CPU cycles at the reference frequency on behalf of the vCPU, guest and host separately, scaled if counters were multiplexed");
    CACHE_REFERENCES = Metric::counter("kvm_vcpu_cache_references_total", Keys::Placed, &["mode"],
        "Cache references on behalf of the vCPU, guest and host separately, scaled if counters were multiplexed: of the last level on Intel, of L2 on AMD Zen, of the L1 data cache on ARM");
    CACHE_MISSES = Metric::counter("kvm_vcpu_cache_misses_total", Keys::Placed, &["mode"],
        "Cache misses on behalf of the vCPU, guest and host separately, scaled if counters were multiplexed: of the last level on Intel, of L2 on AMD Zen, of the L1 data cache on ARM");
    BRANCHES = Metric::counter("kvm_vcpu_branches_total", Keys::Placed, &["mode"],
        "Branch instructions retired on behalf of the vCPU, guest and host separately, scaled if counters were multiplexed; with event set branches");
    BRANCH_MISSES = Metric::counter("kvm_vcpu_branch_misses_total", Keys::Placed, &["mode"],
        "Branch instructions mispredicted on behalf of the vCPU, guest and host separately, scaled if counters were multiplexed");
    DTLB_LOAD_MISSES = Metric::counter("kvm_vcpu_dtlb_load_misses_total", Keys::Placed, &["mode"],
        "Loads that missed the data TLB on behalf of the vCPU, guest and host separately, scaled if counters were multiplexed; with event set dtlb");
    STALLED_CYCLES = Metric::counter("kvm_vcpu_stalled_cycles_total", Keys::Placed, &["mode", "stage"],
        "CPU cycles in which the pipeline's frontend or backend was stalled; with event set stalled");
    DRAM_LOADS = Metric::counter("kvm_vcpu_dram_loads_total", Keys::Placed, &["mode", "target"],
        "Loads served by DRAM of the local or a remote NUMA node; on AMD, demand fills of the data cache from DRAM or I/O of that node");
    TOPDOWN_SLOTS = Metric::counter("kvm_vcpu_topdown_slots_total", Keys::Placed, &["mode", "category"],
        "Issue slots by topdown category; category total is all slots; with event set topdown");
    PMU_EVENT = Metric::counter("kvm_vcpu_pmu_event_total", Keys::Placed, &["mode", "event"],
        "User-defined events of sources.pmu.raw");
    SOFTWARE_EVENT = Metric::counter("kvm_vcpu_software_event_total", Keys::Placed, &["event"],
        "Software events of the kernel, counted if the machine has no PMU");
    PMU_ENABLED = Metric::counter("kvm_vcpu_pmu_enabled_seconds_total", Keys::Vcpu, &["group"],
        "Time the counter group was enabled: the vCPU thread ran on a CPU");
    PMU_RUNNING = Metric::counter("kvm_vcpu_pmu_running_seconds_total", Keys::Vcpu, &["group"],
        "Time the counter group was counting; if less than enabled, counters are multiplexed and values are scaled");
}
