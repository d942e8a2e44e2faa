//! Which owner loses which detail, and when it returns.

use super::*;
use crate::discover::Vm;
use crate::engine::fixture;
use crate::engine::reading::{ColumnId, Reading, Scope, Unit};
use crate::host::topology::Topology;
use crate::sources::{pmu, sched};
use std::sync::Arc;

/// A vCPU of an owner's VM that ran on four cores of two nodes, with four placed columns:
/// scheduling, guest cycles, host cycles and a user-defined event.
fn setup() -> (Columns, Vec<VcpuSampler>) {
    of_owners(&[Owner::Host])
}

fn of_owners(owners: &[Owner]) -> (Columns, Vec<VcpuSampler>) {
    let mut columns = Columns::default();
    let mode = |mode: &str| vec![("mode", mode.to_owned())];
    let all = [
        (&sched::TIME, Vec::new()),
        (&pmu::CYCLES, mode("guest")),
        (&pmu::CYCLES, mode("host")),
        (&pmu::PMU_EVENT, mode("guest")),
    ];
    let ids = all.map(|(metric, labels)| {
        columns.add(Column {
            metric,
            labels,
            unit: Unit::Count,
            scope: Scope::Placed,
        })
    });
    columns.user_events = ids[3].placed().map_or(0, |n| 1 << n);
    let cpus = (0..4)
        .map(|id| fixture::cpu(id, id as i32, id / 2))
        .collect();
    let topology = Arc::new(Topology { cpus });
    let vcpu_sampler = |owner: &Owner| {
        let vm = Vm {
            owner: *owner,
            ..fixture::vm(1, 2, 3)
        };
        let vcpu = vm.vcpus[0];
        let mut vcpu_sampler = VcpuSampler::new(Arc::new(vm), vcpu, &columns);
        let mut reading = Reading::new(&columns, topology.clone());
        for cpu in 0..4 {
            run(&mut vcpu_sampler, &mut reading, cpu, &ids);
        }
        vcpu_sampler
    };
    let vcpu_samplers = owners.iter().map(vcpu_sampler).collect();
    (columns, vcpu_samplers)
}

fn run(vcpu_sampler: &mut VcpuSampler, reading: &mut Reading, cpu: u32, ids: &[ColumnId]) {
    reading.clear();
    reading.cpu = Some(cpu);
    ids.iter().for_each(|id| reading.add(*id, 10));
    vcpu_sampler.totals.charge(reading, Instant::now());
}

const TTL: Duration = Duration::from_secs(6000);

fn limit(max_series: usize, columns: &Columns) -> Limit {
    Limit::new(max_series, TTL, Placement::Core, columns)
}

fn dropped(limit: &Limit) -> Vec<(&'static str, u64)> {
    let dropped = limit.dropped().iter();
    dropped.map(|(d, n)| (d.label(), *n)).collect()
}

/// The detail that a limit drops. There are 17 series: a placement, and four columns at four
/// locations.
fn enforce(max_series: usize) -> Vec<(&'static str, u64)> {
    let (columns, mut vcpu_samplers) = setup();
    let mut limit = limit(max_series, &columns);
    limit.enforce(&mut vcpu_samplers, 0, Instant::now());
    limit.enforce(&mut vcpu_samplers, 0, Instant::now());
    dropped(&limit)
}

#[test]
fn series_within_the_limit_keep_all_detail() {
    assert_eq!(enforce(17), vec![]);
}

#[test]
fn detail_is_dropped_in_order_and_no_more_than_needed() {
    let (user, host) = (("user_events", 4), ("host_mode", 4));
    assert_eq!(enforce(16), [user]);
    assert_eq!(enforce(12), [user, host]);
    assert_eq!(enforce(8), [user, host, ("core", 4)]);
    let all = [user, host, ("core", 4), ("numa_node", 2)];
    assert_eq!(enforce(4), all);
    assert_eq!(enforce(1), all, "identity and scheduling stay");
}

