// What rule files are written with.
{
  record(name, expr, labels={}):: { record: name, labels: labels, expr: expr },

  names:: import 'names.libsonnet',
}
