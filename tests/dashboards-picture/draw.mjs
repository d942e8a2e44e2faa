// Draws dashboards to pictures: node draw.mjs PROMETHEUS OUT_DIR MINUTES [DASHBOARD[?var-NAME=VALUE&...]]...
// Serves the built page and the dashboards, and hands queries on to Prometheus.
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { small } from './small.mjs';

const [prometheus, out, minutes, ...wanted] = process.argv.slice(2);
const dashboards = process.env.DASHBOARDS;
const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json' };

async function answer(request, response) {
  const { pathname, search } = new URL(request.url, 'http://localhost');
  if (pathname.startsWith('/api/')) {
    const upstream = await fetch(prometheus + pathname + search);
    response.writeHead(upstream.status, { 'content-type': 'application/json' });
    return response.end(await upstream.text());
  }
  const file = pathname.startsWith('/dashboards/') ? path.join(dashboards, path.basename(pathname)) : path.join('dist', pathname === '/' ? 'index.html' : pathname);
  response.writeHead(fs.existsSync(file) ? 200 : 404, { 'content-type': types[path.extname(file)] ?? 'application/octet-stream' });
  return response.end(fs.existsSync(file) ? fs.readFileSync(file) : '');
}

const server = http.createServer((request, response) => answer(request, response).catch(error => response.destroy(error)));
await new Promise(ready => server.listen(0, '127.0.0.1', ready));
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: flags });
let failed = false;
for (const one of wanted) {
  const [name, variables = ''] = one.split('?');
  const page = await browser.newPage({ viewport: { width: 1680, height: 900 } });
  const errors = [];
  page.on('pageerror', error => errors.push(String(error)));
  // In whole milliseconds, as Prometheus counts.
  const to = Date.now(), step = Math.ceil((minutes * 60000) / 180), from = to - 180 * step;
  const query = `dashboard=${name}&from=${from}&to=${to}&step=${step}&${variables}`;
  await page.goto(`http://127.0.0.1:${server.address().port}/?${query}`);
  await page.waitForFunction(() => ['ready', 'failed'].includes(document.title), null, { timeout: 120000 });
  console.log(name, JSON.stringify(await page.evaluate(() => window.found)), errors);
  failed ||= errors.length > 0 || (await page.title()) === 'failed';
  const picture = await page.screenshot({ fullPage: true });
  fs.writeFileSync(path.join(out, `dashboard-${name}.png`), await small(page, picture, 0.75));
  await page.close();
}
await browser.close();
server.close();
process.exit(failed ? 1 : 0);
