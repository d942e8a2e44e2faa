//! Alerts follow what happens: the exporter on its synthetic host, a real Prometheus and Alertmanager with our rules
//! beside it, and all of it many times as fast as in life.
//!
//! Times are those of the scenario, in its seconds, and come from the samples that Prometheus stored: how fast this
//! machine is decides how long the test takes, not what it says. Where something is wrong and Prometheus did not keep up,
//! it is all done again at half the speed.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use vcpu_exporter::demo::synthetic::Scenario;

use crate::alertmanager::{Stack, Webhook};
use crate::alone;
use crate::exporter::Exporter;
use crate::prometheus::{is_installed, Api};
use crate::run::{eventually, free_address, DEADLINE};

mod clusters;
mod cpu_time;
mod episodes;
mod evaluation;
mod history;
mod inhibition;
mod panels;
mod promises;
mod pushed;

use cpu_time::CpuTime;

/// So many times as fast as in life; the next where this machine cannot follow.
const SPEEDS: [u32; 3] = [60, 30, 15];

/// How long the calm scenario is watched: longer than any alert waits, and than the longest window of one.
const CALM: Duration = Duration::from_secs(32 * 60);

/// Hosts that stay as they are (deploy/scenarios), and the speeds to watch them at: the full one has 20 times the series.
const STEADY: [(&str, &[u32]); 4] = [
    ("full", &[30, 15]),
    ("floating", &SPEEDS),
    ("host-process", &SPEEDS),
    ("memory-only-node", &SPEEDS),
];

/// How long a steady host is watched.
const STEADY_FOR: Duration = Duration::from_secs(40 * 60);

/// Alerts that an operator of a steady host may be sent in that time, with those that are over.
const MOST_SENT: usize = 5;

/// How long after the end of a trouble its alerts may last: five minutes that windows of five minutes still see it, five
/// more for those that look at their own last five minutes, and two for `keep_firing_for` and the allowance.
const AFTERMATH: Duration = Duration::from_secs(12 * 60);

/// The time between two evaluations of the rules (deploy/stack/prometheus.yml).
const EVALUATION: Duration = Duration::from_secs(30);

/// What a trouble's stated times may be missed by. At this speed a scrape or an evaluation that comes a second late, as on
/// a busy machine, is two evaluations late.
const ALLOWANCE: Duration = Duration::from_secs(4 * EVALUATION.as_secs());

/// The share of this machine's CPU time that others may use before it is they who keep Prometheus from its work.
const BUSY: f64 = 0.25;

/// An exporter on a synthetic host and the stack that watches it.
struct Scene {
    scenario: Scenario,
    speed: u32,
    /// When the scenario began (Unix time).
    begun: f64,
    exporter: Exporter,
    webhook: Webhook,
    stack: Stack,
    _data: TempDir,
}

impl Scene {
    /// `data` may hold a history under `prometheus`.
    fn set(scenario: &str, speed: u32, address: &str, data: TempDir) -> Self {
        let exporter = synthetic(scenario, speed, address, "");
        let target = exporter.address().to_owned();
        Self::around(exporter, scenario, speed, &["--target", &target], data)
    }

    /// The scene of an exporter on this scenario. `sources` are arguments of deploy/stack/local: what Prometheus scrapes.
    fn around(
        exporter: Exporter,
        scenario: &str,
        speed: u32,
        sources: &[&str],
        data: TempDir,
    ) -> Self {
        let webhook = Webhook::start();
        let stack = Stack::start(data.path(), sources, speed, &webhook.url());
        Self {
            scenario: Scenario::load(scenario).expect("a scenario"),
            speed,
            begun: seconds(SystemTime::now()),
            exporter,
            webhook,
            stack,
            _data: data,
        }
    }

    fn prometheus(&self) -> &Api {
        &self.stack.prometheus
    }

    /// Waits until Prometheus has samples of this time of the scenario.
    fn watch_until(&self, time: Duration) {
        let end = self.unix(time);
        // No sample, too, where none came for as long as Prometheus looks back.
        let newest = || Some(self.prometheus().query("max(timestamp(up))").first()?.value);
        let mut seen = f64::NEG_INFINITY;
        while seen < end {
            let newer = eventually(|| newest().filter(|now| *now > seen));
            seen = newer.unwrap_or_else(|| {
                let complaints = self.stack.complaints();
                panic!("no new sample in {DEADLINE:?}:\n{complaints}")
            });
            // Nothing else is to be done meanwhile, and asking costs what Prometheus needs.
            thread::sleep(Duration::from_secs_f64((end - seen).clamp(0.0, 5.0)));
        }
    }

    /// Reads the time when the scenario began from what the exporter says as things happen in it.
    ///
    /// It says so at the tick that saw it, up to a tenth of a second late: the earliest it can have been is nearest.
    fn find_beginning(&mut self) {
        let of = |(at, line): (SystemTime, String)| {
            Some(seconds(at) - clock(&line)? / f64::from(self.speed))
        };
        let said = self.exporter.said().into_iter().filter_map(of);
        self.begun = said.fold(self.begun, f64::min);
    }

    /// Unix time of a time of the scenario.
    fn unix(&self, time: Duration) -> f64 {
        self.begun + time.as_secs_f64() / f64::from(self.speed)
    }

