// KVM / Host: what the host is made of, and what its exporter reads.
local p = import 'lib/panels.libsonnet';
local t = import 'lib/tables.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local s = (import 'lib/selectors.libsonnet')(config);
  local cpu = s.on(['cpu']);
  local selector = { host: s.host, cpu: cpu };

  {
    topology: t.table(
      'Topology',
      |||
        Online logical CPUs of each node, package and last-level cache, and the vCPUs found there last.
      |||,
      [
        p.query('count by (numa_node, package, llc) (kvm_host_cpu_info{%(host)s,online="true"})' % selector),
        p.query(|||
          count by (numa_node, package, llc) (
            kvm_vcpu_placement_info{%(host)s}
              * on (%(cpu)s) group_left (llc)
                max by (%(cpu)s, llc) (kvm_host_cpu_info{%(host)s,online="true"})
          )
        ||| % selector),
      ],
      [
        t.column('numa_node', 'Node', { width: 70 }),
        t.column('package', 'Package', { width: 80 }),
        t.column('llc', 'LLC', { width: 70 }),
        t.column('Value #A', 'CPUs', { unit: 'none' }),
        t.column('Value #B', 'vCPUs now', { unit: 'none' }),
      ],
      { width: 12, height: 5, sort: ['Node', false] }
    ),

    kernel: t.table(
      'Kernel and CPU',
      |||
        Kernel, microcode and CPU model. Hosts of one model can be compared. If only one of them has trouble, compare
        its microcode and kernel with the others.
      |||,
      [p.query('max by (cpu_model, kernel, microcode) (kvm_host_info{%(host)s})' % selector)],
      [
        t.column('cpu_model', 'CPU'),
        t.column('kernel', 'Kernel'),
        t.column('microcode', 'Microcode', { width: 110 }),
      ],
      { width: 12, height: 4, none: 'unknown' }
    ),

    sources: t.table(
      'Sources of the exporter',
      |||
        What the exporter reads, and why it does not read the rest. A source that is up with a reason is degraded. Run
        `vcpu-exporter check` on the host: it says how to fix it.
      ||| + words.runbook(['KvmExporterSourceDegraded']),
      [p.query('max by (source, reason) (kvm_exporter_source_up{%(host)s})' % selector)],
      [
        t.column('source', 'Source', { width: 140 }),
        t.column('Value', 'State', {
          width: 80,
          mappings: [p.says([['1', 'up', p.green], ['0', 'off', p.red]])],
          cell: 'color-text',
        }),
        t.column('reason', 'Reason'),
      ],
      { width: 12, height: 9, sort: ['State', false] }
    ),

    errors: [
      p.timeseries(
        'Kernel log lines',
        |||
          Lines of the kernel log in the last hour, by kind: machine checks, memory errors (EDAC), lost pages,
          throttling and KVM. Good: none. Machine checks: plan to replace the part, and move VMs away if the errors
          are not corrected.
        |||,
        [p.query('kvm_host:kernel_log_lines:increase1h{%(host)s}' % selector, '{{kind}}')],
        'none',
        { width: 12, decimals: 0, none: 'The kernel log cannot be read' }
      ),
      p.timeseries(
        'Visibility gaps',
        |||
          Processes or vCPUs that the inventory could not read. Good: 0. Run `vcpu-exporter check` on the host: it
          lists the gaps and how to fix them.
        |||,
        [p.query('kvm_exporter_blind_spots{%(host)s}' % selector, 'visibility gaps')],
        'none',
        { width: 12, decimals: 0, limits: [[1, p.orange]] }
      ),
    ],
  }
