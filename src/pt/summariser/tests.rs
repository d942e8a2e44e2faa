//! Interpretation of packets, on short hand-written traces.

use crate::pt::{summarise, Clocks, ModeSummary, Summary};

const PSB: &[u8] = &[
    2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82,
];
const PSBEND: &[u8] = &[2, 0x23];
/// Core:bus ratio 20: 2 GHz, a cycle is half a nanosecond.
const CBR: &[u8] = &[2, 3, 20, 0];
const TO_GUEST: &[u8] = &[2, 0x43, 1, 1, 0, 0, 0, 0];
const TO_HOST: &[u8] = &[2, 0x43, 0, 2, 0, 0, 0, 0];
const FUP: &[u8] = &[0x1d];
const TIP: &[u8] = &[0x0d];
const TIP_PGE: &[u8] = &[0x11];
const TIP_PGD: &[u8] = &[0x01];
/// Taken, not taken, taken.
const TNT: &[u8] = &[0b0001_1010];
const OVF: &[u8] = &[2, 0xf3];

/// CYC of at most 12 bits.
fn cyc(cycles: u16) -> [u8; 2] {
    assert!(cycles < 1 << 12);
    [(cycles as u8 & 31) << 3 | 7, (cycles >> 5) as u8 * 2]
}

/// A trace that starts in the host with tracing enabled, followed by these packets.
fn trace(packets: &[&[u8]]) -> Vec<u8> {
    let begin = [PSB, CBR, TO_HOST, FUP, PSBEND];
    begin
        .iter()
        .chain(packets)
        .copied()
        .flatten()
        .copied()
        .collect()
}

fn of(packets: &[&[u8]]) -> Summary {
    let summary = summarise(&trace(packets), &[], &Clocks::default());
    assert_eq!(summary.errors, []);
    summary
}

#[test]
fn what_a_psb_tells_is_state_and_no_event() {
    let summary = of(&[]);
    assert_eq!(summary.host, ModeSummary::default());
    assert_eq!((summary.entries, summary.exits), (0, 0));
    assert_eq!(summary.ratio, Some((20, 20)));
    assert_eq!(summary.packets.pip, 1);
}

#[test]
fn what_cannot_be_in_a_status_ends_it() {
    let write = [2, 0x12, 1, 2, 3, 4];
    let interrupt = [2, 0x13, 1, 14];
    for end in [TNT, TIP, TIP_PGE, TIP_PGD, &write, &interrupt, OVF, PSBEND] {
        let summary = of(&[PSB, TO_HOST, end, TO_HOST, TO_GUEST]);
        // After an overflow, the first PIP only shows the current mode.
        let loads = u64::from(end != OVF);
        assert_eq!(
            (summary.host.address_spaces, summary.entries),
            (loads, 1),
            "{end:02x?}"
        );
    }
}

#[test]
fn a_status_that_tells_another_side_is_no_crossing() {
    let summary = of(&[
        TO_GUEST,
        TIP,
        &cyc(10),
        PSB,
        TO_HOST,
        FUP,
        PSBEND,
        &cyc(20),
        TO_GUEST,
        TIP,
    ]);
    assert_eq!((summary.entries, summary.exits), (2, 0));
    assert_eq!((summary.guest.cycles, summary.host.cycles), (10, 20));
    assert_eq!(summary.host_handling.count(), 0, "its start is unknown");
    assert_eq!(summary.host.address_spaces, 0);
}

#[test]
fn runs_of_the_guest_lie_between_entry_and_exit() {
    let summary = of(&[
        &cyc(100),
        TO_GUEST,
        TIP,
        TNT,
        &cyc(1000),
        FUP,
        TO_HOST,
        TIP,
        &cyc(50),
        TNT,
        TO_GUEST,
        TIP,
        &cyc(10),
        TNT,
    ]);
    assert_eq!((summary.entries, summary.exits), (2, 1));
    assert_eq!((summary.guest.cycles, summary.host.cycles), (1010, 150));
    assert_eq!(
        (summary.guest.nanoseconds, summary.host.nanoseconds),
        (505, 75)
    );
    assert_eq!(
        (summary.guest_runs.count(), summary.guest_runs.sum()),
        (1, 500)
    );
    // The host's work before the first entry started before the trace.
    assert_eq!(
        (summary.host_handling.count(), summary.host_handling.sum()),
        (1, 25)
    );
    assert_eq!((summary.guest.taken, summary.guest.not_taken), (4, 2));
    assert_eq!((summary.host.taken, summary.host.not_taken), (2, 1));
    // Branches into the guest and out of it are the entries and exits themselves.
    assert_eq!(summary.guest.indirect + summary.host.indirect, 0);
    assert_eq!(summary.guest.asynchronous + summary.host.asynchronous, 0);
}

