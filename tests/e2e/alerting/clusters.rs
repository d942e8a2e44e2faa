//! Two clusters, each with a host of the same name and VMs of the same names, scraped by one Prometheus that tells them apart
//! by the label `cluster` alone. Nothing is wrong in west; all troubles are in east. No join may fail because it finds two
//! hosts, and no alert may be about the wrong one.

use std::time::Duration;

use super::{
    at_a_speed_it_can_follow, empty, evaluation, own_scenario, promises, synthetic,
    write_scrape_configs, Scene, ALLOWANCE, SPEEDS,
};
use crate::run::free_address;

/// What both hosts are called.
const INSTANCE: &str = "kvm-01";

#[test]
fn hosts_of_equal_names_in_two_clusters_fire_only_their_own_alerts() {
    at_a_speed_it_can_follow(&SPEEDS, watch);
}

/// Watches both hosts until all alerts of east must have fired. Gives what was wrong, and what was too slow for that to mean
/// much.
fn watch(speed: u32) -> (Vec<String>, Vec<String>) {
    let (troubled, calm) = (own_scenario("trouble"), own_scenario("small"));
    let [east, west] = [&troubled, &calm]
        .map(|scenario| synthetic(scenario, speed, &free_address().to_string(), ""));
    let targets = [("east", &east), ("west", &west)].map(|(cluster, exporter)| {
        let address = exporter.address();
        format!(
            "      - targets: [\"{address}\"]\n        \
             labels: {{ cluster: {cluster}, instance: {INSTANCE} }}\n"
        )
    });
    let data = empty();
    let file = write_scrape_configs(
        &data,
        &format!(
            "scrape_configs:\n  - job_name: vcpu-exporter\n    static_configs:\n{}",
            targets.concat()
        ),
    );
    let mut scene = Scene::around(east, &troubled, speed, &["--scrape", &file], data);
    let troubles = scene.scenario.troubles.iter();
    let due = troubles.flat_map(|trouble| {
        let expect = trouble.expect.iter();
        expect.map(|expect| trouble.start + expect.within)
    });
    let due: Duration = due.max().expect("alerts are expected");
    scene.watch_until(due + ALLOWANCE);
    let mut behind = evaluation::behind(&scene);
    behind.extend(evaluation::stalled(&scene));
    scene.find_beginning();
    let failures = [
        evaluation::failed(&scene),
        promises::kept(&scene),
        promises::delivered_as_firing(&scene),
        without_cluster(&scene),
    ];
    (failures.concat(), behind)
}

/// Series of the exporter and of the rules that lost the label, so that they may be of either host.
fn without_cluster(scene: &Scene) -> Vec<String> {
    let query = "count by (__name__) ({__name__=~\"kvm_.+\", cluster!~\"east|west\"})";
    let found = scene.prometheus().query(query);
    let found = found.iter().map(|one| {
        format!(
            "{} series of {} lack the cluster",
            one.value,
            one.label("__name__")
        )
    });
    found.collect()
}
