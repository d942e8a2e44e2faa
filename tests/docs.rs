//! The documents match the program.

use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect_file;
use vcpu_exporter::cli;
use vcpu_exporter::config::Config;
use vcpu_exporter::expose::otlp::settings;
use vcpu_exporter::snapshot::metrics;

use crate::support::promtool;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(file: &str) -> String {
    let path = root().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const EXAMPLE: &str = "deploy/vcpu-exporter.yml";

const RULES: &str = "alerts/recording.yaml";

const DOCUMENTS: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/METRICS.md",
    "docs/CONFIGURATION.md",
    "docs/COMPARISON.md",
    "docs/CONTENTION.md",
    "docs/FAQ.md",
    "docs/UPGRADING.md",
    "docs/ALERTS.md",
    "docs/DASHBOARDS.md",
    "docs/ARCHITECTURE.md",
    "docs/OTLP.md",
    "docs/PT.md",
    "docs/SYNTHETIC.md",
    "docs/TRUTH.md",
    "docs/WALKTHROUGH.md",
    "deploy/stack/README.md",
];

/// `UPDATE_EXPECT=1 cargo test --test library docs` rewrites the file.
#[test]
fn the_list_of_metrics_is_the_output_of_catalog() {
    let output = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
        .arg("catalog")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    expect_file![root().join("docs/METRICS.md")].assert_eq(&text);
}

#[test]
fn no_metric_is_missing_from_the_list() {
    let list = read("docs/METRICS.md");
    for metric in metrics::CATALOG.iter().copied() {
        assert!(
            list.contains(&format!("| `{}` |", metric.name)),
            "{}",
            metric.name
        );
    }
}

#[test]
fn the_example_configuration_is_the_defaults() {
    assert_eq!(Config::parse(&read(EXAMPLE)).unwrap(), Config::default());
}

/// The keys of a section, as listed in the error about an unknown key.
fn keys(section: &[&str]) -> Vec<String> {
    let mut text = String::new();
    for (depth, key) in section.iter().chain(&["no-such-key"]).enumerate() {
        text += &format!("{}{key}:\n", "  ".repeat(depth));
    }
    let error = Config::parse(&text).unwrap_err().to_string();
    let (_, expected) = error
        .split_once(", expected ")
        .unwrap_or_else(|| panic!("{error}"));
    let quoted = expected.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// The lines of a section of the example, without adjacent sections.
fn section(path: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = read(EXAMPLE).lines().map(str::to_owned).collect();
    for key in path {
        let inside = lines
            .into_iter()
            .skip_while(|line| *line != format!("{key}:"))
            .skip(1);
        let inside = inside.take_while(|line| line.is_empty() || line.starts_with("  "));
        lines = inside.map(|line| line.chars().skip(2).collect()).collect();
    }
    lines
}

/// The example sets the key, and a key that is not a section has a comment or a sibling above it.
#[track_caller]
fn assert_documented(path: &[&str], key: &str) {
    let lines = section(path);
    let at = lines
        .iter()
        .position(|line| line.starts_with(&format!("{key}:")));
    let at = at.unwrap_or_else(|| panic!("{EXAMPLE} lacks {path:?} {key}"));
    let is_section = lines[at].ends_with(':');
    let above = at.checked_sub(1).map_or("", |n| &lines[n]);
    assert!(
        is_section || !above.is_empty(),
        "{EXAMPLE} does not explain {path:?} {key}"
    );
}

#[test]
fn the_example_configuration_has_every_key() {
    let top = keys(&[]);
    assert!(top.len() >= 7, "{top:?}");
    for section in &top {
        assert_documented(&[], section);
        for key in keys(&[section]) {
            assert_documented(&[section], &key);
        }
    }
    for source in keys(&["sources"]) {
        for key in keys(&["sources", &source]) {
            assert_documented(&["sources", &source], &key);
        }
    }
}

/// The comment in the example that starts with this line, without `#`.
fn commented(begin: &str) -> Vec<String> {
    let text = read(EXAMPLE);
    let lines = text.lines().map(str::trim);
    let comment = lines
        .skip_while(|line| !line.starts_with(begin))
        .map_while(|line| line.strip_prefix('#'));
    comment.map(str::to_owned).collect()
}

#[test]
fn the_endpoint_of_the_example_is_accepted() {
    let endpoint = commented("#   - url:").join("\n");
    let config = format!("otlp:\n  endpoints:\n{endpoint}\n");
    let config = Config::parse(&config).unwrap_or_else(|error| panic!("{error}\n{config}"));
    let endpoint = &config.otlp.endpoints[0];
    assert_eq!(endpoint.headers.len(), 3);
    assert!(endpoint.basic_auth.is_some() && endpoint.tls.key_file.is_some());
    // It contains every key.
    let text = format!("{endpoint:?}");
    assert!(!text.contains("None"), "{text}");
}

#[test]
fn the_raw_event_of_the_example_is_accepted() {
    let comments = commented("#   - name:");
    let config = format!(
        "sources:\n  pmu:\n    raw:\n   {}\n",
        comments.join("\n   ")
    );
    let config = Config::parse(&config).unwrap_or_else(|error| panic!("{error}\n{config}"));
    assert_eq!(config.sources.pmu.raw.len(), 1);
}

/// The text between ```LANGUAGE and ```.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let rest = text.split(&fence).skip(1);
    rest.filter_map(|block| Some(block.split_once("\n```")?.0.to_owned()))
        .collect()
}

