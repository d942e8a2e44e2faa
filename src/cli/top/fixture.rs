//! Views for tests.

use std::time::{Duration, Instant};

use super::column::Table;
use super::state::State;
use crate::diagnosis::{
    Cause, CauseView, HostView, Numbers, PlaceView, SourceView, VcpuView, View, VmView,
};

/// A view of these VMs, `taken` seconds after 1970.
pub(super) fn view(taken: f64, vms: Vec<VmView>) -> View {
    View {
        version: "1.2.3".to_owned(),
        revision: "abc".to_owned(),
        synthetic: None,
        taken,
        age: 0.4,
        tick: taken as u64,
        window: 8.0,
        host: HostView {
            name: Some("kvm-07".to_owned()),
            kernel: Some("6.12.0".to_owned()),
            cpu_model: Some("Xeon".to_owned()),
            vms: vms.len(),
            vcpus: vms.iter().map(|vm| vm.vcpus.len()).sum(),
            cpus: 8,
            cores: 4,
            packages: 1,
            time: Some(2.5),
            demand: Some(3.25),
            wanted: None,
            verdict: String::new(),
            series: 100,
        },
        nodes: Vec::new(),
        vms,
        sources: vec![SourceView {
            name: "pmu".to_owned(),
            state: "degraded".to_owned(),
            reason: None,
            detail: None,
            fix: None,
            needs: String::new(),
            cost: String::new(),
        }],
        pmu_mode: None,
        visibility_gaps: Vec::new(),
        dropped: Vec::new(),
    }
}

/// A VM whose vCPUs have these delay ratios; the first one's CPI is known.
pub(super) fn vm(name: &str, delays: &[Option<f64>]) -> VmView {
    let vcpu = |(n, delay): (usize, &Option<f64>)| VcpuView {
        index: n as u32,
        tid: 100 + n as i32,
        place: (n > 0).then_some(PlaceView {
            cpu: n as u32,
            package: 0,
            core: n as i32 / 2,
            node: 0,
        }),
        numbers: Numbers {
            time: Some(0.5),
            delay_ratio: *delay,
            cpi: (n == 0).then_some(1.25),
            exits: Some(12_345.0),
            counted: Some(1.0),
            ..Numbers::default()
        },
        io_on_core: None,
    };
    VmView {
        name: name.to_owned(),
        pid: Some(100),
        info: Vec::new(),
        threadless: 0,
        vcpus: delays.iter().enumerate().map(vcpu).collect(),
        numbers: Numbers {
            time: Some(1.0),
            delay_ratio: delays.first().copied().flatten(),
            ..Numbers::default()
        },
        nodes: Vec::new(),
        nodes_used: Some(1),
        memory_remote: None,
        memory_remote_spread: None,
        memory_distance: None,
        devices: Vec::new(),
        devices_remote: None,
        quota: None,
        throttled: None,
        quota_wait: None,
        contention: None,
        frequency: None,
        smt_shared: None,
        hot: None,
        io_time: None,
        io_on_its_cores: None,
        causes: Vec::new(),
        verdict: String::new(),
        mentions: Vec::new(),
        pushes: Vec::new(),
        core_time: Default::default(),
    }
}

/// Adds a cause and a verdict to a VM.
pub(super) fn in_trouble(mut vm: VmView, cause: Cause, score: f64, verdict: &str) -> VmView {
    let threshold = cause.threshold();
    vm.causes.push(CauseView {
        cause,
        score,
        observed: score * threshold,
        threshold,
        alert: cause.alert().to_owned(),
        text: String::new(),
    });
    vm.verdict = verdict.to_owned();
    vm
}

/// Three VMs, one of them in trouble.
pub(super) fn three() -> View {
    let web = vm("web-10", &[Some(0.01), Some(0.0), None]);
    let db = vm("db-2", &[Some(0.23), Some(0.08)]);
    let verdict =
        "vCPU 0 waits 23\u{a0}% of the time it wants to run: batch-1 uses 0.90 of core 0/0.";
    let db = in_trouble(db, Cause::Delay, 4.0, verdict);
    view(1000.0, vec![db, vm("web-2", &[Some(0.02)]), web])
}

/// A state that has received this view.
pub(super) fn state(view: View) -> (State, Instant) {
    let now = Instant::now();
    let source = "http://127.0.0.1:9752".to_owned();
    let mut state = State::new(source, Table::Vcpus, Duration::from_secs(2));
    state.hear(Ok(super::safe::view(view)), now);
    (state, now)
}
