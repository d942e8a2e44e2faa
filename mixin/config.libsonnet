// Settings of the mixin. To change one:
//
//   (import 'mixin.libsonnet') + { _config+:: { clusterLabel: 'cluster_name', thresholds+: { delay: 0.1 } } }
{
  _config+:: {
    // The job of the scrape configuration. Needed only to miss an exporter that never answered; rules take any job.
    job: 'vcpu-exporter',

    // For how long an exporter is missed after its last metrics (KvmExporterAbsent, KvmExportersDown). Shorter: a host that was
    // removed is forgotten sooner, and so is one that died: the alert ends although nothing was repaired.
    absentWindow: '1d',

    // The label that tells apart hosts of equal names in different clusters; series may lack it.
    clusterLabel: 'cluster',

    // A selector that every exported series must match, such as 'env="prod"'; empty for all.
    selector: '',

    // The same for `up` and `scrape_duration_seconds`, which Prometheus writes for each target: labels that
    // metric_relabel_configs add are not on them. null: as `selector`.
    upSelector: null,

    // The same for metrics of Prometheus itself (KvmRulesFailing).
    prometheusSelector: '',

    // Where runbooks are: $INSTANCE is replaced by the instance of the alert. The exporter serves its own runbooks.
    runbookBase: 'http://$INSTANCE/runbooks/',

    // The port of the exporter, for an instance without one.
    exporterPort: '9752',

    // Grafana, up to the path of a dashboard.
    dashboardBase: 'http://localhost:3000/d/',

    // NUMA nodes of the largest host, as far as their distances count. Memory on a node with a higher number is near only
    // to vCPUs of that node. Each costs a term of one rule.
    numaNodes: 16,

    dashboards: {
      // Links between the dashboards, and those of alerts, use the uid.
      uidPrefix: 'kvm-',
      tags: ['kvm', 'vcpu-exporter'],
      // The data source that is chosen at first, by name; '' is Grafana's default. The regex narrows the choice.
      datasource: '',
      datasourceRegex: '',
    },

    // Which VMs are peers, whose CPI is compared: the first entry that fits gives a VM its group, which is the first group
    // of `pattern` in `label` of kvm_vm_info. Names that match `except` do not fit; `within` are labels that must be equal too, `without`
    // labels that must be empty. `by: flavor` is a size and not a kind of work: what is found among such peers is of severity info.
    peers: [
      // A label that you add to kvm_vm_info by relabeling: a role, an image, a service.
      { by: 'label', label: 'peers', pattern: '(.+)' },
      // Names that differ in a number at their end: web-1, web-2.
      { by: 'name', label: 'openstack_name', pattern: '(.*[a-zA-Z])[-_.]?[0-9]+', within: ['openstack_project_id'] },
      { by: 'name', label: 'kubevirt_name', pattern: '(.*[a-zA-Z])[-_.]?[0-9]+', within: ['kubevirt_namespace'] },
      {
        by: 'name',
        label: 'vm',
        pattern: '(.*[a-zA-Z])[-_.]?[0-9]+',
        // Names that say nothing: nova's own, and those of installers.
        except: 'instance-[0-9a-f]{8}|[vV][mM][-_.]?[0-9]+',
        without: ['openstack_name', 'kubevirt_name'],
      },
      { by: 'flavor', label: 'openstack_flavor', pattern: '(.+)' },
    ],

    // Every number that decides whether something is trouble, for rules, alerts, scores, dashboards and the exporter's
    // own page. docs/ALERTS.md says what each is.
    thresholds: import 'thresholds.json',
  },
}
