//! The status page in a real browser.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::time::Duration;

use vcpu_exporter::demo::guest::Load;
use vcpu_exporter::expose::{serve, App};
use vcpu_exporter::snapshot::Handle;
use vcpu_exporter::telemetry::Telemetry;

use crate::alone;
use crate::browser;
use crate::exporter::Exporter;
use crate::micro_vm::{kvm_works, MicroVm};
use crate::page_host::{PageHost, HOSTILE};
use crate::playwright::Script;

#[test]
fn the_status_page_shows_every_vcpu_in_a_real_browser() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    let exporter = Exporter::start();
    let vm = MicroVm::start("page-spin", Load::Spin, 2);
    let hostile = MicroVm::start(HOSTILE, Load::Halt, 1);
    exporter.until(|e| {
        let seen = |vm: &MicroVm| {
            e.all("kvm_vcpu_placement_info", &[("vm", vm.name())])
                .count()
        };
        (seen(&vm), seen(&hostile)) == (2, 1)
    });
    let open = [&vm, &hostile].map(|vm| format!("open={}", encoded(vm.name())));
    let url = format!("http://{}/?{}", exporter.address(), open.join("&"));
    let Some(page) = browser::load(&url) else {
        return;
    };
    let dom = &page.dom;
    assert!(dom.contains("vcpu-exporter</title>"), "{dom}");
    assert!(dom.contains("Sampling."), "{dom}");
    let name = format!("<bdi>{}</bdi>", vm.name());
    assert!(dom.contains(&name), "{dom}");
    for tid in [vm.tid(0), vm.tid(1), hostile.tid(0)] {
        assert!(
            dom.contains(&format!("<td>{tid}</td>")),
            "no {tid} in {dom}"
        );
    }
    let escaped = HOSTILE.replace('<', "&lt;").replace('>', "&gt;");
    assert!(dom.contains(&escaped), "{dom}");
    assert!(!dom.contains("<img"), "{dom}");
    // A style sheet that our own security policy blocks would be named here.
    assert_eq!(page.console, Vec::<String>::new());
}

/// A value in an address.
fn encoded(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A thousand vCPUs that live, and the server that shows them; both end when dropped.
struct Served {
    address: SocketAddr,
    visitor: Arc<AtomicBool>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

impl Served {
    fn start() -> Self {
        let (telemetry, registry) = Telemetry::new();
        let snapshots = Handle::default();
        let mut host = PageHost::new(snapshots.clone(), 1_000);
        let (visitor, over) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (there, end) = (visitor.clone(), over.clone());
        let live = move || {
            while !end.load(Ordering::Relaxed) {
                host.visitor(there.load(Ordering::Relaxed));
                host.tick();
                // How fast its seconds go by is of no matter.
                std::thread::sleep(Duration::from_millis(250));
            }
        };
        let app = Arc::new(App {
            snapshots,
            telemetry,
            registry,
            max_age: Duration::from_secs(3600),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, address) = channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let show = move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
                let listener = listener.expect("an address");
                tell.send(listener.local_addr().expect("an address"))
                    .expect("it waits");
                let stopped = async { drop(stopped.await) };
                serve(listener, app, stopped).await.expect("it serves");
            });
        };
        Self {
            threads: vec![std::thread::spawn(live), std::thread::spawn(show)],
            address: address.recv().expect("it listens"),
            visitor,
            stop: Some(stop),
            over,
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[test]
fn the_status_page_lives_with_1000_vcpus_in_a_real_browser() {
    let _alone = alone();
    let served = Served::start();
    let Some(script) = Script::start(&format!("http://{}/", served.address)) else {
        return;
    };
    let mut served = Some(served);
    script.follow(|what| match (what, &served) {
        ("start", Some(host)) => host.visitor.store(true, Ordering::Relaxed),
        ("stop", Some(host)) => host.visitor.store(false, Ordering::Relaxed),
        ("down", Some(_)) => drop(served.take()),
        _ => panic!("nobody knows how to {what}"),
    });
}
