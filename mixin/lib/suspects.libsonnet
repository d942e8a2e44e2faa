// Who takes what a VM waits for, as text in an alert.
local text = import 'text.libsonnet';

// Of each core: the VM's wait there, for each CPU-second that runs there. Time of others, times this, is the part of the
// wait that goes with them.
local weight = 'on (package, core) group_left () max by (package, core) (kvm_vm:contention_by_core:rate5m{$vm} / ignoring (vm) kvm_host_core:busy:rate5m{$host})';

local named(sum, name) = 'label_replace(%s, "vm", "%s", "", "")' % [sum, name];

{
  // Shares of the CPU time on the cores where the VM waits, weighted by its wait: other VMs, host processes and the VM's
  // other threads, never its vCPUs.
  ofWait: text.list(
    'topk(3, (%s) / scalar(sum(kvm_vm:contention_by_core:rate5m{$vm}))) > 0.05' % std.join(' or ', [
      'sum by (vm) (kvm_vm:time_by_core:rate5m{$host,vm!=$labels.vm} * %s)' % weight,
      named('sum(kvm_host_core:host_time:rate5m{$host} * %s)' % weight, 'host processes'),
      named('sum(rate(kvm_vm_thread_time_seconds_total{$vm,role!="vcpu",core!=""}[5m]) * %s)' % weight, 'its own I/O and other threads'),
    ]),
    '{{ .Labels.vm }} ({{ .Value | ' + text.share + ' }})',
    none='unknown'
  ),

  // Other VMs that load most from the memory of nodes where memory of the VM is. The CPU counts for each load whether its own
  // node served it, so only the local loads of a VM have a node.
  ofMemory: text.list(
    'topk(3, max by (vm, numa_node) (kvm_vm:dram_loads_by_node:rate5m{$host,target="local",vm!=$labels.vm} and on (numa_node) (kvm_vm:memory_by_node:share{$vm} > 0.05)))',
    '{{ .Labels.vm }} ({{ .Value | %s }}/s on node {{ .Labels.numa_node }})' % text.large,
    none='unknown'
  ),

  // Of a whole host: CPUs that its largest VMs use, and its own processes where their time is known.
  ofHost: 'Most CPUs are used by: ' + text.list(
    'topk(3, max by (vm) (kvm_vm:time:rate5m{$host}))',
    '{{ .Labels.vm }} ({{ .Value | printf "%.2g" }})',
    none='unknown'
  ) + '.' + text.optional('Host processes use', 'sum(max by (package, core) (kvm_host_core:host_time:rate5m{$host}))', text.two, ' CPUs.'),
}
