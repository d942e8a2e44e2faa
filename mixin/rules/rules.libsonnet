// Recording rules. What a rule reads of another group is up to one evaluation old; groups stand in the order of reading.
//
// Each is a sum over places, divided where it is a ratio: never an average of ratios. Every label of the target is
// kept. What is unknown has no series, and neither has what would be x/0. Rates skip the gap a restart of the exporter
// makes; gauges bridge it with last_over_time, over two minutes where their labels are the fact and five where a number is.
(import 'cpi.libsonnet')
+ (import 'cache.libsonnet')
+ (import 'time.libsonnet')
+ (import 'quota.libsonnet')
+ (import 'placement.libsonnet')
+ (import 'scheduling.libsonnet')
+ (import 'saturation.libsonnet')
+ (import 'imbalance.libsonnet')
+ (import 'cores.libsonnet')
+ (import 'numa.libsonnet')
+ (import 'exits.libsonnet')
+ (import 'quality.libsonnet')
+ (import 'pt.libsonnet')
+ (import 'peers.libsonnet')
+ (import 'outliers.libsonnet')
+ (import 'week.libsonnet')
+ (import 'trouble.libsonnet')
+ (import 'pushes.libsonnet')
+ (import 'dashboards.libsonnet')
