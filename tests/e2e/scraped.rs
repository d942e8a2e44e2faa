//! A real Prometheus scrapes the exporter, and our users' queries get their answers.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use vcpu_exporter::demo::guest::Load;

use crate::alone;
use crate::exporter::Exporter;
use crate::micro_vm::{kvm_works, MicroVm};
use crate::prometheus::{is_installed, Element, Prometheus};
use crate::run::{unique, Frozen};

const SPIN: &str = "scraped-spin";
const HALT: &str = "scraped-halt";

/// Guests, the exporter that has seen them, and the Prometheus that scrapes it.
struct Scene {
    vms: [MicroVm; 2],
    exporter: Exporter,
    prometheus: Prometheus,
}

impl Scene {
    fn set() -> Option<Self> {
        if !kvm_works() {
            return None;
        }
        let exporter = Exporter::start();
        let prometheus = Prometheus::start(exporter.address())?;
        let vms = [
            MicroVm::start(SPIN, Load::Spin, 2),
            MicroVm::start(HALT, Load::Halt, 1),
        ];
        Some(Self {
            vms,
            exporter,
            prometheus,
        })
    }
}

/// What a query gave about our guests: others may run on this host.
fn ours(elements: &[Element]) -> impl Iterator<Item = &Element> {
    let names = [HALT, SPIN].map(unique);
    let is_ours = move |e: &&Element| names.iter().any(|name| name == e.label("vm"));
    elements.iter().filter(is_ours)
}

/// Whether every vCPU of ours is there, once.
fn each_once(elements: &[Element]) -> bool {
    let all = ours(elements).map(|e| (e.label("vm"), e.label("vcpu")));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    let [halt, spin] = [HALT, SPIN].map(unique);
    all == [(&*halt, "0"), (&spin, "0"), (&spin, "1")]
}

/// The queries that README offers.
fn readme_queries() -> Vec<&'static str> {
    let blocks = include_str!("../../README.md").split("```promql\n").skip(1);
    let queries = blocks.filter_map(|block| Some(block.split_once("```")?.0));
    queries.collect()
}

#[test]
fn prometheus_scrapes_it_and_answers_what_readme_promises() {
    let _alone = alone();
    let Some(scene) = Scene::set() else {
        return;
    };
    let Scene {
        exporter,
        prometheus,
        ..
    } = &scene;
    let up = prometheus.until("up", |up| up.len() == 1 && up[0].value == 1.0);
    assert_eq!(up[0].label("job"), "vcpu-exporter");
    assert_eq!(up[0].label("instance"), exporter.address());

    let queries = readme_queries();
    let about = |name: &str| {
        let found = queries.iter().find(|query| query.contains(name));
        *found.unwrap_or_else(|| panic!("README has no query about {name}"))
    };
    // Not a number, before a vCPU was seen to do anything.
    prometheus.until(about("kvm_vcpu_delay_seconds_total"), |shares| {
        each_once(shares) && ours(shares).all(|share| (0.0..=1.0).contains(&share.value))
    });
    let nodes = prometheus.until(about("sum by (instance, vm, numa_node)"), |nodes| {
        let vms = nodes.iter().map(|node| node.label("vm"));
        vms.collect::<BTreeSet<_>>().is_superset(
            &[HALT, SPIN]
                .map(unique)
                .iter()
                .map(String::as_str)
                .collect(),
        )
    });
    assert!(ours(&nodes).all(|node| !node.label("numa_node").is_empty()));
    for query in &queries {
        // About hardware counters and OpenStack, which may be missing: the syntax must be right.
        prometheus.query(query);
    }
    check_totals(&scene);
    check_open_metrics(prometheus);
    check_nothing_refused(prometheus);
}

/// Held still, the guests' totals are the same by Prometheus' account and the exporter's.
fn check_totals(scene: &Scene) {
    let _frozen: Vec<Frozen> = scene.vms.iter().map(|vm| Frozen::new(vm.pid())).collect();
    let metric = "kvm_vcpu_time_seconds_total";
    let query = format!("sum without (package, core, numa_node) ({metric})");
    let total = |vm: &str, vcpu: &str| {
        let exposition = scene.exporter.scrape();
        exposition.sum(metric, &[("vm", vm), ("vcpu", vcpu)])
    };
    let same = |e: &Element| {
        let total = total(e.label("vm"), e.label("vcpu"));
        // Both add the places up, in an order of their own.
        total.is_some_and(|total| total > 0.0 && (total - e.value).abs() < 1e-9)
    };
    scene.prometheus.until(&query, |elements| {
        each_once(elements) && ours(elements).all(same)
    });
}

/// Only OpenMetrics tells units: had Prometheus got the classic text, it would know none.
fn check_open_metrics(prometheus: &Prometheus) {
    let data = prometheus.api("targets/metadata?metric=kvm_vcpu_time_seconds");
    assert_eq!(data[0]["unit"], "seconds", "{data}");
    assert_eq!(data[0]["type"], "counter", "{data}");
}

/// Prometheus took every sample of every scrape.
fn check_nothing_refused(prometheus: &Prometheus) {
    let own = prometheus.own();
    let refusals = own.samples.iter().filter(|sample| {
        let what = sample.name.strip_prefix("prometheus_target_scrapes_");
        what.is_some_and(|what| what.starts_with("sample_") || what.starts_with("exceeded_"))
    });
    let refusals: Vec<_> = refusals.collect();
    assert!(refusals.len() >= 3, "{refusals:?}");
    assert!(
        refusals.iter().all(|sample| sample.value == 0.0),
        "{refusals:?}"
    );
    let log = prometheus.log();
    // What else it warns of, such as a file system that it does not know, is the machine's.
    let scrapes = log.lines().filter(|line| line.contains("scrape manager"));
    let complaints = scrapes.filter(|line| !line.contains("level=info"));
    assert_eq!(complaints.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn promtool_has_nothing_to_say_about_the_live_page() {
    let _alone = alone();
    if !kvm_works() || !is_installed("promtool") {
        return;
    }
    let exporter = Exporter::start();
    let vm = MicroVm::start(SPIN, Load::Spin, 2);
    let ours = [("vm", vm.name())];
    let page = exporter.until(|e| e.all("kvm_vcpu_placement_info", &ours).count() == 2);
    assert!(
        !page.text.contains("# EOF"),
        "promtool reads the classic text"
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = promtool.stdin.take().expect("a pipe");
    stdin.write_all(page.text.as_bytes()).expect("it listens");
    drop(stdin);
    let output = promtool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    assert!(output.status.success());
}
