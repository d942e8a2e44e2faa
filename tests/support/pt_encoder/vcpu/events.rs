//! Events of a vCPU, one function each: the packets, and their effect on the expected summary.

use super::{Vcpu, RATIOS};

pub(super) type Event = fn(&mut Vcpu);

/// All events.
pub(super) const ALL: &[(u32, Event)] = &[
    (300, branches),
    (100, indirect),
    (40, asynchronous),
    (60, cross),
    (20, load_cr3),
    (10, off_and_on),
    (10, ratio_change),
    (10, clocks),
    (20, padding),
    (8, sleep),
    (8, transaction),
    (8, write),
    (6, items),
    (6, trigger),
    (4, mode_change),
    (4, interrupt_return),
    (4, maintenance),
    (4, overflow),
    (2, bad),
    (2, cut),
];

/// A busy vCPU: see [`super::realistic`].
pub(super) const BUSY: &[(u32, Event)] = &[
    (61_274, branches),
    (52_800, indirect),
    (130, asynchronous),
    (100, cross),
    (426, load_cr3),
    (9, off_and_on),
    (14, ratio_change),
    (2_000, padding),
];

/// TNT.
pub(super) fn branches(vcpu: &mut Vcpu) {
    if !vcpu.enabled {
        return;
    }
    vcpu.cyc();
    let (bits, len) = if vcpu.style.tnt64 && vcpu.random.flag() {
        let len = 1 + vcpu.random.below(47) as u32;
        let bits = vcpu.random.next() & ((1 << len) - 1);
        vcpu.out.tnt64(bits, len);
        (bits, len)
    } else {
        // 5.4 on average, as recorded: mostly full.
        let len = if vcpu.random.one_in(4) {
            1 + vcpu.random.below(6) as u32
        } else {
            6
        };
        let bits = vcpu.random.next() & ((1 << len) - 1);
        vcpu.out.tnt8(bits, len);
        (bits, len)
    };
    let (all, taken) = (u64::from(len), u64::from(bits.count_ones()));
    vcpu.truth.packets.tnt += 1;
    vcpu.truth.packets.bits += all;
    vcpu.truth.packets.taken += taken;
    vcpu.here().taken += taken;
    vcpu.here().not_taken += all - taken;
}

/// TIP alone.
fn indirect(vcpu: &mut Vcpu) {
    if !vcpu.enabled {
        return;
    }
    vcpu.cyc();
    vcpu.tip();
    vcpu.here().indirect += 1;
}

/// An interrupt or fault: FUP, TIP, and its kind with event trace.
fn asynchronous(vcpu: &mut Vcpu) {
    if !vcpu.enabled {
        return;
    }
    vcpu.cyc();
    if vcpu.style.event_trace && vcpu.random.flag() {
        const PAGE_FAULT: u8 = 14;
        let cr2 = vcpu.random.next();
        let kind = u8::from(vcpu.style.evd_of_perf);
        vcpu.out.evd(kind, cr2);
        vcpu.out.cfe(1, PAGE_FAULT, true);
        vcpu.other();
        vcpu.other();
    } else if vcpu.style.event_trace {
        let (kind, vector) = vcpu.random.pick(&[(1, 2), (1, 236), (3, 0), (12, 7)]);
        vcpu.out.cfe(kind, vector, true);
        vcpu.other();
    }
    vcpu.fup();
    vcpu.cyc();
    if vcpu.random.one_in(8) {
        vcpu.mode_exec();
    }
    vcpu.here().asynchronous += 1;
    if vcpu.style.losses && vcpu.random.one_in(16) {
        // Into untraced code.
        vcpu.pgd();
    } else {
        vcpu.tip();
    }
}

/// CFE of an IRET, its FUP, and its branch.
fn interrupt_return(vcpu: &mut Vcpu) {
    if !vcpu.enabled || !vcpu.style.event_trace {
        return;
    }
    let kind = vcpu.random.pick(&[2, 13]);
    vcpu.out.cfe(kind, 0, true);
    vcpu.other();
    vcpu.fup();
    vcpu.tip();
    vcpu.here().indirect += 1;
}

/// The next VM entry or VM exit.
fn cross(vcpu: &mut Vcpu) {
    if !vcpu.enabled {
        return;
    }
    vcpu.cyc();
    let fup = vcpu.guest || vcpu.style.event_trace;
    if vcpu.style.event_trace {
        event_of_crossing(vcpu);
    }
    if fup {
        vcpu.fup();
    }
    vcpu.cyc();
    // A PIP alone can be a load of CR3; a PIP after a FUP cannot.
    let seen = vcpu.told || fup;
    vcpu.guest = !vcpu.guest;
    vcpu.told = true;
    vcpu.tsc_before = None;
    vcpu.pip();
    if seen {
        let run = vcpu.run.map(|picoseconds| picoseconds / 1000);
        let (crossings, lengths) = if vcpu.guest {
            (&mut vcpu.truth.entries, &mut vcpu.truth.host_handling)
        } else {
            (&mut vcpu.truth.exits, &mut vcpu.truth.guest_runs)
        };
        *crossings += 1;
        if let Some(run) = run {
            lengths.observe(run);
        }
        vcpu.run = vcpu.cycle.map(|_| 0);
    }
    if vcpu.random.flag() {
        vcpu.vmcs();
    }
    vcpu.cyc();
    vcpu.tip();
    if !seen {
        vcpu.here().indirect += 1;
    }
}

