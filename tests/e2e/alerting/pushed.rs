//! A host that nobody scrapes pushes by OTLP and dies.
//!
//! Debian builds Prometheus without its OTLP receiver. VictoriaMetrics stands in for it: it receives the pushes, and
//! Prometheus federates from it as docs/OTLP.md says. So samples arrive as with a receiver of Prometheus' own: under the
//! names of the translation, with the exporter's time, without `up` and without a stale marker at the end. They arrive up to
//! a scrape interval and a second later, by which VictoriaMetrics shows what it received.

use std::time::{Duration, SystemTime};

use rustix::process::{kill_process, Pid, Signal};

use super::episodes::{fired, minutes, Episode};
use super::{
    at_a_speed_it_can_follow, empty, evaluation, own_scenario, promises, seconds, synthetic,
    write_scrape_configs, Scene,
};
use crate::victoria::Victoria;

/// Pushes are a second apart, the least that the exporter accepts: at this speed half a minute of the host, as often as rules
/// want a scrape.
const SPEEDS: [u32; 2] = [30, 15];

/// How long the host lives: longer than any alert about it waits.
const LIFE: Duration = Duration::from_secs(12 * 60);

/// The alert fires no sooner after the last sample (docs/runbooks/KvmExporterAbsent.md): its window, and its `for`.
const LEAST: f64 = 7.0 * 60.0;

/// It fires no later after the end of the host.
const MOST: Duration = Duration::from_secs(10 * 60);

/// Rules bridge gaps up to this (`last_over_time(...[2m])`), in seconds of the host.
const GAP: f64 = 120.0;

/// What the host is called.
const INSTANCE: &str = "kvm-01";

#[test]
fn host_that_only_pushes_and_dies_fires_absent_and_nothing_else() {
    at_a_speed_it_can_follow(&SPEEDS, watch);
}

/// Watches a host that lives and dies. Gives what was wrong, and what was too slow for that to mean much.
fn watch(speed: u32) -> (Vec<String>, Vec<String>) {
    let Some(victoria) = Victoria::start() else {
        return Default::default();
    };
    let config = format!(
        "otlp: {{resource: {{service.instance.id: {INSTANCE}}}, \
         endpoints: [{{url: '{}', protocol: http/protobuf, compression: gzip, interval: 1s}}]}}",
        victoria.url()
    );
    let scenario = own_scenario("small");
    let exporter = synthetic(&scenario, speed, "127.0.0.1:0", &config);
    let data = empty();
    let file = write_scrape_configs(&data, &federation(&victoria));
    let scene = Scene::around(exporter, &scenario, speed, &["--scrape", &file], data);
    scene.watch_until(LIFE);
    let early = fired(&scene).into_iter();
    let early = early.map(|episode| format!("fired while the host lived: {episode}"));
    let mut failures: Vec<_> = early.collect();
    failures.extend(not_pushed(&scene));

    let end = kill(&scene);
    scene.watch_until(Duration::from_secs_f64(end) + MOST);
    let mut behind = evaluation::behind(&scene);
    behind.extend(evaluation::stalled(&scene));
    let gap = evaluation::longest_gap(&scene, "kvm_exporter_build_info") * f64::from(speed);
    if gap > GAP {
        behind.push(format!("pushes stood still for {gap:.0} s"));
    }
    failures.extend(evaluation::failed(&scene));
    failures.extend(only_absent(&scene, end));
    failures.extend(promises::delivered_as_firing(&scene));
    (failures, behind)
}

/// What docs/OTLP.md has Prometheus scrape.
fn federation(victoria: &Victoria) -> String {
    let document = include_str!("../../../docs/OTLP.md");
    let (_, block) = document
        .split_once("```yaml\nscrape_configs:\n")
        .expect("a configuration of Prometheus");
    let (block, _) = block.split_once("```").expect("its end");
    let example = "victoria.example.com:8428";
    assert_eq!(block.matches(example).count(), 1, "{block}");
    format!(
        "scrape_configs:\n{}",
        block.replace(example, victoria.address())
    )
}

/// Whether Prometheus has the host's metrics by OTLP alone, under the labels that rules need.
fn not_pushed(scene: &Scene) -> Vec<String> {
    let own = format!("kvm_exporter_build_info{{job=\"vcpu-exporter\", instance=\"{INSTANCE}\"}}");
    let (all, own) = (
        scene
            .prometheus()
            .query("{__name__=~\"kvm_exporter_build_info|up\"}"),
        scene.prometheus().query(&own),
    );
    // The other is `up` of the federation.
    let is_so = own.len() == 1 && all.len() == 2;
    let wrong = (!is_so).then(|| format!("the host is not there once by OTLP alone: {all:?}"));
    wrong.into_iter().collect()
}

/// Kills the exporter. Gives the time of the scenario when that was, in seconds.
fn kill(scene: &Scene) -> f64 {
    let pid = i32::try_from(scene.exporter.pid()).ok();
    let pid = pid.and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::KILL).expect("it can be killed");
    scene.time(seconds(SystemTime::now()))
}

/// `KvmExporterAbsent` fired in time and lasts, and nothing else did. Says what was not so.
fn only_absent(scene: &Scene, end: f64) -> Vec<String> {
    let fired = fired(scene);
    let is_its = |episode: &&Episode| {
        episode.label("alertname") == "KvmExporterAbsent" && episode.label("instance") == INSTANCE
    };
    let others = fired.iter().filter(|episode| !is_its(episode));
    let mut failures: Vec<_> = others
        .map(|episode| format!("unexpected: {episode}"))
        .collect();
    let its: Vec<_> = fired.iter().filter(is_its).collect();
    let [absent] = its[..] else {
        failures.push(format!("KvmExporterAbsent fired {} times", its.len()));
        return failures;
    };
    let (after_end, after_last) = (absent.from - end, absent.from - last_sample(scene));
    println!(
        "KvmExporterAbsent after {} without a sample, {} after the end",
        minutes(after_last),
        minutes(after_end)
    );
    if after_last < LEAST {
        failures.push(format!(
            "too soon after the last sample: {}",
            minutes(after_last)
        ));
    }
    if after_end > MOST.as_secs_f64() {
        failures.push(format!("too late after the end: {}", minutes(after_end)));
    }
    failures
}

/// The time of the scenario of the last sample that Prometheus has of the host.
fn last_sample(scene: &Scene) -> f64 {
    let series = scene.prometheus().samples("kvm_exporter_build_info[1h]");
    let samples = series.iter().flat_map(|series| &series.samples);
    let last = samples.map(|(at, _)| *at).fold(f64::NEG_INFINITY, f64::max);
    scene.time(last)
}
