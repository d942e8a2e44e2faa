// Numbers as text. std.toString prints 0.05 as 0.050000000000000003; %g keeps the six digits that a threshold has.
{
  text(number):: '%g' % number,

  percent(number):: $.text(100 * number) + '%',

  // The thresholds as text, for `'... > %(delay)s' % t`.
  texts(thresholds):: { [name]: $.text(thresholds[name]) for name in std.objectFields(thresholds) },
}
