// Drives the status page in a real browser and holds it to what it promises.
//
//   node page.mjs URL PLAYWRIGHT PICTURES MILLISECONDS
//
// The last is how long it waits for anything (DEADLINE in tests/support/run.rs).
//
// What is to happen on the host's side is asked for by a line "do WHAT". Each check that holds is a
// line "ok WHAT", each figure "figure WHAT"; the first that does not hold ends it with status 1.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [url, playwright, pictures, patience] = process.argv.slice(2);
const { chromium } = createRequire(playwright + "/")("playwright-core");
const LONG = Number(patience);
const HOSTILE = `<img src=x onerror="document.title='taken'">`;

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  timeout: LONG,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const complaints = [];
const strangers = [];
let expected = false;

// A page of its own profile, whose console and requests are watched.
const open = async (options, address = url) => {
  const context = await browser.newContext({ viewport: { width: 1440, height: 1000 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(LONG);
  page.on("console", (m) => { if (m.type() === "error" && !expected) complaints.push(m.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (r) => { if (!r.url().startsWith(url)) strangers.push(r.url()); });
  await page.goto(address);
  return page;
};
const picture = (page, name, fullPage = false) =>
  page.screenshot({ path: `${pictures}/${name}.png`, fullPage });
const ask = (what) => console.log(`do ${what}`);
const ok = (what) => console.log(`ok ${what}`);

const head = (page, key) => page.locator(`[data-key="sort:${key}"]`);
// The cells under the heading of this key, a VM each.
const column = async (page, key) => {
  const n = await head(page, key).evaluate((link) => link.parentElement.cellIndex + 1);
  return page.locator(`table.vms > tbody > tr:first-child > :nth-child(${n})`).allInnerTexts();
};
const order = (page, key) => head(page, key).locator("..").getAttribute("aria-sort");
const until = (page, what, argument) => page.waitForFunction(what, argument, { timeout: LONG });
const sortedBy = (page, key, how) => until(page, ([key, how]) =>
  document.querySelector(`[data-key="sort:${key}"]`).parentElement.ariaSort === how, [key, how]);
const numbers = (texts) => texts.map((t) => parseFloat(t.replace(/[^0-9.]/g, ""))).filter((n) => !isNaN(n));
const falls = (list) => list.every((n, i) => i === 0 || list[i - 1] >= n);

// --- what it shows ---
const page = await open({ colorScheme: "light" });
assert.equal(await page.title(), await page.evaluate(() => document.title));
assert.match(await page.title(), /^\(\d+\) \S+ · vcpu-exporter$/);
assert.ok(await page.locator("table.vms > tbody").count() >= 125);
assert.equal(await page.locator(".core .chip").count(), 1000);
ok("1,000 vCPUs are on the map");
await picture(page, "light");
await picture(page, "light-all", true);

assert.ok((await column(page, "name")).some((name) => name.includes(HOSTILE)), "the name is text");
assert.equal(await page.locator("main img").count(), 0);
ok("names with HTML in them are text");

// --- sorting ---
await head(page, "delay").click();
await sortedBy(page, "delay", "descending");
assert.ok(falls(numbers(await column(page, "delay"))), "delay falls");
await head(page, "delay").click();
await sortedBy(page, "delay", "ascending");
assert.ok(falls(numbers(await column(page, "delay")).reverse()), "delay rises");
ok("it sorts by click");
await head(page, "cpi").focus();
await page.keyboard.press("Enter");
await sortedBy(page, "cpi", "descending");
assert.ok(falls(numbers(await column(page, "cpi"))), "CPI falls");
assert.equal(await page.evaluate(() => document.activeElement.dataset.key), "sort:cpi");
await page.keyboard.press("Space");
await sortedBy(page, "cpi", "ascending");
ok("it sorts by keyboard, and the focus stays");
await head(page, "name").click();
await sortedBy(page, "name", "ascending");
assert.equal(await order(page, "cpi"), null);

// --- opening, colours ---
await page.locator('[data-key="open:api-1"]').click();
await until(page, () => document.querySelectorAll(".details .vcpus tbody tr").length === 8);
await page.locator('[data-key="colour:cpi"]').click();
await until(page, () => document.querySelector(".chip.cpi1") && !document.querySelector(".core .chip.delay0"));
await page.locator("#source-sched summary").click();
ok("a VM opens, and colours change their meaning");

// --- it keeps itself new ---
const tick = () => page.evaluate(() => fetch("/api/view").then((r) => r.json()).then((v) => v.tick));
const scrolled = await page.evaluate(() => {
  document.documentElement.style.scrollBehavior = "auto";
  window.scrollTo(0, 700);
  return window.scrollY;
});
const before = await tick();
const health = await page.locator(".core .demand").allInnerTexts();
assert.ok(health.length > 0);
await page.evaluate(() => { document.getElementById("vms").dataset.old = "yes"; });
await until(page, () => !document.getElementById("vms").dataset.old);
assert.ok(await tick() > before);
assert.equal(await page.evaluate(() => window.scrollY), scrolled);
assert.equal(await order(page, "name"), "ascending");
assert.equal(await page.locator(".details .vcpus tbody tr").count(), 8);
assert.equal(await page.locator("#source-sched").getAttribute("open"), "");
assert.equal(await page.locator('[data-key="colour:cpi"]').getAttribute("aria-pressed"), "true");
ok("it updates by itself and keeps order, what is open, colours and scroll");

ask("start");
await page.locator('[data-key="open:zz-visitor"]').waitFor();
ok("a VM that starts is shown");
ask("stop");
await page.locator('[data-key="open:zz-visitor"]').waitFor({ state: "detached" });
ok("a VM that stops goes");
await page.reload();
assert.equal(await order(page, "name"), "ascending");
assert.equal(await page.locator(".details .vcpus tbody tr").count(), 8);
ok("a reload keeps the look");
await page.locator("#vms").scrollIntoViewIfNeeded();
await picture(page, "open");
await page.locator("#sources").scrollIntoViewIfNeeded();
await picture(page, "sources");

// --- runbooks ---
const links = await page.locator("#now a.cause").evaluateAll((all) => all.map((a) => a.getAttribute("href")));
assert.ok(links.length > 0 && links.every((link) => /^\/runbooks\/Kvm\w+(\?vm=[^&]+(&neighbor=[^&]+)?)?$/.test(link)), String(links));
ok("causes link to runbooks");

// --- dark, narrow, without a script ---
const ground = (p) => p.evaluate(() => getComputedStyle(document.body).backgroundColor);
const dark = await open({ colorScheme: "dark" });
assert.notEqual(await ground(dark), await ground(page));
await picture(dark, "dark");
await dark.context().close();
const phone = await open({ viewport: { width: 390, height: 844 }, colorScheme: "light" });
const overflow = (p) => p.evaluate(() =>
  document.documentElement.scrollWidth - document.documentElement.clientWidth);
assert.equal(await overflow(phone), 0, "the body scrolls sideways");
await phone.locator('[data-key="open:api-1"]').click();
await until(phone, () => document.querySelector(".details"));
assert.equal(await overflow(phone), 0, "the body scrolls sideways when a VM is open");
await picture(phone, "phone-vms");
await phone.evaluate(() => window.scrollTo({ top: 0, behavior: "instant" }));
await picture(phone, "phone");
await phone.context().close();
ok("dark, light and narrow");
const bare = await open({ javaScriptEnabled: false });
await bare.locator('[data-key="sort:exits"]').click();
await bare.locator('[data-key="open:api-1"]').click();
assert.equal(await order(bare, "exits"), "descending");
assert.equal(await bare.locator(".details .vcpus tbody tr").count(), 8);
await bare.context().close();
ok("it works without a script");

// --- how long it takes, beside a page of three letters ---
const timed = async (address) => {
  const took = [];
  for (let n = 0; n < 7; n += 1) {
    const p = await open({}, address);
    took.push(await p.evaluate(() => performance.getEntriesByType("navigation")[0].duration));
    await p.context().close();
  }
  return took.sort((a, b) => a - b)[3];
};
const [ours, trivial] = [await timed(url), await timed(url + "healthz")];
console.log(`figure 1,000 vCPUs are loaded in ${ours.toFixed(0)} ms, ${(ours / trivial).toFixed(0)} times a trivial page's ${trivial.toFixed(0)} ms`);

// --- the exporter goes away ---
expected = true;
ask("down");
await page.locator("#lost:visible").waitFor();
assert.match(await page.locator("#lost").innerText(), /has not answered since/);
assert.ok(await page.locator("table.vms > tbody").count() >= 125, "what was seen stays");
ok("it says when the exporter stopped answering");

assert.deepEqual(complaints, []);
assert.deepEqual(strangers, []);
ok("no errors in the console, and no request leaves the host");
await browser.close();
