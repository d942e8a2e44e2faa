//! A guest of a real QEMU. It counts its turns in guest memory, which is a file on the host: the
//! count is read there, independently of QEMU, KVM and the PMU.

use std::fmt::Write as _;

use crate::exposition::Exposition;
use crate::instructions::{SPIN, TOLERANCE};
use crate::machine::{Clock, Console, Machine};
use crate::sandwich::assert_within;

/// QEMU's `virt` machine starts at the start of its flash, with the MMU off. This is the `spin`
/// load of src/demo/guest/aarch64.rs, which counts at the address in the first instruction. Memory
/// starts at 1 GiB with QEMU's device tree.
const GUEST: [u32; 8] = [
    0xd2a8_4000, // mov x0, 0x42000000
    0x52a0_0021, // mov w1, 65536
    0x7100_0421, // subs w1, w1, 1
    0x54ff_ffe1, // b.ne to the subs
    0xb940_0002, // ldr w2, [x0]
    0x1100_0442, // add w2, w2, 1
    0xb900_0002, // str w2, [x0]
    0x17ff_fffa, // b to the mov of w1
];

/// Offset of the count in the file.
const COUNT: u32 = 0x4200_0000 - 0x4000_0000;

/// With two vCPUs, the second one stays off, because the first does not turn it on.
fn script() -> String {
    let mut guest = String::new();
    for byte in GUEST.iter().flat_map(|word| word.to_le_bytes()) {
        write!(guest, "\\{byte:03o}").expect("a string takes all");
    }
    format!(
        r#"
printf '{guest}' >/tmp/guest
qemu-system-aarch64 -name guest=web-1,debug-threads=on -nodefaults -display none \
    -machine virt,accel=kvm,gic-version=3,memory-backend=ram -cpu host -smp 2 -m 64 \
    -object memory-backend-file,id=ram,size=64M,mem-path=/tmp/ram,share=on -bios /tmp/guest &
qemu=$!
turns() {{
    hexdump -s {COUNT} -n 4 -e '1/4 "%u\n"' /tmp/ram
}}
bracket() {{
    kill -STOP $qemu
    section "$1.before" turns
    section "$1" scrape_anew
    section "$1.after" turns
    kill -CONT $qemu
}}
start_exporter
scrape_until '^kvm_vcpu_instructions_total.vm="web-1",vcpu="0".*mode="guest". [1-9]' >/dev/null
bracket first
sleep 4
bracket last
section threads cat /proc/$qemu/task/*/comm
"#
    )
}

fn turns(console: &Console, name: &str) -> f64 {
    let section = console.section(name);
    section.trim().parse().expect("a count")
}

fn check_identity(scrape: &Exposition) {
    let mut vms = scrape.all("kvm_vm_info", &[]);
    let vm = vms.next().expect("it is found");
    assert_eq!(vms.next(), None, "and nothing else");
    let told = ["vm", "vmm", "manager"].map(|label| vm.label(label));
    assert_eq!(told, ["web-1", "qemu", ""], "{vm:?}");
    let vcpus = scrape.one("kvm_vm_vcpus", &[("vm", "web-1")]);
    assert_eq!(vcpus, Some(2.0));
    for vcpu in ["0", "1"] {
        let labels = [("vm", "web-1"), ("vcpu", vcpu)];
        let placed = scrape.all("kvm_vcpu_placement_info", &labels).count();
        assert_eq!(placed, 1, "vCPU {vcpu}");
    }
}

#[test]
fn instructions_of_a_guest_of_qemu() {
    let console = Machine::arm64_with_qemu(Clock::Icount).run(&script());
    let (first, last) = (console.scrape("first"), console.scrape("last"));
    check_identity(&last);
    let threads = console.section("threads");
    assert!(threads.contains("CPU 0/KVM\n"), "{threads}");

    let delta = |metric: &str, vcpu: &str, mode: &str| {
        let labels = [("vm", "web-1"), ("vcpu", vcpu), ("mode", mode)];
        let sum = |scrape: &Exposition| scrape.sum(metric, &labels);
        let sums = sum(&last).zip(sum(&first));
        let (last, first) = sums.unwrap_or_else(|| panic!("no {metric}{labels:?}"));
        last - first
    };
    let least = turns(&console, "last.before") - turns(&console, "first.after");
    let most = turns(&console, "last.after") - turns(&console, "first.before");
    let guest = delta("kvm_vcpu_instructions_total", "0", "guest");
    let truth = (least * SPIN, most * SPIN);
    assert_within("QEMU: guest instructions", guest, truth, TOLERANCE);
    let host = delta("kvm_vcpu_instructions_total", "0", "host");
    println!("QEMU: {least} to {most} turns, {host} host instructions");
    assert!(host < 0.05 * guest, "guest {guest}, host {host}");
    let off = [("vm", "web-1"), ("vcpu", "1"), ("mode", "guest")];
    let off = last.sum("kvm_vcpu_instructions_total", &off);
    assert_eq!(off, None, "of a vCPU that is off no guest was ever counted");
}
