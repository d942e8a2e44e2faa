// The host's cores: what uses each, what is wanted of it, and what is idle.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.scheduling',
        rules: [
          // Threads of each core that are online.
          record('kvm_host_core:threads:count', |||
            count without (cpu) (
              group without (die_id, cluster_id, llc, core_type, online) (last_over_time(kvm_host_cpu_info{online="true"}[2m]))
            )
          |||),
          record('kvm_host:cpus:count', 'sum without (package, core, numa_node) (kvm_host_core:threads:count)'),
          record('kvm_host_core:time:rate5m', 'sum without (cpu) (rate(kvm_host_cpu_vcpu_time_seconds_total[5m]))'),
          // All that runs there, of VMs and of the host. Where the host's own time is not read, what VMs use: vCPUs, and their
          // other threads where those are watched and have a place.
          record('kvm_host_core:busy:rate5m', |||
            sum without (mode) (rate(kvm_host_core_seconds_total{mode!~"idle|iowait"}[5m]))
              or kvm_host_core:time:rate5m + sum without (vm, role) (rate(kvm_vm_thread_time_seconds_total{role!="vcpu", core!=""}[5m]))
              or kvm_host_core:time:rate5m
          |||),
          record('kvm_host_core:idle_cpus:rate5m', |||
            sum without (mode) (rate(kvm_host_core_seconds_total{mode=~"idle|iowait"}[5m]))
              or clamp_min(kvm_host_core:threads:count - kvm_host_core:busy:rate5m, 0)
          |||),
          // Time that no VM used: host processes, the kernel, interrupts, and steal where the host is a VM itself.
          record('kvm_host_core:host_time:rate5m', |||
            clamp_min(
              (kvm_host_core:busy:rate5m and ignoring (mode) last_over_time(kvm_host_core_seconds_total{mode="idle"}[5m]))
                - (kvm_host_core:time:rate5m or 0 * kvm_host_core:busy:rate5m)
                - (
                  sum without (vm, role) (rate(kvm_vm_thread_time_seconds_total{role!="vcpu", core!=""}[5m]))
                    or 0 * kvm_host_core:busy:rate5m
                ),
              0
            )
          |||),
          // Of the VMs whose places are known; contention is what quotas do not explain of the wait.
          record('kvm_vm:contention_by_core:rate5m', |||
            sum without (vcpu) (rate(kvm_vcpu_delay_seconds_total{core!=""}[5m]))
              * ignoring (package, core, numa_node) group_left () (kvm_vm:contention:rate5m / (kvm_vm:delay:rate5m > 0))
              > 0
          |||),
          // Where VMs have no places, all waits of the core's CPUs.
          record('kvm_host_core:contention:rate5m', |||
            sum without (vm) (kvm_vm:contention_by_core:rate5m)
              or (
                sum without (cpu) (rate(kvm_host_cpu_vcpu_delay_seconds_total[5m]))
                  unless on (%(host)s) kvm_vm:time_by_core:rate5m{core!=""}
              )
              or 0 * kvm_host_core:busy:rate5m
          ||| % t),
          record('kvm_host_core:demand:rate5m', |||
            kvm_host_core:busy:rate5m
              + (kvm_host_core:contention:rate5m or 0 * kvm_host_core:busy:rate5m)
              + (
                sum without (vm, role) (rate(kvm_vm_thread_delay_seconds_total{role!="vcpu", core!=""}[5m]))
                  or 0 * kvm_host_core:busy:rate5m
              )
          |||),
          record('kvm_host_package:demand:rate5m', 'sum without (core, numa_node) (kvm_host_core:demand:rate5m)'),
          record('kvm_host:overcommit:ratio', 'sum without (vm) (last_over_time(kvm_vm_vcpus[5m])) / (kvm_host:cpus:count > 0)'),
          // Cores with no busy thread, on average: two half-idle cores are one.
          record('kvm_host_node:idle_cores:rate5m', |||
            sum without (package, core) (
              clamp_min(1 - kvm_host_core:demand:rate5m, 0) and kvm_host_core:threads:count
            )
          ||| % t),
          record('kvm_vm:idle_cores_near:rate5m', |||
            sum without (numa_node) (
              0 * (kvm_vm:time_by_node:share >= %(node_time_share)s)
                + ignoring (vm) group_left () kvm_host_node:idle_cores:rate5m
            )
          ||| % t),
        ],
      },
    ],
  },
}