/// Number of series of each vcpu_sampler, as the limit counts them.
fn series(limit: &Limit, vcpu_samplers: &[VcpuSampler]) -> Vec<usize> {
    let one = |vcpu_sampler| limit.sizes(std::slice::from_ref(vcpu_sampler), Instant::now());
    let sizes = vcpu_samplers
        .iter()
        .map(|vcpu_sampler| one(vcpu_sampler).into_values().next());
    sizes.map(|size| size.unwrap_or_default().series).collect()
}

#[test]
fn user_with_the_most_series_loses_detail_first() {
    let (hog, other) = (Owner::User(Some(1)), Owner::User(Some(2)));
    let owners = [Owner::Host, Owner::Host, Owner::Host, hog, hog, other];
    let (columns, mut vcpu_samplers) = of_owners(&owners);
    // There are 102 series.
    let mut limit = limit(74, &columns);
    limit.enforce(&mut vcpu_samplers, 0, Instant::now());
    assert_eq!(series(&limit, &vcpu_samplers), [17, 17, 17, 5, 5, 13]);
    assert_eq!(limit.series(), 74);
    // Then the other users, and last root and the managers.
    let mut limit = self::limit(60, &columns);
    limit.enforce(&mut vcpu_samplers, 0, Instant::now());
    assert_eq!(series(&limit, &vcpu_samplers), [17, 17, 17, 3, 3, 3]);
    let mut limit = self::limit(30, &columns);
    limit.enforce(&mut vcpu_samplers, 0, Instant::now());
    assert_eq!(series(&limit, &vcpu_samplers), [5, 5, 5, 3, 3, 3]);
}

#[test]
fn dropped_detail_returns_after_it_has_fitted_for_long() {
    let hog = Owner::User(Some(1));
    let (columns, mut vcpu_samplers) = of_owners(&[Owner::Host, hog, hog]);
    let mut limit = limit(60, &columns);
    let mut now = Instant::now();
    limit.enforce(&mut vcpu_samplers, 20, now);
    let (user, host) = (("user_events", 8), ("host_mode", 8));
    assert_eq!(dropped(&limit), [user, host]);
    limit.enforce(&mut vcpu_samplers, 0, now);
    for others in [20, 0] {
        now += RESTORE_AFTER / 2;
        limit.enforce(&mut vcpu_samplers, others, now);
        assert_eq!(dropped(&limit), [user, host], "not for the whole time");
    }
    now += RESTORE_AFTER;
    limit.enforce(&mut vcpu_samplers, 0, now);
    assert_eq!(dropped(&limit), [user]);
    for _ in 0..2 {
        now += RESTORE_AFTER;
        limit.enforce(&mut vcpu_samplers, 0, now);
        assert_eq!(
            dropped(&limit),
            [user],
            "51 of 60 leave too little spare room"
        );
    }
    limit.enforce(&mut vcpu_samplers[..2], 0, now);
    limit.enforce(&mut vcpu_samplers[..2], 0, now + RESTORE_AFTER);
    assert_eq!(dropped(&limit), []);
    assert_eq!(limit.series(), 34);
}

#[test]
fn an_owner_without_vms_is_forgotten() {
    let (columns, mut vcpu_samplers) = of_owners(&[Owner::Host, Owner::User(Some(1))]);
    let mut limit = limit(20, &columns);
    limit.enforce(&mut vcpu_samplers, 0, Instant::now());
    assert_ne!(dropped(&limit), []);
    limit.enforce(&mut vcpu_samplers[..1], 0, Instant::now());
    assert_eq!(dropped(&limit), []);
    assert_eq!(limit.series(), 17);
}

#[test]
fn hidden_totals_are_bounded() {
    let (columns, mut vcpu_samplers) = setup();
    let mut limit = Limit::new(3, Duration::ZERO, Placement::Core, &columns);
    // Of the 16 numbers held only 4 are exposed, and 12 may be held.
    limit.enforce(
        &mut vcpu_samplers,
        0,
        Instant::now() + Duration::from_secs(1),
    );
    assert_eq!(vcpu_samplers[0].totals.series.len(), 2, "one for each node");
}
