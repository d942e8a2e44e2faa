//! The status page in a real browser.

use vcpu_exporter::demo::guest::Load;

use crate::alone;
use crate::browser;
use crate::exporter::Exporter;
use crate::micro_vm::{kvm_works, MicroVm};

/// A name that would be a script where it is not escaped.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">";

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
        let seen = |vm| e.all("kvm_vcpu_placement_info", &[("vm", vm)]).count();
        (seen("page-spin"), seen(HOSTILE)) == (2, 1)
    });
    let url = format!("http://{}/", exporter.address());
    let Some(page) = browser::load(&url) else {
        return;
    };
    let dom = &page.dom;
    assert!(dom.contains("<title>vcpu-exporter</title>"), "{dom}");
    assert!(dom.contains("Sampling."), "{dom}");
    assert!(dom.contains("<bdi>page-spin</bdi>"), "{dom}");
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
