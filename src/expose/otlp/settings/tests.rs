use super::*;
use crate::config::Config;

fn otlp(yaml: &str) -> Otlp {
    Config::parse(yaml).unwrap().otlp
}

fn resolved(yaml: &str, variables: &[(&str, &str)]) -> Result<Vec<Settings>, WrongVariable> {
    let env = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    resolve(&otlp(yaml), &env)
}

fn one(yaml: &str, variables: &[(&str, &str)]) -> Settings {
    let mut all = resolved(yaml, variables).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn header(value: &str) -> HeaderSource {
    HeaderSource::Value(value.to_owned())
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/x");

#[test]
fn nothing_is_pushed_unless_an_endpoint_is_named() {
    assert_eq!(resolved("", &[]), Ok(Vec::new()));
    assert_eq!(
        resolved("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]),
        Ok(Vec::new())
    );
    let off = "otlp: {enabled: false, endpoints: [{url: 'http://c:4318'}]}";
    assert_eq!(resolved(off, &[ENDPOINT]), Ok(Vec::new()));
    for switch in [
        ("OTEL_SDK_DISABLED", "TRUE"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ] {
        assert_eq!(resolved("", &[ENDPOINT, switch]), Ok(Vec::new()));
    }
}

#[test]
fn defaults_are_the_standards() {
    let settings = one("otlp: {endpoints: [{url: 'http://c:4318'}]}", &[]);
    assert_eq!(settings.url, "http://c:4318/v1/metrics");
    assert_eq!(settings.protocol, Protocol::Http);
    assert_eq!(settings.temporality, Temporality::Cumulative);
    assert_eq!(settings.compression, Compression::None);
    assert_eq!(settings.timeout, Duration::from_secs(10));
    assert_eq!(settings.interval, INTERVAL);
    assert!(settings.headers.is_empty());
}

#[test]
fn grpc_port_means_grpc_by_default() {
    let yaml = "otlp: {endpoints: [{url: 'http://c:4317'}]}";
    let settings = one(yaml, &[]);
    assert_eq!(
        (settings.protocol, &*settings.url),
        (Protocol::Grpc, "http://c:4317")
    );
    let http = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    assert_eq!(one(yaml, &http).protocol, Protocol::Http);
    let yaml = "otlp: {endpoints: [{url: 'http://c:4317', protocol: grpc}]}";
    assert_eq!(one(yaml, &http).protocol, Protocol::Grpc);
}

#[test]
fn the_variables_alone_make_an_endpoint() {
    let settings = one(
        "",
        &[
            ENDPOINT,
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "X-Key=a%20b%3D, x-tenant = 7 ",
            ),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "60000"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
        ],
    );
    assert_eq!(settings.url, "http://c:4318/x/v1/metrics");
    assert_eq!(settings.headers["x-key"], header("a b="));
    assert_eq!(settings.headers["x-tenant"], header("7"));
    assert_eq!(settings.timeout, Duration::from_millis(2500));
    assert_eq!(settings.interval, Duration::from_secs(60));
    assert_eq!(settings.compression, Compression::Gzip);
    assert_eq!(settings.temporality, Temporality::Delta);
    assert_eq!(settings.tls.ca_file, Some("/ca.pem".into()));
    assert_eq!(settings.tls.key_file, Some("/key.pem".into()));
}

#[test]
fn the_variable_of_the_signal_wins_and_is_the_whole_url() {
    let variables = [
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:1/own"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "2000"),
    ];
    let settings = one("", &variables);
    assert_eq!(settings.url, "http://m:1/own");
    assert_eq!(settings.timeout, Duration::from_secs(2));
}

#[test]
fn the_configuration_wins_over_the_variables() {
    let yaml = "
otlp:
  endpoints:
    - url: https://y:443/otlp
      protocol: http/protobuf
      temporality: cumulative
      compression: none
      interval: 5s
      timeout: 1s
      headers: {X-Own: mine}
      tls: {ca_file: /own.pem}
";
    let variables = [
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "60000"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=theirs"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
    ];
    let settings = one(yaml, &variables);
    assert_eq!(settings.url, "https://y:443/otlp/v1/metrics");
    assert_eq!(settings.protocol, Protocol::Http);
    assert_eq!(settings.temporality, Temporality::Cumulative);
    assert_eq!(settings.compression, Compression::None);
    assert_eq!(
        (settings.interval.as_secs(), settings.timeout.as_secs()),
        (5, 1)
    );
    assert_eq!(
        settings.headers,
        BTreeMap::from([("x-own".to_owned(), header("mine"))])
    );
    assert_eq!(settings.tls.ca_file, Some("/own.pem".into()));
}

#[test]
fn a_key_in_the_variables_goes_to_one_endpoint_alone() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
    ];
    let only = one("otlp: {endpoints: [{url: 'http://a:1'}]}", &variables);
    assert_eq!(only.headers["x-key"], header("secret"));
    let both = "otlp: {endpoints: [{url: 'http://a:1'}, {url: 'http://b:2'}]}";
    let both = resolved(both, &variables).unwrap();
    assert_eq!(both.len(), 2);
    for settings in both {
        assert!(settings.headers.is_empty() && settings.tls == Tls::default());
        assert_eq!(settings.timeout, Duration::from_secs(2));
    }
}

#[test]
fn invalid_variable_is_named_without_its_value() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:hunter2@c"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=%zz"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "content-type=hunter2"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "hunter2",
        ),
    ] {
        let error = resolved("", &[(name, value), ENDPOINT]).unwrap_err();
        assert_eq!(error.name, name);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let yaml = "
otlp:
  endpoints:
    - url: http://c:4318
      headers: {X-Key: hunter2}
    - url: http://d:4318
      basic_auth: {username: me, password: hunter2}
";
    let all = format!("{:?} {:?}", otlp(yaml), resolved(yaml, &[]));
    assert!(!all.contains("hunter2"), "{all}");
}
