// From a panel's queries to frames with Grafana's field configuration and transformations applied.
import {
  FieldColorModeId, FieldType, Registry, applyFieldOverrides, createTheme, standardTransformers, standardTransformersRegistry,
  toDataFrame, transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

export const theme = createTheme({ colors: { mode: 'dark' } });

standardTransformersRegistry.setInit(() =>
  // One of them is listed under two names.
  [...new Map(Object.values(standardTransformers).map(one => [one.id, one])).values()].map(one => ({ id: one.id, name: one.name, transformation: one, editor: () => null })));

// Grafana's application has one of these; it lives in no package. custom.* is what belongs to a kind of panel.
const property = (id, custom) => ({
  id: custom ? `custom.${id}` : id, path: id, name: id, isCustom: custom, process: value => value, shouldApply: () => true,
  override: () => null, editor: () => null, getItemsCount: () => 0,
});
const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'thresholds', 'mappings', 'color', 'links', 'fieldMinMax'];

const registry = panel => {
  const own = new Set(Object.keys(panel.fieldConfig.defaults.custom ?? {}));
  panel.fieldConfig.overrides.forEach(one => one.properties.forEach(({ id }) => id.startsWith('custom.') && own.add(id.slice(7))));
  return new Registry(() => [...STANDARD.map(id => property(id, false)), ...[...own].map(id => property(id, true))]);
};

const named = (legend, labels) =>
  legend === '__auto' ? Object.entries(labels).filter(([key]) => !['__name__', 'job', 'instance'].includes(key)).map(([, value]) => value).join(' ')
    : legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, key) => labels[key] ?? '');

async function ask(target, expr, range) {
  const path = target.instant ? `query?time=${range.to / 1000}` : `query_range?start=${range.from / 1000}&end=${range.to / 1000}&step=${range.step / 1000}`;
  const answer = await (await fetch(`/api/v1/${path}&query=${encodeURIComponent(expr)}`)).json();
  if (answer.status !== 'success') throw new Error(`${answer.error}: ${expr}`);
  return answer.data.result;
}

// Prometheus leaves out what it does not have; Grafana puts a gap there.
function column(values, range) {
  const known = new Map(values.map(([at, value]) => [Math.round(at * 1000), +value]));
  const times = [];
  for (let at = range.from; at <= range.to; at += range.step) times.push(at);
  return { times, values: times.map(at => known.get(at) ?? null) };
}

const series = (target, result, range) => result.map(({ metric, value, values }) => {
  const all = value ? { times: [value[0] * 1000], values: [+value[1]] } : column(values, range);
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: all.times, config: {} },
      { name: 'Value', type: FieldType.number, values: all.values, labels: metric, config: { displayNameFromDS: named(target.legendFormat, metric) } },
    ],
  });
});

function rows(target, result, several) {
  const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].sort();
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map(({ value }) => value[0] * 1000), config: {} },
      ...labels.map(name => ({ name, type: FieldType.string, values: result.map(({ metric }) => metric[name] ?? ''), config: {} })),
      { name: several ? `Value #${target.refId}` : 'Value', type: FieldType.number, values: result.map(({ value }) => +value[1]), config: {} },
    ],
  });
}

export async function frames(panel, range, fill) {
  const several = panel.targets.length > 1;
  const answers = await Promise.all(panel.targets.map(async target => [target, await ask(target, fill(target.expr), range)]));
  const raw = answers.flatMap(([target, result]) =>
    target.format === 'table' ? (result.length ? [rows(target, result, several)] : []) : series(target, result, range));
  const shaped = await firstValueFrom(transformDataFrame(panel.transformations ?? [], raw));
  const empty = answers.filter(([, result]) => result.length === 0).map(([target]) => target.refId);
  const done = applyFieldOverrides({
    data: shaped, fieldConfig: panel.fieldConfig, fieldConfigRegistry: registry(panel), replaceVariables: text => text, theme, timeZone: 'utc',
  });
  // Colours of a palette go by the number of the series in the panel.
  done.forEach((frame, at) => frame.fields.forEach(field => {
    if (field.config.color?.mode === FieldColorModeId.PaletteClassic) field.state = { ...field.state, seriesIndex: at };
  }));
  return { frames: done, empty };
}
