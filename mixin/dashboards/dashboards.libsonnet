// The dashboards, by the name of their file.
{
  grafanaDashboards+:: {
    'fleet.json': (import 'fleet.libsonnet')($._config),
    'host.json': (import 'host.libsonnet')($._config),
    'pt.json': (import 'pt.libsonnet')($._config),
    'vcpu.json': (import 'vcpu.libsonnet')($._config),
    'vm.json': (import 'vm.libsonnet')($._config),
  },
}