/// The CFE of a crossing, and before it the reason and qualification of an exit.
fn event_of_crossing(vcpu: &mut Vcpu) {
    if !vcpu.guest {
        vcpu.out.cfe(7, 0, true);
        return vcpu.other();
    }
    let reason = vcpu.random.pick(&[0u16, 1, 10, 12, 30, 31, 48, 52]);
    let first = 1 + u8::from(vcpu.style.evd_of_perf);
    if vcpu.random.flag() {
        let qualification = vcpu.random.next();
        vcpu.out.evd(first, qualification);
        vcpu.other();
    }
    vcpu.out.evd(first + 1, u64::from(reason));
    vcpu.out.cfe(if reason < 2 { 9 } else { 8 }, 0, true);
    vcpu.other();
    vcpu.other();
    *vcpu.truth.exit_reasons.entry(reason).or_default() += 1;
}

/// PIP in the same mode.
fn load_cr3(vcpu: &mut Vcpu) {
    if !vcpu.enabled {
        return;
    }
    vcpu.cyc();
    vcpu.pip();
    if vcpu.told {
        vcpu.here().address_spaces += 1;
    } else {
        vcpu.tsc_before = None;
    }
    vcpu.told = true;
}

/// TIP.PGD, packets that are sent nevertheless, TIP.PGE.
fn off_and_on(vcpu: &mut Vcpu) {
    const WHILE_OFF: &[Event] = &[Vcpu::cyc, Vcpu::tsc, Vcpu::psb, clocks];
    if vcpu.enabled {
        vcpu.cyc();
        vcpu.pgd();
        if vcpu.random.one_in(8) {
            vcpu.out.trace_stop();
            vcpu.other();
        }
    }
    for _ in 0..vcpu.random.below(3) {
        let what = vcpu.random.pick(WHILE_OFF);
        what(vcpu);
    }
    if !vcpu.enabled {
        vcpu.pge();
    }
}

fn ratio_change(vcpu: &mut Vcpu) {
    vcpu.cyc();
    vcpu.ratio = vcpu.random.pick(RATIOS);
    vcpu.cbr();
}

/// TSC, MTC and TMA alone.
fn clocks(vcpu: &mut Vcpu) {
    vcpu.tsc();
    if vcpu.style.mtc {
        vcpu.tma();
        let ctc = vcpu.random.next();
        vcpu.out.mtc(ctc as u8);
        vcpu.truth.packets.mtc += 1;
    }
}

fn padding(vcpu: &mut Vcpu) {
    let n = 1 + vcpu.random.below(19);
    vcpu.pad(n);
}

/// MWAIT to a sleep state and back.
fn sleep(vcpu: &mut Vcpu) {
    if vcpu.random.flag() {
        vcpu.out.mwait(0x20, 1);
        vcpu.other();
        vcpu.truth.power.mwait += 1;
    }
    let hardware = vcpu.random.flag();
    vcpu.out.pwre(hardware, 5, 1);
    let ip = vcpu.enabled && vcpu.random.flag();
    vcpu.out.exstop(ip);
    vcpu.fup_if(ip);
    vcpu.cyc();
    vcpu.out.pwrx(5, 6, 1);
    for _ in 0..3 {
        vcpu.other();
    }
    vcpu.truth.power.entries += 1;
    vcpu.truth.power.stops += 1;
    vcpu.truth.power.exits += 1;
}

/// A transaction that starts and commits or aborts.
fn transaction(vcpu: &mut Vcpu) {
    if !vcpu.enabled {
        return;
    }
    vcpu.mode_tsx(true, false);
    vcpu.fup();
    branches(vcpu);
    let aborted = vcpu.random.flag();
    vcpu.mode_tsx(false, aborted);
    vcpu.fup();
    if aborted {
        vcpu.tip();
        vcpu.here().asynchronous += 1;
    }
}

/// PTWRITE.
fn write(vcpu: &mut Vcpu) {
    if !vcpu.enabled {
        return;
    }
    let (wide, ip) = (vcpu.random.flag(), vcpu.random.flag());
    let payload = vcpu.random.next();
    vcpu.out.ptwrite(payload, wide, ip);
    vcpu.other();
    vcpu.fup_if(ip);
}

/// A block of items, with other packets between them.
fn items(vcpu: &mut Vcpu) {
    let short = vcpu.random.flag();
    vcpu.out.bbp(4, short);
    for _ in 0..vcpu.random.below(5) {
        if vcpu.random.one_in(3) {
            vcpu.cyc();
        }
        if vcpu.random.one_in(3) {
            vcpu.pad(2);
        }
        let (id, payload) = (vcpu.random.below(32) as u8, vcpu.random.next());
        vcpu.out.bip(id, payload, short);
        vcpu.other();
    }
    let ip = vcpu.enabled && vcpu.random.flag();
    vcpu.out.bep(ip);
    vcpu.other();
    vcpu.other();
    vcpu.fup_if(ip);
}

fn trigger(vcpu: &mut Vcpu) {
    let ip = vcpu.enabled && vcpu.random.flag();
    let triggers = vcpu.random.next() as u8;
    let instructions = vcpu.random.flag().then(|| vcpu.random.next() as u16);
    let multiple = vcpu.random.flag();
    vcpu.out.trig(triggers, ip, multiple, instructions);
    vcpu.other();
    vcpu.fup_if(ip);
}

/// A far transfer to code of another mode.
fn mode_change(vcpu: &mut Vcpu) {
    if !vcpu.enabled {
        return;
    }
    vcpu.mode_exec();
    vcpu.tip();
    vcpu.here().indirect += 1;
}

fn maintenance(vcpu: &mut Vcpu) {
    let payload = vcpu.random.next();
    vcpu.out.mnt(payload);
    vcpu.other();
}

fn overflow(vcpu: &mut Vcpu) {
    vcpu.overflow();
}

fn bad(vcpu: &mut Vcpu) {
    vcpu.bad();
}

fn cut(vcpu: &mut Vcpu) {
    vcpu.cut();
}
