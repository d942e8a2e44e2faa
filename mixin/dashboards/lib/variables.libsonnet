// The variables at the top of each dashboard. Each depends on those before it.
local p = import 'panels.libsonnet';

function(config)
  local cluster = config.clusterLabel;

  // Variables of each dashboard, in order. `instance` follows `vm` where a VM is found without knowing its host.
  local of = {
    fleet: ['job', 'instance'],
    host: ['job', 'instance'],
    vm: ['job', 'vm', 'instance'],
    vcpu: ['job', 'vm', 'instance', 'vcpu'],
    pt: ['job', 'instance', 'vm'],
  };
  // Variables with several values, or all of them.
  local several = {
    fleet: ['cluster', 'job', 'instance'],
    host: ['cluster', 'job'],
    vm: ['cluster', 'job', 'instance'],
    vcpu: ['cluster', 'job', 'instance', 'vcpu'],
    pt: ['cluster', 'job', 'vm'],
  };
  local names(page) = (if cluster == '' then [] else ['cluster']) + of[page];
  local label(name) = if name == 'cluster' then cluster else name;

  local datasource = {
    name: 'datasource',
    label: 'Data source',
    description: 'The Prometheus that scrapes the exporters and has their recording rules.',
    type: 'datasource',
    query: 'prometheus',
    hide: 0,
    includeAll: false,
    multi: false,
    options: [],
    refresh: 1,
    regex: config.dashboards.datasourceRegex,
    skipUrlSync: false,
  } + p.when(config.dashboards.datasource != '', {
    current: { selected: true, text: config.dashboards.datasource, value: config.dashboards.datasource },
  });

  local words = {
    cluster: { label: 'Cluster', description: 'The cluster of the hosts; All where no cluster label exists.' },
    job: { label: 'Job', description: 'The scrape job of the exporters.' },
    instance: { label: 'Host', description: 'The exporter of a KVM host, as Prometheus names it.' },
    vm: { label: 'VM', description: 'A VM of the host. VM names are unique on their host only.' },
    vcpu: { label: 'vCPU', description: 'The index of a vCPU of the VM.' },
  };
  local vm_words = {
    vm: {
      label: 'VM',
      description: 'Type a part of the name, display name, project, namespace or uuid. The host need not be known.',
    },
    instance: {
      label: 'Host',
      description: 'Hosts that had the VM in the time range; all of them show it across a live migration.',
    },
  };

  // The metric that has the label.
  local metric = function(page, name)
    if name == 'vcpu' then 'kvm_vcpu_placement_info'
    else if name == 'vm' || std.member(names(page)[:std.find(name, names(page))[0]], 'vm') then 'kvm_vm_info'
    else 'kvm_exporter_build_info';

  local variable(page, name) =
    local before = names(page)[:std.find(name, names(page))[0]];
    local is_several(other) = std.member(several[page], other);
    local match(other) = '%s%s"$%s"' % [label(other), if is_several(other) then '=~' else '=', other];
    local outer = if config.selector == '' then [] else [config.selector];
    local matchers = std.join(',', outer + [match(other) for other in before]);
    local selected = metric(page, name) + if matchers == '' then '' else '{%s}' % matchers;
    // The text of a choice holds all that a VM may be known by, its value is the VM's name.
    local is_search = name == 'vm' && std.member(['vm', 'vcpu'], page);
    local query =
      if is_search then
        'query_result(count by (choice, vm) (label_join(%(vms)s or last_over_time(%(vms)s[$__range:10m]), '
        % { vms: selected }
        + '"choice", " ", "vm", "openstack_name", "openstack_project", "kubevirt_namespace", "proxmox_id", "uuid")))'
      else
        'label_values(%s, %s)' % [selected, label(name)];
    {
      name: name,
      type: 'query',
      datasource: p.datasource,
      query: { query: query, refId: 'Variable-' + name },
      hide: 0,
      includeAll: is_several(name),
      multi: is_several(name),
      options: [],
      // A search is not repeated when the time range changes: a VM that ended stays chosen while its end is looked at.
      refresh: if is_search then 1 else 2,
      regex: if is_search then '/choice="(?<text>[^"]+)".*vm="(?<value>[^"]+)"/' else '',
      skipUrlSync: false,
      // By number for vCPUs, else by name.
      sort: if name == 'vcpu' then 3 else 1,
    }
    + (if std.member(['vm', 'vcpu'], page) then std.get(vm_words, name, words[name]) else words[name])
    + p.when(is_several(name), { current: { selected: true, text: ['All'], value: ['$__all'] } })
    // Series without the label are in All.
    + p.when(name == 'cluster', { allValue: '.*' })
    // All jobs are those of the list: `.+` would include those of other exporters. All hosts of a VM are those that had
    // it.
    + p.when(is_several(name) && !std.member(['cluster', 'job'], name) && (name != 'instance' || page == 'fleet'), {
      allValue: '.+',
    });

  {
    names(page):: ['datasource'] + names(page),
    several(page):: several[page],
    list(page):: [datasource] + [variable(page, name) for name in names(page)],
  }
