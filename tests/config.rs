//! Accepted and refused configuration files, and the messages for refused ones.

use std::time::Duration;

use proptest::prelude::*;
use vcpu_exporter::config::otlp::{Compression, HeaderSource, Protocol, Temporality};
use vcpu_exporter::config::{Config, EventSet, LogFormat, LogLevel, Periodic, Placement, MAX_FILE};

fn parse(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refusal(text: &str) -> String {
    match Config::parse(text) {
        Ok(config) => panic!("accepted: {config:?}\n{text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn nothing_said_is_the_defaults() {
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "{}",
        "web:\n",
        "sources:\n  pmu:\n    raw:\n",
    ] {
        assert_eq!(parse(text), Config::default(), "{text:?}");
    }
}

fn of_host<const SECONDS: u64>(source: &Periodic<SECONDS>) -> (bool, u64) {
    (source.enabled, source.period.as_secs())
}

#[test]
fn every_key_is_read() {
    let config = parse(
        "
web: {listen_address: '[::]:9000'}
paths: {procfs: /a, sysfs: /b, cgroupfs: /c, debugfs: /d, tracefs: /e, runfs: /f, devfs: /g}
sampling: {tick: 500ms, inventory: 5m}
labels: {placement: numa_node, cell_ttl: 1h}
limits: {max_series: 1000}
sources:
  pmu:
    enabled: false
    host_mode: false
    events: [branches, dtlb, stalled, dram_loads, topdown]
    raw:
      - {name: a, event: cpu/event=0xd3/}
      - {name: b, event: cpu/event=1/, guest: false, host: true}
  memory: {enabled: false, period: 10s, budget: 0ms}
  cgroup: {enabled: false, period: 1m}
  exits: {enabled: false, reasons: [hlt, ept_violation]}
  kvm_stat: {enabled: false, period: 1m}
  threads: {enabled: false, period: 1s}
  devices: {enabled: false, period: 10m}
  pt: {enabled: true, window: 1ms, period: 1h, max_duty: 0.5, max_bytes: 64KiB}
  resctrl: {enabled: false, period: 1m, create_groups: true}
  host_cpu: {enabled: false, period: 9s}
  frequency: {enabled: false, period: 1s}
  thermal: {enabled: false, period: 2s}
  numa: {enabled: false, period: 3s}
  cpu_features: {enabled: false, period: 4s}
  kvm_parameters: {enabled: false, period: 5s}
  vulnerabilities: {enabled: false, period: 6s}
  system: {enabled: false, period: 7s}
  kernel_log: {enabled: false, period: 8s}
otlp:
  enabled: false
  resource: {team: kvm}
  endpoints:
    - url: https://a:4318/otlp/
      protocol: grpc
      temporality: delta
      compression: gzip
      interval: 1m
      timeout: 5s
      headers: {X-Key: one, x-file: {file: /k}, x-env: {env: KEY}}
      tls: {ca_file: /ca, cert_file: /cert, key_file: /key}
    - {url: 'http://b', basic_auth: {username: me, password: {env: P}}}
log: {level: debug, format: json}
",
    );
    assert_eq!(config.web.listen_address.to_string(), "[::]:9000");
    let paths = &config.paths;
    let all = [
        &paths.procfs,
        &paths.sysfs,
        &paths.cgroupfs,
        &paths.debugfs,
        &paths.tracefs,
        &paths.runfs,
        &paths.devfs,
    ];
    assert_eq!(
        all.map(|p| p.to_str().unwrap()),
        ["/a", "/b", "/c", "/d", "/e", "/f", "/g"]
    );
    assert_eq!(config.sampling.tick, Duration::from_millis(500));
    assert_eq!(config.sampling.inventory, Duration::from_secs(300));
    assert_eq!(config.labels.placement, Placement::NumaNode);
    assert_eq!(config.labels.cell_ttl, Duration::from_secs(3600));
    assert_eq!(config.limits.max_series, 1000);
    let pmu = &config.sources.pmu;
    assert!(!pmu.enabled && !pmu.host_mode);
    assert_eq!(pmu.events.len(), 5);
    assert_eq!(pmu.events[3], EventSet::DramLoads);
    assert_eq!((pmu.raw[0].guest, pmu.raw[0].host), (true, false));
    assert_eq!((pmu.raw[1].guest, pmu.raw[1].host), (false, true));
    let memory = &config.sources.memory;
    assert!(!memory.enabled);
    let (period, budget) = (Duration::from_secs(10), Duration::ZERO);
    assert_eq!((memory.period, memory.budget), (period, budget));
    let cgroup = &config.sources.cgroup;
    assert_eq!((cgroup.enabled, cgroup.period.as_secs()), (false, 60));
    let exits = &config.sources.exits;
    assert!(!exits.enabled);
    assert_eq!(exits.reasons[1].0, "ept_violation");
    let kvm_stat = &config.sources.kvm_stat;
    assert!(!kvm_stat.enabled);
    assert_eq!(kvm_stat.period, Duration::from_secs(60));
    let threads = &config.sources.threads;
    assert_eq!((threads.enabled, threads.period.as_secs()), (false, 1));
    let devices = &config.sources.devices;
    assert_eq!((devices.enabled, devices.period.as_secs()), (false, 600));
    let pt = &config.sources.pt;
    assert!(pt.enabled);
    assert_eq!((pt.window.as_millis(), pt.period.as_secs()), (1, 3600));
    assert_eq!((pt.max_duty, pt.max_bytes), (0.5, 65_536));
    let resctrl = &config.sources.resctrl;
    assert!(!resctrl.enabled && resctrl.create_groups);
    assert_eq!(resctrl.period, Duration::from_secs(60));
    let host = [
        of_host(&config.sources.host_cpu),
        of_host(&config.sources.frequency),
        of_host(&config.sources.thermal),
        of_host(&config.sources.numa),
        of_host(&config.sources.cpu_features),
        of_host(&config.sources.kvm_parameters),
        of_host(&config.sources.vulnerabilities),
        of_host(&config.sources.system),
        of_host(&config.sources.kernel_log),
    ];
    assert_eq!(host, [9, 1, 2, 3, 4, 5, 6, 7, 8].map(|s| (false, s)));
    let otlp = &config.otlp;
    assert!(!otlp.enabled);
    assert_eq!(otlp.resource["team"], "kvm");
    let [a, b] = &otlp.endpoints[..] else {
        panic!("{otlp:?}");
    };
    assert_eq!(a.url.as_str(), "https://a:4318/otlp");
    assert_eq!(a.protocol, Some(Protocol::Grpc));
    assert_eq!(a.temporality, Some(Temporality::Delta));
    assert_eq!(a.compression, Some(Compression::Gzip));
    assert_eq!(a.interval, Some(Duration::from_secs(60)));
    assert_eq!(a.timeout, Some(Duration::from_secs(5)));
    assert_eq!(a.headers["x-key"], HeaderSource::Value("one".into()));
    assert_eq!(a.headers["x-file"], HeaderSource::File("/k".into()));
    assert_eq!(a.headers["x-env"], HeaderSource::Env("KEY".into()));
    assert_eq!(a.tls.key_file, Some("/key".into()));
    let auth = b.basic_auth.as_ref().unwrap();
    assert_eq!(auth.username, "me");
    assert_eq!(auth.password, HeaderSource::Env("P".into()));
    assert_eq!((b.protocol, b.interval), (None, None));
    assert_eq!(
        (config.log.level, config.log.format),
        (LogLevel::Debug, LogFormat::Json)
    );
}

/// Text and its error: position, key path, found and expected value.
const REFUSED: &[(&str, &str)] = &[
    ("wob: 1\n", "line 1 column 1: unknown field `wob`, expected one of `web`, `paths`"),
    ("web:\n  listen: 1\n", "line 2 column 3: web: unknown field `listen`, expected `listen_address`"),
    ("web: 7\n", "line 1 column 6: web: invalid type: integer `7`, expected a mapping of keys"),
    ("web:\n  listen_address: localhost\n", "line 2 column 19: web.listen_address: invalid value: string \"localhost\", expected an IP address and a port"),
    ("paths:\n  procfs: proc\n", "line 2 column 11: paths.procfs: invalid value: string \"proc\", expected an absolute path"),
    ("sampling:\n  tick: 1\n", "line 2 column 9: sampling.tick: invalid value: string \"1\", expected a duration from 100ms to 1m"),
    ("sampling:\n  tick: 99ms\n", "line 2 column 9: sampling.tick: "),
    ("sampling:\n  tick: 61s\n", "line 2 column 9: sampling.tick: "),
    ("sampling:\n  inventory: 6m\n", "line 2 column 14: sampling.inventory: invalid value: string \"6m\", expected a duration from 1s to 5m"),
    ("sampling:\n  tick: [1s]\n", "line 2 column 9: sampling.tick: invalid type: sequence, expected a duration"),
    ("labels:\n  placement: socket\n", "line 2 column 14: labels.placement: unknown variant `socket`, expected one of `core`, `numa_node`, `none`"),
    ("labels:\n  cell_ttl: 0s\n", "line 2 column 13: labels.cell_ttl: invalid value: string \"0s\", expected a duration from 1s to 1d"),
    ("limits:\n  max_series: 0\n", "line 2 column 15: limits.max_series: invalid value: integer `0`, expected a whole number from 1 to 10000000"),
    ("limits:\n  max_series: -1\n", "line 2 column 15: limits.max_series: invalid type: integer `-1`, expected a whole number from"),
    ("sources:\n  pmu:\n    enabled: maybe\n", "line 3 column 14: sources.pmu.enabled: invalid type: string \"maybe\", expected true or false"),
    ("sources:\n  pmu:\n    events: [dtlb, cache]\n", "line 3 column 20: sources.pmu.events[1]: unknown variant `cache`"),
    ("sources:\n  pmu:\n    events: [dtlb, dtlb]\n", "line 3 column 13: sources.pmu.events: entry [1] repeats entry [0]"),
    ("sources:\n  pmu:\n    raw:\n      - name: a\n        event: cpu/event=1/\n      - name: b\n        event: cycles\n", "line 7 column 16: sources.pmu.raw[1].event: invalid value: string \"cycles\", expected a PMU and its terms, such as cpu/event=0xd3,umask=0x2/, or a raw code"),
    ("sources:\n  pmu:\n    raw:\n      - name: a-b\n        event: cpu/event=1/\n", "line 4 column 15: sources.pmu.raw[0].name: invalid value: string \"a-b\", expected a name of letters"),
    ("sources:\n  pmu:\n    raw:\n      - name: a\n", "line 4 column 9: sources.pmu.raw[0]: missing field `event`"),
    ("sources:\n  pmu:\n    raw:\n      - {name: a, event: c/e=1/}\n      - {name: a, event: c/e=2/}\n", "line 4 column 7: sources.pmu.raw: entry [1] repeats entry [0]"),
    ("sources:\n  pmu:\n    raw:\n      - {name: a, event: c/e=1/, guest: false}\n", "line 4 column 7: sources.pmu.raw: entry [0]: expected guest or host to be true"),
    ("sources:\n  memory:\n    period: 9s\n", "line 3 column 13: sources.memory.period: invalid value: string \"9s\", expected a duration from 10s to 1h"),
    ("sources:\n  memory:\n    budget: 11s\n", "line 3 column 13: sources.memory.budget: invalid value: string \"11s\", expected a duration from 0ms to 10s"),
    ("sources:\n  numa:\n    period: 0s\n", "line 3 column 13: sources.numa.period: invalid value: string \"0s\", expected a duration from 1s to 10m"),
    ("sources:\n  resctrl:\n    create_groups: 1\n", "line 3 column 20: sources.resctrl.create_groups: invalid type: integer `1`, expected true or false"),
    ("sources:\n  cgroup:\n    period: 11m\n", "line 3 column 13: sources.cgroup.period: invalid value: string \"11m\", expected a duration from 1s to 10m"),
    ("sources:\n  exits:\n    reasons: [hlt, HLT]\n", "line 3 column 20: sources.exits.reasons[1]: invalid value: string \"HLT\", expected an exit reason such as hlt"),
    ("sources:\n  exits:\n    reasons: [other]\n", "sources.exits.reasons[0]: invalid value: string \"other\", expected an exit reason"),
    ("sources:\n  exits:\n    reasons: [hlt, io, hlt]\n", "sources.exits.reasons: entry [2] repeats entry [0], expected a list of different exit reasons"),
    ("sources:\n  kvm_stat:\n    period: 2h\n", "line 3 column 13: sources.kvm_stat.period: invalid value: string \"2h\", expected a duration from 1s to 10m"),
    ("sources:\n  threads:\n    period: 100ms\n", "line 3 column 13: sources.threads.period: invalid value: string \"100ms\", expected a duration from 1s to 10m"),
    ("sources:\n  devices:\n    period: 0s\n", "line 3 column 13: sources.devices.period: "),
    ("sources:\n  pt:\n    window: 2s\n", "line 3 column 13: sources.pt.window: invalid value: string \"2s\", expected a duration from 1ms to 1s"),
    ("sources:\n  pt:\n    period: 0s\n", "line 3 column 13: sources.pt.period: invalid value: string \"0s\", expected a duration from 1s to 1d"),
    ("sources:\n  pt:\n    max_duty: 0.6\n", "line 3 column 15: sources.pt.max_duty: invalid value: floating point `0.6`, expected a number from 0.0001 to 0.5, such as 0.01 for 1 %"),
    ("sources:\n  pt:\n    max_duty: 1%\n", "line 3 column 15: sources.pt.max_duty: invalid type: string \"1%\", expected a number"),
    ("sources:\n  pt:\n    max_bytes: 3MiB\n", "line 3 column 16: sources.pt.max_bytes: invalid value: string \"3MiB\", expected a power of two from 64KiB to 256MiB"),
    ("sources:\n  pt:\n    max_bytes: 32KiB\n", "line 3 column 16: sources.pt.max_bytes: "),
    ("otlp:\n  endpoint: x\n", "line 2 column 3: otlp: unknown field `endpoint`, expected one of `enabled`, `resource`, `endpoints`"),
    ("otlp:\n  endpoints: [{}]\n", "otlp.endpoints[0]: missing field `url`"),
    ("otlp:\n  endpoints:\n    - url: collector:4317\n", "line 3 column 12: otlp.endpoints[0].url: expected http:// or https://, a host and a port"),
    ("otlp:\n  endpoints:\n    - url: https://me:secret@c\n", "line 3 column 12: otlp.endpoints[0].url: expected no user and password in the URL"),
    ("otlp:\n  endpoints: [{url: 'http://c', protocol: http/json}]\n", "otlp.endpoints[0].protocol: unknown variant `http/json`, expected `grpc` or `http/protobuf`"),
    ("otlp:\n  endpoints: [{url: 'http://c', interval: 100ms}]\n", "otlp.endpoints[0].interval: invalid value: string \"100ms\", expected a duration from 1s to 1h"),
    ("otlp:\n  endpoints: [{url: 'http://c', timeout: 0ms}]\n", "otlp.endpoints[0].timeout: invalid value: string \"0ms\", expected a duration from 100ms to 5m"),
    ("otlp:\n  endpoints: [{url: 'http://c', headers: {Content-Type: x}}]\n", "otlp.endpoints[0].headers: invalid value: string \"Content-Type\", expected a mapping of header names"),
    ("otlp:\n  endpoints: [{url: 'http://c', headers: {a: {file: key}}}]\n", "otlp.endpoints[0].headers.a.file: invalid value: string \"key\", expected an absolute path"),
    ("otlp:\n  endpoints: [{url: 'http://c', headers: {a: {path: /key}}}]\n", "otlp.endpoints[0].headers.a: expected one key, file or env"),
    ("otlp:\n  endpoints: [{url: 'http://c', headers: {a: x, A: y}}]\n", "otlp.endpoints[0].headers: duplicate field `A`"),
    ("otlp:\n  endpoints: [{url: 'https://c', tls: {cert_file: /c}}]\n", "otlp.endpoints: entry [0]: expected cert_file and key_file together"),
    ("otlp:\n  endpoints: [{url: 'http://c', tls: {ca_file: /c}}]\n", "otlp.endpoints: entry [0]: expected https:// in the url"),
    ("otlp:\n  endpoints: [{url: 'http://c', headers: {Authorization: x}, basic_auth: {username: a, password: b}}]\n", "otlp.endpoints: entry [0]: expected basic_auth or an authorization header"),
    ("otlp:\n  endpoints: [{url: 'http://c', basic_auth: {username: 'a:b', password: x}}]\n", "otlp.endpoints[0].basic_auth.username: invalid value: string \"a:b\", expected a user name without a colon"),
    ("otlp:\n  endpoints: [{url: 'http://c'}, {url: 'http://c/'}]\n", "otlp.endpoints: entry [1] repeats entry [0]"),
    ("log:\n  level: loud\n", "line 2 column 10: log.level: unknown variant `loud`, expected one of `error`, `warn`"),
    ("log:\n  level: info\n  level: warn\n", "log: duplicate field `level`"),
    ("web:\n\tlisten_address: x\n", "line 2 column 1: "),
    ("web:\n---\nweb:\n", "more than one document"),
];

#[test]
fn what_is_wrong_is_refused_with_place_and_reason() {
    for (text, said) in REFUSED {
        let error = refusal(text);
        assert!(
            error.contains(said),
            "{text}\nsays     {error}\nand not  {said}"
        );
    }
}

#[test]
fn more_than_16_raw_events_are_refused() {
    let list = |n: usize| {
        let events: String = (0..n)
            .map(|n| format!("      - {{name: e{n}, event: c/e={n}/}}\n"))
            .collect();
        format!("sources:\n  pmu:\n    raw:\n{events}")
    };
    assert_eq!(parse(&list(16)).sources.pmu.raw.len(), 16);
    let error = refusal(&list(17));
    assert!(error.contains("invalid length 17"), "{error}");
    assert!(error.contains("at most 16"), "{error}");
}

#[test]
fn a_secret_is_not_repeated() {
    let long = "hunter2 ".repeat(2000);
    let number = "otlp: {endpoints: [{url: 'http://c', headers: {a: 123456}}]}";
    let error = refusal(number);
    assert!(
        error.contains("headers.a: expected text; put quotes around it"),
        "{error}"
    );
    for text in [
        "otlp: {endpoints: [{url: 'https://me:hunter2@c'}]}".to_owned(),
        "otlp: {endpoints: [{url: 'http://c', headers: {a: \"hunter2\\n\"}}]}".to_owned(),
        format!("otlp: {{endpoints: [{{url: 'http://c', headers: {{a: {long}}}}}]}}"),
        format!("otlp: {{endpoints: [{{url: 'http://c', basic_auth: {{username: a, password: {long}}}}}]}}"),
    ] {
        let error = refusal(&text);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yml");
    let load = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Config::load(&path).unwrap_err().to_string()
    };
    let error = load(b"web:\n  port: 1\n");
    assert!(
        error.contains("config.yml: line 2 column 3: web: unknown field"),
        "{error}"
    );
    let error = load(b"# \xff");
    assert!(
        error.contains("is not UTF-8 text: invalid byte at offset 2"),
        "{error}"
    );
    let error = load(&vec![b'#'; MAX_FILE as usize + 1]);
    assert!(error.contains("longer than 1 MiB"), "{error}");
    let error = Config::load(&dir.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot read") && error.contains("none"),
        "{error}"
    );
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (this, last) in ('b'..='z').zip('a'..='y') {
        text.push_str(&format!(
            "{this}: &{this} [{}]\n",
            vec![format!("*{last}"); 9].join(", ")
        ));
    }
    refusal(&text);
    refusal(&"[".repeat(100_000));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = Config::parse(&text);
    }

    #[test]
    fn no_yaml_makes_it_panic(text in "([a-z_]{1,8}|[-:\\[\\]{}&*!|>'\"#%@,?~ ]|[0-9smh]{1,4}|\n {0,6}|web:|sources:|pmu:|raw:|tick:){0,60}") {
        let _ = Config::parse(&text);
    }
}