#[test]
fn configurations_in_the_documents_are_accepted() {
    let mut pushing = 0;
    for document in DOCUMENTS {
        for yaml in blocks(&read(document), "yaml") {
            // Prometheus's own configuration.
            if yaml.starts_with("scrape_configs:") {
                continue;
            }
            let config = Config::parse(&yaml);
            let config = config.unwrap_or_else(|error| panic!("{document}: {error}\n{yaml}"));
            let endpoints = settings::resolve(&config.otlp, &|_| None);
            pushing += endpoints.unwrap_or_default().len();
        }
    }
    assert!(pushing >= 5, "{pushing}");
}

fn commands(document: &str) -> Vec<String> {
    let blocks = blocks(&read(document), "sh");
    let lines = blocks.iter().map(|block| block.replace("\\\n", " "));
    lines
        .flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_commands_of_the_readme_exist() {
    let commands = commands("README.md");
    for needed in ["cargo run --release -- demo", "tests/run"] {
        assert!(
            commands.iter().any(|command| command == needed),
            "no {needed}"
        );
    }
    commands.iter().for_each(|command| exists(command));
}

#[test]
fn the_commands_for_traces_exist() {
    let commands = commands("docs/PT.md");
    assert!(commands.len() >= 3, "{commands:?}");
    commands.iter().for_each(|command| exists(command));
}

#[track_caller]
fn exists(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["cargo", "run", "--release", "--", args @ ..] | ["vcpu-exporter", args @ ..] => {
            accepts(args, command);
        }
        ["install", "-m", _, file, _] if !file.starts_with("target/") => {
            assert!(root().join(file).is_file(), "{command}");
        }
        [file] => assert!(root().join(file).is_file(), "there is no {file}"),
        _ => {}
    }
}

#[track_caller]
fn accepts(args: &[&str], command: &str) {
    if args == ["demo"] && !cfg!(feature = "demo") {
        return;
    }
    let args = std::iter::once(&"vcpu-exporter").chain(args);
    if let Err(error) = cli::command().try_get_matches_from(args) {
        panic!("{command}: {error}");
    }
}

#[test]
fn the_service_and_the_image_start_a_command_that_exists() {
    let unit = read("deploy/vcpu-exporter.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let words: Vec<&str> = start.split_whitespace().skip(1).collect();
    accepts(&words, start);
    let image = read("Dockerfile");
    let words = |instruction: &str| -> Vec<String> {
        let line = image
            .lines()
            .find_map(|line| line.strip_prefix(instruction))
            .unwrap();
        serde_json::from_str(line.trim()).unwrap()
    };
    let all = [words("ENTRYPOINT"), words("CMD")].concat();
    let words: Vec<&str> = all.iter().skip(1).map(String::as_str).collect();
    accepts(&words, "Dockerfile");
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        let dir = root().join(document).parent().unwrap().to_owned();
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once(')')?.0));
        for target in targets.filter(|t| !t.starts_with("http") && !t.starts_with('#')) {
            let file = target.split_once('#').map_or(target, |(file, _)| file);
            assert!(dir.join(file).exists(), "{document}: {target}");
        }
    }
}

/// A reader starts at the README: each page is one link away.
#[test]
fn every_document_is_listed_in_the_readme() {
    let readme = read("README.md");
    for document in DOCUMENTS.iter().filter(|name| **name != "README.md") {
        assert!(readme.contains(&format!("]({document})")), "{document}");
    }
}

/// Words in the text that look like one of our metrics. Only recording rules have a colon in their
/// names; tests/alerts.rs checks those.
fn metrics(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .map(|word| word.trim_end_matches(':'))
        .filter(|word| !word.contains(':'))
        .filter(|word| {
            ["kvm_vm_", "kvm_vcpu_", "kvm_host_", "kvm_exporter_"]
                .iter()
                .any(|p| word.starts_with(p))
        })
}

/// Whether the name is a metric or a series of a histogram.
fn is_known(name: &str) -> bool {
    let histogram = ["_bucket", "_sum", "_count"];
    let histogram = histogram
        .iter()
        .find_map(|suffix| metrics::find(name.strip_suffix(suffix)?));
    metrics::find(name).is_some()
        || histogram.is_some_and(|m| m.kind == vcpu_exporter::metric::Kind::Histogram)
}

#[test]
fn every_metric_that_is_named_exists() {
    for document in DOCUMENTS.iter().chain(&[EXAMPLE, RULES]) {
        for name in metrics(&read(document)) {
            assert!(is_known(name), "{document}: {name}");
        }
    }
}

#[test]
fn the_queries_of_the_documents_are_promql() {
    let queries = DOCUMENTS
        .iter()
        .map(|document| blocks(&read(document), "promql"));
    let queries: Vec<String> = queries.flatten().collect();
    assert!(queries.len() > 10, "{queries:?}");
    promtool::parse(&queries);
}

/// A metric that is not checked has a row that says so.
#[test]
fn every_metric_says_what_it_was_checked_against() {
    let text = read("docs/TRUTH.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix('|'))
        .map(|row| {
            row.split('|')
                .map(|cell| cell.trim().trim_end_matches('`'))
                .collect()
        })
        .collect();
    let named: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let metrics: Vec<&str> = metrics::CATALOG.iter().map(|metric| metric.name).collect();
    assert_eq!(named, metrics);
    for row in rows {
        let [metric, truth, machine, off] = row[..] else {
            panic!("{row:?} has not four cells");
        };
        let checked = truth != "no check";
        assert!(!truth.is_empty(), "{metric}");
        assert_eq!(
            [machine.is_empty(), off.is_empty()],
            [!checked; 2],
            "{metric}"
        );
    }
}