#[test]
fn a_fup_and_its_tip_are_an_event_and_a_tip_alone_is_a_branch() {
    let summary = of(&[FUP, TIP, TIP, TNT, TIP, FUP, TNT, TIP, FUP, TIP_PGD]);
    assert_eq!((summary.host.asynchronous, summary.host.indirect), (2, 3));
}

#[test]
fn a_fup_that_belongs_to_the_packet_before_it_is_no_event() {
    let stop = [2, 0xe2];
    let write = [2, 0x92, 1, 2, 3, 4];
    let mode = [0x99, 1];
    for owner in [&stop[..], &write, &mode] {
        let summary = of(&[owner, FUP, TIP]);
        assert_eq!((summary.host.asynchronous, summary.host.indirect), (0, 1));
    }
    // Unless it is between a FUP and its TIP.
    assert_eq!(of(&[FUP, &mode, TIP]).host.asynchronous, 1);
}

#[test]
fn event_trace_tells_an_interrupt_from_a_return() {
    let interrupt = [2, 0x13, 0x81, 14];
    let iret = [2, 0x13, 0x82, 0];
    let summary = of(&[&interrupt, FUP, TIP, &iret, FUP, TIP]);
    assert_eq!((summary.host.asynchronous, summary.host.indirect), (1, 1));
}

#[test]
fn the_reason_of_an_exit_is_the_highest_of_its_event_data() {
    let data = |kind, payload| [2, 0x53, kind, payload, 0, 0, 0, 0, 0, 0, 0];
    let exit = [2, 0x13, 8, 0];
    // As numbered by libipt, by perf, and with the reason only.
    let summary = of(&[
        &data(1, 7),
        &data(2, 30),
        &exit,
        &data(2, 7),
        &data(3, 30),
        &exit,
        &data(2, 12),
        &exit,
        &exit,
    ]);
    assert_eq!(
        summary.exit_reasons.into_iter().collect::<Vec<_>>(),
        [(12, 1), (30, 2)]
    );
}

#[test]
fn the_data_of_an_event_that_was_lost_is_no_other_events() {
    let data = [2, 0x53, 2, 30, 0, 0, 0, 0, 0, 0, 0];
    let exit = [2, 0x13, 8, 0];
    assert!(of(&[&data, OVF, FUP, &exit]).exit_reasons.is_empty());
}

#[test]
fn loads_of_cr3_are_no_crossings() {
    let summary = of(&[TO_HOST, TIP, TO_GUEST, TIP, TO_GUEST, TNT, TO_GUEST]);
    assert_eq!(
        (summary.host.address_spaces, summary.guest.address_spaces),
        (1, 2)
    );
    assert_eq!((summary.entries, summary.exits), (1, 0));
    assert_eq!(summary.host.indirect, 1, "no FUP and no crossing");
}

#[test]
fn after_an_overflow_nothing_is_known() {
    let summary = of(&[
        TO_GUEST,
        TIP,
        &cyc(10),
        OVF,
        FUP,
        TIP,
        &cyc(20),
        TNT,
        TO_HOST,
        &cyc(30),
    ]);
    assert_eq!(
        (
            summary.guest.cycles,
            summary.unknown.cycles,
            summary.host.cycles
        ),
        (10, 20, 30)
    );
    assert_eq!(summary.unknown.taken, 2);
    assert_eq!(
        (summary.unknown.indirect, summary.unknown.asynchronous),
        (1, 0)
    );
    assert_eq!(
        (summary.entries, summary.exits),
        (1, 0),
        "it may have been several exits"
    );
    assert_eq!(summary.guest_runs.count(), 0);
}

#[test]
fn after_an_overflow_a_status_has_its_fup() {
    let summary = of(&[OVF, PSB, TO_HOST, FUP, PSBEND, FUP, TIP, OVF, FUP, FUP, TIP]);
    assert_eq!(
        (summary.host.asynchronous, summary.unknown.asynchronous),
        (1, 1)
    );
}

