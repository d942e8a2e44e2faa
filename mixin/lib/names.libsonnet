// What expressions are filled in with, as `'... on (%(vm)s) ... > %(delay)s' % names(config)`: the labels that identify an
// object, and the thresholds.
//
// Prometheus can put more labels on a series than these (replica, env). So that two series that differ in such a label alone
// cannot fail a join, the side of which there must be one is always `max by (%(vm)s) (...)` of exactly the labels of
// `on (%(vm)s)`. All other aggregations are `without`.
local numbers = import 'numbers.libsonnet';

local objects(config) =
  local fleet = [config.clusterLabel, 'job'];
  local host = fleet + ['instance'];
  {
    // Series of one scrape configuration in one cluster.
    fleet: fleet,
    host: host,
    package: host + ['package'],
    core: host + ['package', 'core'],
    node: host + ['numa_node'],
    vm: host + ['vm'],
    vm_node: host + ['vm', 'numa_node'],
    vcpu: host + ['vm', 'vcpu'],
  };

// A series that Prometheus writes for each target.
local ofTarget(config, name, matchers=[]) =
  local selector = if config.upSelector == null then config.selector else config.upSelector;
  local all = matchers + (if selector == '' then [] else [selector]);
  if all == [] then name else '%s{%s}' % [name, std.join(',', all)];

function(config)
  { [name]: std.join(', ', objects(config)[name]) for name in std.objectFields(objects(config)) }
  + {
    job: config.job,
    up: ofTarget(config, 'up'),
    up_of_job: ofTarget(config, 'up', ['job="%s"' % config.job]),
  }
  + numbers.texts(config.thresholds)
