// Errors that the hardware reports in the kernel log.
local lib = import '../lib/alerts.libsonnet';
local text = import '../lib/text.libsonnet';

local lines(kinds) = 'sum without (kind) (increase(kvm_host_kernel_log_lines_total{kind=~"%s"}[1h]))' % kinds;

{
  local t = lib.names($._config),
  local alert = lib.of($._config).alert,

  prometheusAlerts+:: {
    groups+: [
      {
        name: 'vcpu-exporter.hardware.alerts',
        rules: [
          // A lost page is one too many. Corrected errors are normal now and then; the kernel limits the rate of their lines.
          alert(
            'KvmHostHardwareErrors',
            |||
              %s > 0
                or %s >= %s
            ||| % [lines('memory_failure'), lines('machine_check|memory_error'), t.hardware_errors],
            '1m',
            'warning',
            'host',
            'A KVM host reports hardware errors',
            [
              'Move the VMs away and have the host checked: read journalctl -k for the DIMM, core or device that is named.',
              '{{ if %s }}The host lost pages of memory: VMs that used them get a machine check or are killed.{{ else }}The hardware corrects errors so far; more of them often precede a failure.{{ end }}'
              % text.query('increase(kvm_host_kernel_log_lines_total{$host,kind="memory_failure"}[1h]) > 0'),
              'Lines of the kernel log in an hour:',
              text.list(
                'max by (kind) (increase(kvm_host_kernel_log_lines_total{$host,kind=~"machine_check|memory_.*"}[1h])) > 0',
                '{{ .Value | %s }} {{ .Labels.kind }}' % text.whole,
                sort='kind',
                none='unknown'
              ) + '.',
            ]
          ),
        ],
      },
    ],
  },
}
