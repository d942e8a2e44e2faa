//! Any bytes with any cuts: no panic, and all ways to summarize a trace agree.
#![no_main]

#[path = "../../tests/support/pt_checks.rs"]
mod pt_checks;
#[path = "../../tests/support/pt_fuzz_input.rs"]
mod pt_fuzz_input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (cuts, trace) = pt_fuzz_input::split(data);
    pt_checks::check(trace, &cuts);
});
