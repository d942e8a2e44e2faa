//! Prometheus, Alertmanager and Grafana accept the files of deploy/stack, also with shortened
//! durations.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{kill_process, Pid, Signal};
use serde_yaml::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn stack(file: &str) -> PathBuf {
    root().join("deploy/stack").join(file)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a program is on the path; prints why a test is skipped if not.
fn has(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !has {
        println!("skipped: {program} is not installed (apt-get install {package})");
    }
    has
}

/// Output of `faster` for a text, or its error.
fn faster(speed: &str, text: &str) -> Result<String, String> {
    let mut child = Command::new(stack("faster"))
        .arg(speed)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // If it refuses the speed, it does not read its input.
    let _ = stdin.write_all(text.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

/// Runs a program that must succeed.
fn accepted(program: &str, arguments: &[&str], file: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .arg(file)
        .output()
        .expect("it starts");
    assert!(
        output.status.success(),
        "{}: {}",
        file.display(),
        said(&output)
    );
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// The rules of this repository.
fn rules() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("alerts")).expect("a directory");
    let files = files.map(|file| file.expect("a file").path());
    let mut rules: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    rules.sort();
    assert!(!rules.is_empty());
    rules
}

/// Lines with durations, and the same sixty times as fast.
const SPED_UP: [(&str, &str); 18] = [
    ("scrape_interval: 15s", "scrape_interval: 250ms"),
    (
        "  evaluation_interval: 30s # often",
        "  evaluation_interval: 500ms # often",
    ),
    ("- scrape_timeout: 10s", "- scrape_timeout: 167ms"),
    (
        "global: { scrape_interval: 1m, scrape_timeout: 30s }",
        "global: { scrape_interval: 1000ms, scrape_timeout: 500ms }",
    ),
    ("for: 5m", "for: 5000ms"),
    ("keep_firing_for: 1h30m", "keep_firing_for: 90000ms"),
    ("for: 0s", "for: 0ms"),
    ("group_wait: 30s", "group_wait: 500ms"),
    ("expr: rate(x[5m]) > 5", "expr: rate(x[5000ms]) > 5"),
    (
        "expr: sum_over_time(x[5m:1m]) >= 3",
        "expr: sum_over_time(x[5000ms:1000ms]) >= 3",
    ),
    (
        "expr: avg_over_time(x[ 1w : ] offset 1h)",
        "expr: avg_over_time(x[ 10080000ms : ] offset 60000ms)",
    ),
    ("expr: x offset -5m", "expr: x offset -5000ms"),
    (
        "expr: x[1d] OFFSET 1h30m",
        "expr: x[1440000ms] OFFSET 90000ms",
    ),
    (
        "expr: |\n  a\n\n  / rate(b[5m]) # [5m]\nfor: 1m",
        "expr: |\n  a\n\n  / rate(b[5000ms]) # [5m]\nfor: 1000ms",
    ),
    (
        "- expr: a\n    + b[5m]\n  for: 1m",
        "- expr: a\n    + b[5000ms]\n  for: 1000ms",
    ),
    (
        "annotations: { a: for 5m }\nfor: 5m",
        "annotations: { a: for 5m }\nfor: 5000ms",
    ),
    (
        "- annotations:\n    a: |\n      b\n    interval: 5m\n  interval: 5m",
        "- annotations:\n    a: |\n      b\n    interval: 5m\n  interval: 5000ms",
    ),
    (
        "labels:\n  for: 5m\n# The VM's\nfor: 5m",
        "labels:\n  for: 5m\n# The VM's\nfor: 5000ms",
    ),
];

/// Lines without durations that look similar.
const LEFT: [&str; 14] = [
    "record: kvm_vm:cpi:rate5m",
    "- name: vcpu-exporter.5m",
    "before: 5m",
    "for:5m",
    "summary: 'for: 5m'",
    "# for: 5m",
    "expr: kvm_vm:cpi:rate5m > 5 * 60",
    "expr: x{a=\"[5m]\", b='offset 5m'} > 1e5",
    "expr: x{a=\"\\\"[5m]\"}",
    "expr: x{a=`\\[5m]`} # offset 5m",
    "expr: my_offset 5",
    "expr: x @ 1609746000",
    "annotations:\n  description: in the last [5m] for: 5m",
    "route: { receiver: 5m }",
];

#[test]
fn faster_divides_durations() {
    if !has("python3", "python3") {
        return;
    }
    for (text, fast) in SPED_UP {
        assert_eq!(faster("60", text).as_deref(), Ok(fast), "{text}");
    }
}

#[test]
fn faster_leaves_everything_else() {
    if !has("python3", "python3") {
        return;
    }
    for text in LEFT {
        assert_eq!(faster("60", text).as_deref(), Ok(text));
    }
    let all: String = rules().iter().map(|path| read(path)).collect();
    let plain = |text: &str| text.lines().map(str::len).count();
    assert_eq!(plain(&faster("60", &all).expect("rules")), plain(&all));
}

#[test]
fn faster_says_what_it_cannot_do() {
    if !has("python3", "python3") {
        return;
    }
    let refused = |speed, text| faster(speed, text).expect_err("it refuses");
    assert!(refused("0", "").contains("greater than 0"));
    assert!(refused("fast", "").contains("usage"));
    assert!(
        refused("100000", "for: 5s").contains("5s divided by 100000 is less than a millisecond")
    );
}

#[test]
fn prometheus_accepts_its_configuration_and_all_rules_at_any_speed() {
    if !has("promtool", "prometheus") || !has("python3", "python3") {
        return;
    }
    accepted("promtool", &["check", "config"], &stack("prometheus.yml"));
    let dir = tempfile::tempdir().expect("a directory");
    let write = |file: &Path, text: &str| {
        let path = dir.path().join(file.file_name().expect("a name"));
        fs::write(&path, text).expect("a file");
        path
    };
    for file in rules() {
        accepted("promtool", &["check", "rules"], &file);
        for speed in ["10", "60"] {
            let path = write(&file, &faster(speed, &read(&file)).expect("rules"));
            accepted("promtool", &["check", "rules"], &path);
        }
    }
    let config = stack("prometheus.yml");
    let path = write(&config, &faster("60", &read(&config)).expect("YAML"));
    accepted("promtool", &["check", "config", "--syntax-only"], &path);
}

#[test]
fn alertmanager_accepts_its_configuration_at_any_speed() {
    if !has("amtool", "prometheus-alertmanager") || !has("python3", "python3") {
        return;
    }
    let config = stack("alertmanager.yml");
    accepted("amtool", &["check-config"], &config);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("alertmanager.yml");
    fs::write(&path, faster("60", &read(&config)).expect("YAML")).expect("a file");
    accepted("amtool", &["check-config"], &path);
}

/// Critical alerts page, warnings open a ticket, and info is sent to no receiver.
#[test]
fn each_severity_has_its_receiver() {
    if !has("amtool", "prometheus-alertmanager") {
        return;
    }
    let receivers = [
        ("critical", "pager"),
        ("warning", "tickets"),
        ("info", "nowhere"),
    ];
    for (severity, receiver) in receivers {
        let output = Command::new("amtool")
            .args(["config", "routes", "test", "--config.file"])
            .arg(stack("alertmanager.yml"))
            .arg(format!("severity={severity}"))
            .output()
            .expect("it starts");
        let routed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(routed.trim(), receiver, "{severity}");
    }
    let config = yaml(&stack("alertmanager.yml"));
    let list = config["receivers"].as_sequence().expect("a list");
    let nowhere = list.iter().find(|r| r["name"] == "nowhere");
    let keys = nowhere.and_then(Value::as_mapping).map(|m| m.len());
    assert_eq!(keys, Some(1), "nowhere sends something");
}

fn yaml(path: &Path) -> Value {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_sequence().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).collect()
}

/// The document shows the contents of the file.
#[test]
fn inhibition_is_as_documented() {
    let document = read(&root().join("docs/ALERTS.md"));
    let lines = document
        .lines()
        .skip_while(|line| line.trim() != "inhibit_rules:");
    let block: Vec<_> = lines.take_while(|line| line.starts_with("    ")).collect();
    let documented: Value = serde_yaml::from_str(&block.join("\n")).expect("YAML");
    let rules = &documented["inhibit_rules"];
    assert!(
        rules.as_sequence().is_some_and(|rules| rules.len() > 1),
        "{rules:?}"
    );
    assert_eq!(yaml(&stack("alertmanager.yml"))["inhibit_rules"], *rules);
}

/// Without a container engine: mounted files exist, and each image is pinned to one version.
#[test]
fn compose_mounts_what_is_there_and_pins_its_images() {
    let compose = yaml(&stack("compose.yaml"));
    let services = compose["services"].as_mapping().expect("services");
    assert_eq!(services.len(), 3);
    for (name, service) in services {
        let image = service["image"].as_str().expect("an image");
        let tag = image
            .split_once(':')
            .map(|(_, tag)| tag.trim_start_matches('v'));
        assert_eq!(tag.map(|tag| tag.split('.').count()), Some(3), "{image}");
        for volume in texts(&service["volumes"]) {
            let (source, _) = volume.split_once(':').expect("two sides");
            if source.starts_with('.') {
                assert!(stack(source).exists(), "{name:?}: {source}")
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{source}")
            }
        }
    }
    let grafana = &compose["services"]["grafana"];
    let home = &grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert!(mounted(grafana, home.as_str().expect("a path")).exists());
    let folder = yaml(&stack("grafana/provisioning/dashboards/vcpu-exporter.yaml"));
    let folder = folder["providers"][0]["options"]["path"].as_str();
    assert!(mounted(grafana, folder.expect("a path")).is_dir());
}

/// The path in this repository of a path in the container.
fn mounted(service: &Value, path: &str) -> PathBuf {
    let volumes = texts(&service["volumes"]);
    let found = volumes.iter().find_map(|volume| {
        let mut sides = volume.split(':');
        let source = sides.next()?;
        let rest = path.strip_prefix(sides.next()?)?;
        Some(stack(source).join(rest.trim_start_matches('/')))
    });
    found.unwrap_or_else(|| panic!("{path} is not mounted"))
}

/// The data sources of Grafana have the listen addresses of the other two.
#[test]
fn grafana_asks_where_the_others_listen() {
    let compose = read(&stack("compose.yaml"));
    let sources = yaml(&stack("grafana/provisioning/datasources/prometheus.yaml"));
    let sources = sources["datasources"].as_sequence().expect("a list");
    assert_eq!(sources.len(), 2);
    for source in sources {
        let address = source["url"]
            .as_str()
            .and_then(|url| url.strip_prefix("http://"));
        let flag = format!("--web.listen-address={}\n", address.expect("a URL"));
        assert!(compose.contains(&flag), "{flag}");
    }
}

#[test]
fn local_names_what_is_missing() {
    let Ok(bash) = fs::canonicalize("/bin/bash") else {
        println!("skipped: no bash");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    for tool in ["dirname", "sed", "awk", "cat"] {
        let there = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(tool));
        let there = there
            .iter()
            .find(|path| path.exists())
            .expect("a usual tool");
        std::os::unix::fs::symlink(there, dir.path().join(tool)).expect("a link");
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&bash);
        let command = command.arg(stack("local")).args(arguments);
        let output = command
            .env("PATH", dir.path())
            .output()
            .expect("bash starts");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    assert!(run(&[]).contains("prometheus is missing: apt-get install prometheus\n"));
    assert!(run(&["--nonsense"]).contains("unknown option --nonsense"));
    assert!(run(&["--speed"]).contains("--speed requires a value"));
    assert!(run(&["--scrape", "/dev/null"]).contains("/dev/null does not contain scrape_configs"));
    assert!(run(&["--scrape", "a", "--target", "b"])
        .contains("--scrape and --target cannot be combined"));
    assert!(
        run(&["--target", "a\"b"]).contains("spaces, quotes and backslashes are not allowed: a\"b")
    );
}

/// Ctrl-C leaves no process and no data.
#[test]
fn local_cleans_up() {
    if !has("prometheus", "prometheus")
        || !has("prometheus-alertmanager", "prometheus-alertmanager")
    {
        return;
    }
    // A background test run can have Ctrl-C ignored, which bash cannot undo.
    let mut child = Command::new("env")
        .arg("--default-signal=INT")
        .arg(stack("local"))
        .args([
            "--prometheus",
            "127.0.0.1:0",
            "--alertmanager",
            "127.0.0.1:0",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash starts");
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let lines: Vec<_> = stdout.lines().map_while(Result::ok).take(3).collect();
    let data = lines.last().and_then(|line| line.rsplit(' ').next());
    let data = PathBuf::from(data.expect("it says where its data are"));
    assert!(data.join("prometheus.yml").exists(), "{lines:?}");
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let children = fs::read_to_string(children).expect("its children");
    let of = |pid: &str| Path::new("/proc").join(pid);
    assert_eq!(
        children
            .split_whitespace()
            .filter(|pid| of(pid).exists())
            .count(),
        2
    );
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), Signal::INT).expect("it can be signalled");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert!(!data.exists(), "{}", data.display());
    assert!(
        !children.split_whitespace().any(|pid| of(pid).exists()),
        "{children}"
    );
}