#[test]
fn an_exit_is_known_by_its_fup_even_where_the_side_is_not() {
    let summary = of(&[OVF, FUP, TNT, FUP, TO_HOST, TIP, &cyc(8), TO_GUEST, TIP]);
    assert_eq!((summary.entries, summary.exits), (1, 1));
    assert_eq!((summary.host.asynchronous, summary.host.indirect), (0, 0));
    assert_eq!(summary.host_handling.sum(), 4);
    assert_eq!(summary.guest_runs.count(), 0, "its start is unknown");
}

#[test]
fn a_cut_loses_what_was_going_on_and_keeps_the_packets() {
    let head = trace(&[TO_GUEST, TIP, &cyc(10)]);
    let tail: Vec<u8> = [TNT, TO_HOST, CBR, &cyc(40), TNT].concat();
    let whole = [head.clone(), tail].concat();
    let summary = summarise(&whole, &[head.len()], &Clocks::default());
    assert_eq!((summary.unknown.taken, summary.host.taken), (2, 2));
    assert_eq!((summary.entries, summary.exits), (1, 0));
    assert_eq!(summary.host.nanoseconds, 20);
    assert_eq!(summary.packets.err, 0);
    // Invalid cuts are ignored.
    let odd = [0, 0, whole.len(), whole.len() + 1, 3];
    let summary = summarise(&whole, &odd, &Clocks::default());
    assert_eq!((summary.exits, summary.packets.err), (1, 0));
}

#[test]
fn cycles_count_while_tracing_is_on() {
    let summary = of(&[&cyc(1), TIP_PGD, &cyc(2), TIP_PGE, &cyc(4)]);
    assert_eq!((summary.host.cycles, summary.packets.cycsum), (5, 7));
    let off: Vec<u8> = [PSB, CBR, TO_HOST, PSBEND, &cyc(9)].concat();
    let summary = summarise(&off, &[], &Clocks::default());
    assert_eq!((summary.host.cycles, summary.packets.cycsum), (0, 9));
}

#[test]
fn without_cycles_time_is_what_the_tsc_says_within_one_side() {
    let tsc = |ticks: u8| [0x19, 0, ticks, 0, 0, 0, 0, 0];
    let clocks = Clocks {
        tsc: Some(2_560_000_000),
        ..Clocks::default()
    };
    let packets = trace(&[&tsc(10), TNT, &tsc(20), TO_GUEST, TIP, &tsc(5), &tsc(6)]);
    let summary = summarise(&packets, &[], &clocks);
    assert_eq!(
        (summary.host.nanoseconds, summary.guest.nanoseconds),
        (1000, 100)
    );
    assert_eq!(
        summarise(&packets, &[], &Clocks::default())
            .host
            .nanoseconds,
        0
    );
}

#[test]
fn without_cycles_no_run_has_a_length() {
    let summary = of(&[TO_GUEST, TIP, TNT, FUP, TO_HOST, TIP, TO_GUEST, TIP]);
    assert_eq!((summary.entries, summary.exits), (2, 1));
    assert_eq!(
        summary.guest_runs.count() + summary.host_handling.count(),
        0
    );
}

#[test]
fn bad_bytes_cost_what_is_up_to_the_next_psb() {
    let mut bytes = vec![0xff; 5];
    bytes.extend(trace(&[TNT, &[0x05], TNT, TNT]));
    bytes.extend(trace(&[TNT, &[0x0d | 2 << 5, 1]]));
    let summary = summarise(&bytes, &[], &Clocks::default());
    assert_eq!(summary.host.taken, 4);
    assert_eq!(summary.skipped_bytes, 5 + 3);
    assert_eq!(summary.trailing_bytes, 2);
    assert_eq!(summary.packets.err, 1);
    assert_eq!(summary.errors[0].offset, 5 + trace(&[TNT]).len());
}

#[test]
fn sums_of_traces_are_sums() {
    let one = of(&[TO_GUEST, TIP, TNT, &cyc(7), FUP, TO_HOST, TIP]);
    let mut sum = one.clone();
    sum.add(&one);
    assert_eq!(sum.guest.taken, 2 * one.guest.taken);
    assert_eq!(sum.packets.bits, 2 * one.packets.bits);
    assert_eq!(sum.exits, 2);
    assert_eq!(sum.guest_runs.count(), 2);
    assert_eq!(sum.ratio, one.ratio);
}
