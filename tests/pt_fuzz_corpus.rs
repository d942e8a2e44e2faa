//! Runs the initial fuzzing inputs once, so that they are tested without a fuzzer.
//!
//! The inputs are generated: `UPDATE_CORPUS=1 cargo test --test library pt_fuzz_corpus` writes them. An
//! input that once broke the decoder is added as `broke-WHAT`.

use crate::support::pt_checks;
use crate::support::pt_fuzz_input;

use std::fs;
use std::path::Path;

use crate::support::pt_encoder::vcpu::{busy, generate, Traced};

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/pt"))
}

/// Small ones in every style, and one of a busy vCPU.
fn seeds() -> Vec<(String, Traced)> {
    let mut seeds: Vec<_> = (0..12)
        .map(|seed| (format!("seed-any-{seed:02}"), generate(seed, 600)))
        .collect();
    seeds.push(("seed-busy".to_owned(), busy(1_000, 0)));
    seeds
}

#[test]
fn every_input_is_read_alike() {
    let mut inputs = 0;
    for entry in fs::read_dir(corpus()).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let data = fs::read(&path).expect("an input");
        println!("{}", path.display());
        let (cuts, trace) = pt_fuzz_input::split(&data);
        pt_checks::check(trace, &cuts);
        inputs += 1;
    }
    assert!(inputs >= seeds().len(), "{inputs} inputs");
}

/// Ensures that they contain every packet of the encoder, including new ones.
#[test]
fn seeds_are_what_the_encoder_makes() {
    for (name, trace) in seeds() {
        let data = pt_fuzz_input::join(&trace.cuts, &trace.bytes);
        let path = corpus().join(&name);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            fs::write(&path, &data).expect("a seed is written");
        }
        let written = fs::read(&path).expect("a seed");
        assert!(written == data, "{name} is old: run with UPDATE_CORPUS=1");
    }
}

#[test]
fn an_input_stands_for_cuts_and_a_trace() {
    use pt_fuzz_input::{join, split};
    let trace: &[u8] = &[7, 8, 9];
    assert_eq!(split(&join(&[1, 300], trace)), (vec![1, 300], trace));
    assert_eq!(split(&[]), (vec![], &[][..]));
    assert_eq!(split(&[2, 1, 0, 5]), (vec![1], &[][..]));
    assert_eq!(split(&[0xfc, 5]), (vec![], &[5][..]));
}