    /// The time of the scenario at a Unix time, in its seconds.
    fn time(&self, unix: f64) -> f64 {
        (unix - self.begun) * f64::from(self.speed)
    }
}

/// An exporter on a synthetic host.
fn synthetic(scenario: &str, speed: u32, address: &str, config: &str) -> Exporter {
    let times = speed.to_string();
    let arguments = [
        "demo",
        "--synthetic",
        scenario,
        "--speed",
        &times,
        "--log.level=info",
    ];
    Exporter::configured_at(address, &arguments, config)
}

/// The path of a scenario of these tests.
fn own_scenario(name: &str) -> String {
    let manifest = env!("CARGO_MANIFEST_DIR");
    format!("{manifest}/tests/e2e/alerting/{name}.yaml")
}

/// Writes what Prometheus scrapes, for `--scrape` of deploy/stack/local.
fn write_scrape_configs(data: &TempDir, text: &str) -> String {
    let file = data.path().join("scrape.yml");
    fs::write(&file, text).expect("a file");
    file.display().to_string()
}

fn seconds(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs_f64()
}

/// `01:10:00 something begins`: the first word in seconds.
fn clock(line: &str) -> Option<f64> {
    let mut parts = line.split(' ').next()?.split(':').map(str::parse::<f64>);
    let mut next = || parts.next()?.ok();
    Some((next()? * 60.0 + next()?) * 60.0 + next()?)
}

fn empty() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn alerts_fire_for_each_trouble_in_time_and_for_nothing_else() {
    at_a_speed_it_can_follow(&SPEEDS, both);
}

#[test]
fn a_steady_host_fires_what_its_scenario_lists_and_nothing_else() {
    for (scenario, speeds) in STEADY {
        at_a_speed_it_can_follow(speeds, |speed| steady(scenario, speed));
    }
}

/// Runs `watch`, which returns what was wrong and what was too slow for that to mean much, at lower and lower speeds until
/// nothing is wrong or nothing was too slow.
fn at_a_speed_it_can_follow(speeds: &[u32], watch: impl Fn(u32) -> (Vec<String>, Vec<String>)) {
    let _alone = alone();
    let programs = [
        "prometheus",
        "promtool",
        "prometheus-alertmanager",
        "python3",
    ];
    if !programs.iter().all(|program| is_installed(program)) {
        return;
    }
    let (mut tried, before) = (Vec::new(), CpuTime::now());
    for &speed in speeds {
        let (failures, behind) = watch(speed);
        if failures.is_empty() {
            return;
        }
        assert!(!behind.is_empty(), "{failures:#?}");
        println!(
            "at {speed} times the speed of life, which was too fast: {failures:#?}{behind:#?}"
        );
        tried.extend(behind);
    }
    let others = CpuTime::now().of_others_since(&before);
    let percent = others * 100.0;
    if others > BUSY {
        println!(
            "skipped: others use {percent:.0} % of this machine, too much to follow: {tried:#?}"
        );
        return;
    }
    panic!(
        "others use {percent:.0} % of this machine, so that the rules cost too much: {tried:#?}"
    );
}

/// Watches a host that is in one state all the time. Gives what was wrong, and what was too slow for that to mean much.
fn steady(scenario: &str, speed: u32) -> (Vec<String>, Vec<String>) {
    let path = format!(
        "{}/deploy/scenarios/{scenario}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut scene = Scene::set(&path, speed, &free_address().to_string(), empty());
    scene.watch_until(STEADY_FOR);
    let mut behind = evaluation::behind(&scene);
    behind.extend(evaluation::stalled(&scene));
    scene.find_beginning();
    let sent = scene.webhook.taken().len();
    let noise = (sent > MOST_SENT).then(|| format!("{scenario}: {sent} alerts were sent"));
    let failures = [
        evaluation::failed(&scene),
        promises::kept(&scene),
        noise.into_iter().collect(),
    ];
    (failures.concat(), behind)
}

/// Watches both scenarios. Gives what was wrong, and what was too slow for that to mean much.
fn both(speed: u32) -> (Vec<String>, Vec<String>) {
    // The history is that of the same job and instance.
    let address = free_address().to_string();
    let calm = Scene::set("calm", speed, &address, empty());
    calm.watch_until(CALM);
    let behind = evaluation::behind(&calm);
    if !behind.is_empty() {
        return (vec!["the troubles were not tried".into()], behind);
    }
    let quiet = promises::nothing_fired(&calm);
    let mut stalls = evaluation::stalled(&calm);
    let week = history::Week::of(&calm);
    drop(calm);

    let data = empty();
    week.write(data.path());
    let mut troubles = Scene::set("troubles", speed, &address, data);
    let ends = troubles.scenario.troubles.iter();
    let last = ends.map(|trouble| trouble.end()).max();
    let last = last.expect("there are troubles");
    for quarter in 1..=4 {
        troubles.watch_until((last + AFTERMATH) * quarter / 4);
        let behind = evaluation::behind(&troubles);
        if !behind.is_empty() {
            return (
                vec!["the troubles were not watched to their end".into()],
                behind,
            );
        }
    }
    stalls.extend(evaluation::stalled(&troubles));
    troubles.find_beginning();
    let failures = [
        quiet,
        evaluation::failed(&troubles),
        promises::kept(&troubles),
        promises::delivered(&troubles),
        panels::shown(&troubles, last),
    ];
    (failures.concat(), stalls)
}
