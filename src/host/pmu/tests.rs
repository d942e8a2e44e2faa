use super::*;
use proptest::prelude::*;

/// An Intel core PMU as in sysfs of an Ice Lake server, shortened.
fn host() -> (tempfile::TempDir, Roots) {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("cpu/type", "4\n"),
        ("cpu/format/event", "config:0-7\n"),
        ("cpu/format/umask", "config:8-15\n"),
        ("cpu/format/edge", "config:18\n"),
        ("cpu/format/cmask", "config:24-31\n"),
        ("cpu/format/ldlat", "config1:0-15\n"),
        ("cpu/format/broken", "nonsense\n"),
        ("cpu/events/mem-loads", "event=0xcd,umask=0x1,ldlat=3\n"),
        ("cpu/events/slots", "event=0x00,umask=0x4\n"),
        ("cpu/events/slots.scale", "1\n"),
        ("uncore_imc_0/type", "18\n"),
        ("uncore_imc_0/cpumask", "0\n"),
        ("uncore_imc_0/events/param", "event=0x1,chip=?\n"),
        ("uncore_imc_0/format/event", "config:0-7\n"),
        ("uncore_imc_0/format/chip", "config:8-15\n"),
        ("broken/type", "x\n"),
        ("broken/cpus", "0-3\n"),
    ];
    for (file, text) in files {
        let path = dir.path().join("sys/bus/event_source/devices").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let roots = Roots::below(dir.path());
    (dir, roots)
}

fn words(event: &str) -> Result<Words, EventError> {
    let (_dir, roots) = host();
    resolve(&roots, event).map(|encoding| encoding.words)
}

#[test]
fn terms_become_config_words() {
    assert_eq!(words("cpu/event=0xd3,umask=0x2/"), Ok([0x2d3, 0, 0, 0]));
    assert_eq!(
        words("cpu/event=0xd3,umask=2,edge,cmask=1/"),
        Ok([0x0104_02d3, 0, 0, 0])
    );
    assert_eq!(words("cpu/config=0x1d3,config2=7/"), Ok([0x1d3, 0, 7, 0]));
}

#[test]
fn named_events_stand_for_their_terms_and_may_be_changed() {
    assert_eq!(words("cpu/mem-loads/"), Ok([0x1cd, 3, 0, 0]));
    assert_eq!(words("cpu/mem-loads,ldlat=30/"), Ok([0x1cd, 30, 0, 0]));
}

#[test]
fn raw_events_are_hex_after_an_r() {
    let (_dir, roots) = host();
    let expected = Encoding {
        kind: PERF_TYPE_RAW,
        words: [0x1a8, 0, 0, 0],
    };
    assert_eq!(resolve(&roots, "r1a8"), Ok(expected));
}

#[test]
fn errors_name_the_pmu_the_term_and_what_there_is() {
    let text = words("cpu/evnt=1/").unwrap_err().to_string();
    assert!(text.contains("cpu") && text.contains("evnt"), "{text}");
    assert!(text.contains("cmask edge event ldlat umask"), "{text}");
    assert!(text.contains("mem-loads slots"), "{text}");
    let text = words("cpu_core/event=1/").unwrap_err().to_string();
    assert!(
        text.contains("cpu_core") && text.contains("uncore_imc_0"),
        "{text}"
    );
    let text = words("cpu/event=0x1d3/").unwrap_err().to_string();
    assert!(text.contains("8 bits"), "{text}");
}

#[test]
fn what_is_not_an_event_is_refused() {
    for event in [
        "",
        "cycles",
        "cpu/",
        "cpu//",
        "r",
        "rxyz",
        "cpu/event=1/u",
        "../cpu/event=1/",
    ] {
        let error = words(event).unwrap_err();
        assert!(
            matches!(error, EventError::Syntax { .. }),
            "{event}: {error}"
        );
    }
    assert!(words("../event=1/").is_err());
    assert!(words("uncore_imc_0/param/").is_err());
}

#[test]
fn core_pmus_differ_from_others() {
    let (_dir, roots) = host();
    let names: Vec<_> = core_pmus(&roots).into_iter().map(|pmu| pmu.name).collect();
    assert_eq!(names, ["cpu"]);
    assert_eq!(core_pmus(&Roots::below("/nonexistent".as_ref())), []);
}

#[test]
fn a_pmu_without_a_type_is_an_error_that_names_the_file() {
    let (_dir, roots) = host();
    let text = Pmu::read(&roots, "broken").unwrap_err().to_string();
    assert!(text.contains("broken/type"), "{text}");
}

proptest! {
    #[test]
    fn any_text_is_an_event_or_an_error(event in "\\PC{0,60}", terms in "[a-z0-9=,x?-]{0,60}") {
        let (_dir, roots) = host();
        let _ = resolve(&roots, &event);
        let _ = resolve(&roots, &format!("cpu/{terms}/"));
    }
}
