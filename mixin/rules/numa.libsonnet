// Memory and devices beside the nodes a VM runs on.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),

  // Share of each VM's time that counts as near the memory of one node.
  local timeNear(node) = |||
    label_replace(
      sum without (numa_node) (
        kvm_vm:time_by_node:share
          * on (%(node)s) group_left ()
            max by (%(node)s) (kvm_host_node:near:ratio{to="%(to)d"})
      ), "numa_node", "%(to)d", "", ""
    )
  ||| % (t { to: node }),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.numa',
        rules: [
          record('kvm_vm:memory_by_node:share', |||
            last_over_time(kvm_vm_memory_bytes[5m])
              / ignoring (numa_node) group_left () (sum without (numa_node) (last_over_time(kvm_vm_memory_bytes[5m])) > 0)
          |||),
          // Nodes that a vCPU can run on. A node of memory alone (CXL, HBM, persistent memory in kmem mode) is none. As long as
          // memory is looked back on.
          record('kvm_host_node:has_cpus:bool', |||
            group without (cpu, package, core, die_id, cluster_id, core_type, llc, online) (
              last_over_time(kvm_host_cpu_info{online="true"}[5m])
            )
          |||),

          // How near the memory of node `to` is to CPUs of `numa_node`, by the distances that the firmware gives
          // (ACPI SLIT): 1 on the node with CPUs that is nearest to it, 0 on the farthest, 1 on all where none is nearer.
          record('kvm_host_node:distance:from_cpus', |||
            label_replace(last_over_time(kvm_host_numa_distance[5m]), "numa_node", "$1", "from", "(.*)")
              and on (%(node)s) kvm_host_node:has_cpus:bool
          ||| % t),
          record('kvm_host_node:near:ratio', |||
            (max without (from, numa_node) (kvm_host_node:distance:from_cpus) - ignoring (from, numa_node) group_right () kvm_host_node:distance:from_cpus)
              / ignoring (from, numa_node) group_left () (
                max without (from, numa_node) (kvm_host_node:distance:from_cpus)
                  - min without (from, numa_node) (kvm_host_node:distance:from_cpus) > 0
              )
              or kvm_host_node:distance:from_cpus * 0 + 1
          |||),

          // PromQL cannot match every node a VM runs on with every node its memory is on, so each memory node has a line of
          // its own. Without distances only the node itself is near.
          record(
            'kvm_vm:time_near_node:share',
            std.join('  or\n', [timeNear(node) for node in std.range(0, $._config.numaNodes - 1)])
            + '  or kvm_vm:time_by_node:share\n'
          ),

          // The chance that a load from where the VM runs meets memory elsewhere, if it uses all its memory alike: 0.86 for
          // 90 % of the time and 5 % of the memory on one node, the rest on the other. Memory on a node without CPUs counts
          // by the nearest node with CPUs; as near where distances are unknown.
          record('kvm_vm:memory_remote:ratio', |||
            1 - sum without (numa_node) (
              kvm_vm:memory_by_node:share * kvm_vm:time_near_node:share
                or (
                  kvm_vm:memory_by_node:share
                    and on (%(host)s) kvm_host_node:has_cpus:bool
                    unless on (%(node)s) kvm_host_node:has_cpus:bool
                )
                or 0 * kvm_vm:memory_by_node:share
            ) and on (%(vm)s) kvm_vm:time_by_node:share
          ||| % t),
          // The same chance with the memory divided over the nodes as the time is: what a VM of several nodes cannot avoid.
          record('kvm_vm:memory_remote_spread:ratio', |||
            1 - sum without (numa_node) (kvm_vm:time_by_node:share * kvm_vm:time_near_node:share)
          |||),
          // Of each device, as of memory: the share of the vCPU time that is far from it. A device on a node without CPUs and
          // without distances is near; one on a node where the VM never ran is far.
          record('kvm_vm:device_remote:ratio', |||
            (
              %(devices)s
                - on (%(vm_node)s) group_left () max by (%(vm_node)s) (kvm_vm:time_near_node:share)
                or (
                  0 * %(devices)s
                    and on (%(host)s) kvm_host_node:has_cpus:bool
                    unless on (%(node)s) kvm_host_node:has_cpus:bool
                )
                or %(devices)s
            ) and on (%(vm)s) kvm_vm:time_by_node:share
          ||| % (t {
            devices: 'group without (pci_id, driver, iommu_group, physfn, parent, mdev_type) (last_over_time(kvm_vm_device_info{numa_node!=""}[2m]))',
          })),
          record('kvm_vm:numa_nodes_used:count', 'count without (numa_node) (kvm_vm:time_by_node:share >= %(node_time_share)s)' % t),
          record('kvm_vm:numa_nodes_needed:count', |||
            ceil(
              last_over_time(kvm_vm_vcpus[5m])
                / ignoring (vm) group_left ()
                  min without (numa_node) (sum without (package, core) (kvm_host_core:threads:count))
            )
          |||),
        ],
      },
    ],
  },
}
