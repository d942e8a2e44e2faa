// CPU quotas that stop a VM.
local lib = import '../lib/alerts.libsonnet';
local text = import '../lib/text.libsonnet';

{
  local t = lib.names($._config),
  local alert = lib.of($._config).alert,

  prometheusAlerts+:: {
    groups+: [
      {
        name: 'vcpu-exporter.quota.alerts',
        rules: [
          // By the time it costs, not by the share of periods: a quarter of the periods may be a hundredth of the time.
          alert(
            'KvmVmQuotaThrottled',
            |||
              kvm_vm:quota_wait_ratio:rate5m > %(quota_wait)s
                and kvm_vm:time:rate5m + kvm_vm:delay:rate5m >= %(vm_busy_cores)s
            ||| % t,
            '5m',
            'warning',
            'vm',
            'A VM is held back by its CPU quota',
            [
              'Ask whether VM {{ $labels.vm }} has the quota that it should have:',
              text.list(
                'max by (level) (kvm_vm_cpu_quota_cores{$vm})',
                '{{ .Value | printf "%.2g" }} CPUs on level {{ .Labels.level }}',
                sort='level',
                none='no quota is known'
              ) + '.',
              'The quota takes',
              text.number('kvm_vm:quota_wait_ratio:rate5m{$vm}', text.share) + ' of the time that its vCPUs want to run;',
              'it runs out in',
              text.number('max(kvm_vm:cpu_throttled_ratio:rate5m{$vm})', text.share) + ' of periods.',
              'The VM uses',
              text.number('kvm_vm:time:rate5m{$vm}', text.two),
              'CPUs.',
            ],
            keep='5m'
          ),
        ],
      },
    ],
  },
}
