// Which VMs do the same work, so that their CPI may be compared: `peers` names the group, `peers_by` says what it was made of.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local config = $._config,
  local t = lib.names(config),

  // The VMs whose label fits an entry of _config.peers, with the group it gives them. Of a VM that two replicas of
  // Prometheus scraped, and of one whose facts changed, there is one.
  local group(entry) =
    local within = std.get(entry, 'within', []);
    local matchers = std.join(
      ', ',
      ['%s=~"%s"' % [entry.label, entry.pattern]]
      + (if std.objectHas(entry, 'except') then ['%s!~"%s"' % [entry.label, entry.except]] else [])
      + ['%s=""' % label for label in std.get(entry, 'without', [])]
    );
    local info = 'last_over_time(kvm_vm_info{%s}[2m])' % matchers;
    local named = 'label_replace(%s, "peers", "$1", "%s", "%s")' % [info, entry.label, entry.pattern];
    local inside = if within == [] then named else 'label_join(%s, "peers", "/", %s, "peers")' % [
      named,
      std.join(', ', ['"%s"' % label for label in within]),
    ];
    |||
      topk by (%(vm)s) (1, max by (%(vm)s, peers, peers_by) (label_replace(
        %(inside)s,
        "peers_by", "%(by)s", "", ""
      )))
    ||| % (t { inside: inside, by: entry.by }),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.peers',
        rules: [
          record(
            'kvm_vm:peers:info',
            std.join('or on (%(vm)s)\n' % t, [group(entry) for entry in config.peers])
          ),
        ],
      },
    ],
  },
}
