// Draws /dash.json: ?from=MS&to=MS&step=MS&var-NAME=VALUE. What it found is in window.found.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { ThemeContext, dateTime, formattedValueToString, getDisplayProcessor, getFieldDisplayName, reduceField } from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';
import * as chromatic from 'd3-scale-chromatic';
import { frames, theme } from './data.js';

const WIDTH = 1680, UNIT = WIDTH / 24, LINE = 38;
const asked = new URLSearchParams(location.search);
const from = +asked.get('from'), to = +asked.get('to');
const range = { from, to, step: +asked.get('step') };
const timeRange = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
// Variables that are All unless the address sets them.
const ALL = { cluster: '.*', job: '.+', instance: '.+', vcpu: '.+' };
const fill = text => text.replace(/\$\{?(__\w+|[a-z]\w*)(?::\w+)?\}?/g, (whole, name) =>
  ({ __rate_interval: '1m', __interval: '15s', __range: '1h' })[name] ?? asked.get(`var-${name}`) ?? ALL[name] ?? whole);

const show = (field, value) => (field.display ?? getDisplayProcessor({ field, theme }))(value);
const last = field => reduceField({ field, reducers: ['lastNotNull'] }).lastNotNull;
const name = (frame, all) => getFieldDisplayName(frame.fields[1], frame, all);
const Nothing = ({ panel }) => <div className="nothing">{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;

function Stat({ panel, all, width, height }) {
  const each = width / all.length;
  return <div style={{ display: 'flex' }}>{all.map((frame, at) => {
    const field = frame.fields[1], value = show(field, last(field));
    const shown = panel.options.textMode === 'name' ? { ...value, text: name(frame, all), prefix: '', suffix: '' } : value;
    const sparkline = panel.options.graphMode === 'area' && field.values.length > 1
      ? { y: field, x: frame.fields[0], xMin: from, xMax: to, yMin: 0 } : undefined;
    return <BigValue key={at} theme={theme} width={each} height={height} value={shown} colorMode={panel.options.colorMode} graphMode={panel.options.graphMode}
      justifyMode="auto" textMode="value" text={panel.options.text} sparkline={sparkline} />;
  })}</div>;
}

function Bars({ panel, all, width, height }) {
  const line = height / all.length;
  return all.map((frame, at) => {
    const field = { ...frame.fields[1], config: { ...frame.fields[1].config } };
    field.config.max ??= Math.max(...all.map(one => last(one.fields[1])), 1e-9);
    const value = { ...show(field, last(field)), title: name(frame, all) };
    return <BarGauge key={at} theme={theme} width={width} height={Math.min(line - 4, 38)} value={value} field={field.config} display={field.display} orientation="horizontal"
      displayMode="basic" valueDisplayMode="color" showUnfilled itemSpacing={4} alignmentFactors={{ title: 'a name of a VM', text: '0000.00 M' }} />;
  });
}

const side = field => {
  const { align } = field.config.custom ?? {};
  return ['left', 'center'].includes(align) ? align : field.type === 'number' ? 'right' : 'left';
};

function Cell({ field, row, width }) {
  const value = field.values[row], custom = field.config.custom ?? {}, kind = custom.cellOptions?.type;
  const shown = show(field, value), said = value == null || value === '' ? '' : formattedValueToString(shown);
  const style = { width, textAlign: side(field) };
  if (kind === 'color-background' && said) Object.assign(style, { background: shown.color });
  if (kind === 'color-text') style.color = shown.color;
  if (kind === 'gauge' && said) {
    const part = Math.min(1, Math.max(0, value / (field.config.max ?? 1)));
    style.background = `linear-gradient(90deg, ${shown.color} ${part * 100}%, transparent ${part * 100}%) 6px 7px / ${width - 84}px 10px no-repeat`;
  }
  return <div className={`cell ${field.config.links?.length ? 'link' : ''} ${said.length > 60 ? 'sentence' : ''}`} style={style}>{said}</div>;
}

function Table({ panel, all, width, height }) {
  const frame = all[0];
  const fields = frame.fields.filter(field => !field.config.custom?.hidden);
  const names = fields.map(field => getFieldDisplayName(field, frame, all));
  const fixed = fields.reduce((sum, field) => sum + (field.config.custom?.width ?? 0), 0);
  const rest = (width - fixed) / Math.max(1, fields.filter(field => !field.config.custom?.width).length);
  const widths = fields.map(field => field.config.custom?.width ?? rest);
  const order = [...Array(frame.length).keys()], sort = panel.options.sortBy[0];
  if (sort) {
    const field = fields[names.indexOf(sort.displayName)];
    const before = (a, b) => (typeof a === 'number' || typeof b === 'number' ? (a ?? -1) - (b ?? -1) : String(a).localeCompare(String(b), 'en', { numeric: true }));
    if (field) order.sort((a, b) => before(field.values[a], field.values[b]) * (sort.desc ? -1 : 1));
  }
  return <div style={{ width, height, overflow: 'hidden' }}><table>
    <thead><tr>{names.map((one, at) => <th key={at}><div className="cell" style={{ width: widths[at], textAlign: side(fields[at]) }}>{one}</div></th>)}</tr></thead>
    <tbody>{order.slice(0, 60).map(row => <tr key={row}>{fields.map((field, at) => <td key={at}><Cell field={field} row={row} width={widths[at]} /></td>)}</tr>)}</tbody>
  </table></div>;
}

function axis(context, left, width, height) {
  context.fillStyle = '#ccccdc';
  context.textAlign = 'center';
  for (let tick = 1; tick < 6; tick++) {
    const at = from + ((to - from) * tick) / 6;
    context.fillText(new Date(at).toISOString().slice(11, 19), left + (width * tick) / 6, height - 4);
  }
}

// Rows of colours over time: a heat map or a state timeline.
function Rows({ labels, width, height, paint, title }) {
  const draw = canvas => {
    if (!canvas) return;
    const left = title, line = (height - 18) / labels.length, context = canvas.getContext('2d');
    context.clearRect(0, 0, width, height);
    context.font = '11px sans-serif';
    labels.forEach((label, row) => {
      context.fillStyle = '#ccccdc';
      context.textAlign = 'right';
      const every = Math.ceil(11 / line);
      if (row % every === 0) context.fillText(label, left - 6, row * line + line / 2 + 4);
      paint(row).forEach((color, at, all) => {
        if (!color) return;
        context.fillStyle = color;
        const step = (width - left) / all.length;
        context.fillRect(left + at * step, row * line + 1, step + 0.5, Math.max(line - 2, 1));
      });
    });
    axis(context, left, width - left, height);
  };
  return <canvas ref={draw} width={width} height={height} />;
}

function Heatmap({ panel, all, width, height }) {
  const { color, filterValues } = panel.options;
  const palette = chromatic[`interpolate${color.scheme}`];
  // As Grafana does: this one always, the sequential ones on a dark page.
  const paint = part => palette(1 - part);
  const shade = value => value == null || value <= filterValues.le ? null : paint(Math.min(1, Math.max(0, (value - color.min) / (color.max - color.min))));
  return <Rows labels={all.map(frame => name(frame, all))} width={width} height={height} title={96} paint={row => all[row].fields[1].values.map(shade)} />;
}

function States({ all, width, height }) {
  const paint = row => all[row].fields[1].values.map(value => (value == null ? null : show(all[row].fields[1], value).color));
  return <Rows labels={all.map(frame => name(frame, all))} width={width} height={height} title={110} paint={paint} />;
}

const Lines = ({ panel, all, width, height }) =>
  <TimeSeries frames={all} structureRev={1} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={panel.options.legend} options={panel.options} />;

const KINDS = { timeseries: Lines, stat: Stat, bargauge: Bars, table: Table, heatmap: Heatmap, 'state-timeline': States };

function Panel({ panel, data }) {
  const { x, y, w, h } = panel.gridPos;
  const style = { left: x * UNIT, top: y * LINE, width: w * UNIT, height: h * LINE };
  if (panel.type === 'row') return <div className="at heading" style={style}>{panel.title}</div>;
  const Kind = KINDS[panel.type];
  const has = data.frames.some(frame => frame.length > 0);
  return <div className="at" style={style}>
    <PanelChrome title={panel.title} width={w * UNIT - 8} height={h * LINE - 8} padding={panel.type === 'table' ? 'none' : 'md'}>
      {(width, height) => (has ? <Kind panel={panel} all={data.frames} width={width} height={height} /> : <Nothing panel={panel} />)}
    </PanelChrome>
  </div>;
}

// Collapsed rows are drawn open: each moves what follows it down by the height of its panels.
function opened(panels) {
  let moved = 0;
  return panels.flatMap(panel => {
    const down = one => ({ ...one, gridPos: { ...one.gridPos, y: one.gridPos.y + moved } });
    const all = [panel, ...(panel.panels ?? [])].map(down);
    if (panel.panels?.length) moved += Math.max(...panel.panels.map(({ gridPos }) => gridPos.y + gridPos.h)) - panel.gridPos.y - panel.gridPos.h;
    return all;
  });
}

async function main() {
  const dashboard = await (await fetch(`/dashboards/${asked.get('dashboard')}.json`)).json();
  const all = [];
  const panels = opened(dashboard.panels);
  for (const panel of panels) all.push([panel, panel.type === 'row' ? null : await frames(panel, range, fill)]);
  const height = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * LINE;
  document.getElementById('page').style.height = `${height}px`;
  window.found = all.filter(([, data]) => data).map(([panel, data]) => ({ panel: panel.title, series: data.frames.length, empty: data.empty }));
  createRoot(document.getElementById('page')).render(
    <ThemeContext.Provider value={theme}><GlobalStyles />{all.map(([panel, data]) => <Panel key={panel.id} panel={panel} data={data} />)}</ThemeContext.Provider>);
  setTimeout(() => { document.title = 'ready'; }, 1500);
}

main().catch(error => { window.found = String(error.stack ?? error); document.title = 'failed'; });
