//! What cannot be recorded, or not now.

use super::*;

#[test]
fn busy_tracing_backs_off_and_recovers() {
    let host = host();
    let vm = vm(&host, 1, 4);
    let free = Arc::new(Mutex::new(false));
    let is_free = free.clone();
    let recorder = ScriptedPt::new(move |_, request| {
        if *is_free.lock().unwrap() {
            Ok(whole(vec![0; 32], request))
        } else {
            Err(refusal(Step::Open, libc::EBUSY))
        }
    });
    let config = config::Pt {
        period: Duration::from_secs(1),
        ..config()
    };
    let mut sim = Sim::new(host, &config, recorder);
    assert_eq!(sim.code(), "");
    sim.watch(&[&vm]);
    sim.until(120 * MINUTE, &[&vm], |_| Some(0));
    assert_eq!(sim.code(), "pt_busy");
    let waits: Vec<u64> = sim
        .log
        .windows(2)
        .map(|w| (w[1].0 - w[0].0).as_secs())
        .collect();
    assert!(waits.windows(2).all(|w| w[0] <= w[1] + 1), "{waits:?}");
    assert!(waits[0] < 3 && *waits.last().unwrap() >= 599, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 600), "bounded: {waits:?}");
    let first: Vec<i32> = sim.log.iter().map(|(_, tid, _)| *tid).take(4).collect();
    assert_eq!(first, vm.vcpus, "not always the same one");
    *free.lock().unwrap() = true;
    let before = sim.log.len();
    sim.until(140 * MINUTE, &[&vm], |_| Some(0));
    assert_eq!(sim.code(), "");
    // 1 % of 10 s is 10 windows of 10 ms; of a second, one.
    assert!(sim.log.len() > before + 500, "{}", sim.log.len() - before);
}

#[test]
fn untraced_thread_is_busy_too() {
    let host = host();
    let vm = vm(&host, 1, 1);
    let recorder = ScriptedPt::new(|_, request| {
        let mut capture = whole(Vec::new(), request);
        capture.traced = Duration::ZERO;
        Ok(capture)
    });
    let mut sim = Sim::new(host, &config(), recorder);
    sim.watch(&[&vm]);
    sim.step(&[&vm], |_| Some(0));
    assert_eq!(sim.code(), "pt_busy");
    let captures = sim.facts(&vm, "kvm_vcpu_pt_captures_total");
    assert_eq!(captures, [("0 busy".to_owned(), FactValue::Int(1))]);
}

#[test]
fn refusals_have_reasons_and_no_metric_is_0() {
    let host = host();
    let vm = vm(&host, 1, 1);
    let mut sim = Sim::new(
        host,
        &config(),
        ScriptedPt::refusing(Step::MapTrace, libc::EPERM),
    );
    sim.watch(&[&vm]);
    sim.step(&[&vm], |_| Some(0));
    assert_eq!(sim.code(), "mlock_limit");
    assert!(matches!(sim.recorder.state(), SourceState::Down(_)));
    let captures = sim.facts(&vm, "kvm_vcpu_pt_captures_total");
    assert_eq!(captures, [("0 refused".to_owned(), FactValue::Int(1))]);
    for metric in ["kvm_vcpu_pt_bytes_total", "kvm_vcpu_pt_cycles_total"] {
        assert!(sim.facts(&vm, metric).is_empty());
    }
}

#[test]
fn exited_thread_is_gone_in_proc_or_in_the_kernel() {
    let host = host();
    let (here, ends) = (vm(&host, 1, 1), vm(&host, 2, 1));
    let mut sim = Sim::new(
        host,
        &config(),
        ScriptedPt::refusing(Step::Open, libc::ESRCH),
    );
    sim.watch(&[&here, &ends]);
    // Another thread has its TID now.
    sim.host.set(ends.pid, ends.vcpus[0], |t| t.start_time += 1);
    sim.step(&[&here, &ends], |_| Some(0));
    sim.step(&[&here, &ends], |_| Some(0));
    for vm in [&here, &ends] {
        let captures = sim.facts(vm, "kvm_vcpu_pt_captures_total");
        assert_eq!(captures, [("0 gone".to_owned(), FactValue::Int(1))]);
    }
    assert_eq!(sim.taken(), here.vcpus, "another thread is not recorded");
    assert_eq!(sim.code(), "", "an exited thread is no failure");
}

#[test]
fn recording_of_a_reused_tid_is_discarded() {
    let host = host();
    let vm = vm(&host, 1, 1);
    let thread = host.path(format!("proc/{}/task/{}", vm.pid, vm.vcpus[0]));
    // The vCPU's thread exits before the event is opened.
    let recorder = ScriptedPt::new(move |_, request| {
        std::fs::remove_dir_all(&thread).unwrap();
        Ok(whole(vec![0; 32], request))
    });
    let mut sim = Sim::new(host, &config(), recorder);
    sim.watch(&[&vm]);
    sim.step(&[&vm], |_| Some(0));
    let captures = sim.facts(&vm, "kvm_vcpu_pt_captures_total");
    assert_eq!(captures, [("0 gone".to_owned(), FactValue::Int(1))]);
    let bytes = sim.facts(&vm, "kvm_vcpu_pt_bytes_total");
    assert!(
        bytes.iter().all(|(_, n)| *n == FactValue::Int(0)),
        "{bytes:?}"
    );
}

#[test]
fn gaps_mean_the_guest_is_not_visible() {
    let host = host();
    let vm = vm(&host, 1, 1);
    let recorder = ScriptedPt::new(|_, request| {
        let mut capture = whole(Vec::new(), request);
        capture.trace.flags = FLAG_PARTIAL;
        Ok(capture)
    });
    let mut sim = Sim::new(host, &config(), recorder);
    sim.watch(&[&vm]);
    sim.step(&[&vm], |_| Some(0));
    assert_eq!(sim.code(), "guest_not_visible");
    assert!(matches!(sim.recorder.state(), SourceState::Degraded(_)));
}

#[test]
fn hidden_guest_leaves_host_mode_visible() {
    let host = host();
    host.file("sys/module/kvm_intel/parameters/pt_mode", "1\n");
    let vm = vm(&host, 1, 1);
    let mut sim = Sim::new(host, &config(), recorder());
    sim.watch(&[&vm]);
    sim.step(&[&vm], |_| Some(0));
    assert_eq!(sim.code(), "guest_not_visible");
    let cycles = sim.facts(&vm, "kvm_vcpu_pt_cycles_total");
    assert_eq!(cycles.len(), 1, "{cycles:?}");
    assert_eq!(cycles[0].0, "0 host");
}
