//! Every alert has a runbook, and a runbook names only things that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vcpu_exporter::cli;
use vcpu_exporter::config::Config;
use vcpu_exporter::snapshot::metrics;

use crate::support::promtool;

/// In this order, so that a tired reader finds the same thing at the same place on every page.
const HEADINGS: [&str; 8] = [
    IN_ONE_MINUTE,
    "What it means",
    "Is it real?",
    "What to look at",
    "Likely causes",
    "Fix",
    "Verify",
    "If it is noise",
];

/// First: the first action and its commands.
const IN_ONE_MINUTE: &str = "In one minute";

const INDEX: &str = "README";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Stem and text of all files in a folder with this extension; empty if the folder is missing.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root().join(folder));
    let paths = entries.into_iter().flatten().map(|e| e.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|e| e == extension));
    let mut files: Vec<_> = paths
        .map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (stem, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// The pages about alerts, and the index.
fn pages() -> Vec<(String, String)> {
    files("docs/runbooks", "md")
}

fn runbooks() -> Vec<(String, String)> {
    let pages = pages().into_iter();
    pages.filter(|(name, _)| name != INDEX).collect()
}

/// Pages that name metrics, panels and files, including the walk-through.
fn documents() -> Vec<(String, String)> {
    let walkthrough = files("docs", "md").into_iter();
    let walkthrough = walkthrough.filter(|(name, _)| name == "WALKTHROUGH");
    pages().into_iter().chain(walkthrough).collect()
}

/// Values of a key in the rules: `alert` or `record`.
fn rules(key: &str) -> BTreeSet<String> {
    let mark = format!("- {key}: ");
    let files = files("alerts", "yaml");
    let lines = files.iter().flat_map(|(_, text)| text.lines());
    lines
        .filter_map(|line| Some(line.trim().strip_prefix(&mark)?.to_owned()))
        .collect()
}

/// The text between ```LANGUAGE and ```.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let (mut rest, mut blocks) = (text, vec![]);
    while let Some((_, after)) = rest.split_once(fence.as_str()) {
        let (block, after) = after.split_once("\n```").unwrap_or((after, ""));
        blocks.push(block);
        rest = after;
    }
    blocks
}

/// Lines outside of code blocks: a comment in a command is not a heading.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split("\n```").enumerate();
    parts
        .filter(|(n, _)| n % 2 == 0)
        .flat_map(|(_, part)| part.lines())
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let alerts = rules("alert");
    let names: BTreeSet<String> = runbooks().into_iter().map(|(name, _)| name).collect();
    assert!(!names.is_empty());
    if alerts.is_empty() {
        println!("skipped: there are no alerts in alerts/*.yaml");
        return;
    }
    assert_eq!(names, alerts);
}

#[test]
fn the_index_names_every_runbook() {
    let pages = pages();
    let (_, index) = pages.iter().find(|(name, _)| name == INDEX).unwrap();
    for (name, _) in runbooks() {
        assert!(
            index.contains(&format!("| [{name}]({name}.md) | ")),
            "{name}"
        );
    }
}

#[test]
fn every_runbook_has_the_same_headings() {
    for (name, text) in runbooks() {
        let headings: Vec<&str> = prose(&text)
            .filter_map(|line| line.strip_prefix("## "))
            .collect();
        assert_eq!(headings, HEADINGS, "{name}");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(format!("# {name}").as_str()));
        // First, what the alert means for the guest.
        assert_eq!(lines.next(), Some(""), "{name}");
        assert!(lines.next().is_some_and(|line| line.len() > 20), "{name}");
        for needed in ["promql", "sh"] {
            assert!(!blocks(&text, needed).is_empty(), "{name}: no {needed}");
        }
    }
}

/// The text between the heading and the next one.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, after) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    after
        .split_once("\n## ")
        .map_or(after, |(section, _)| section)
}

/// Fits the first screen of a phone.
#[test]
fn one_minute_is_two_commands_and_a_few_lines() {
    for (name, text) in runbooks() {
        let section = section(&text, IN_ONE_MINUTE);
        let lines = prose(section).filter(|line| !line.is_empty()).count();
        assert!((1..=5).contains(&lines), "{name}: {lines} lines");
        let commands = blocks(section, "sh").into_iter().flat_map(str::lines);
        let commands: Vec<&str> = commands.collect();
        assert!((1..=2).contains(&commands.len()), "{name}: {commands:?}");
    }
}

/// A reader uses one manager: a fix for another is useless.
#[test]
fn a_page_that_acts_on_a_vm_has_commands_for_each_manager() {
    const MANAGERS: [(&str, &[&str]); 4] = [
        ("libvirt", &["virsh"]),
        ("Proxmox", &["qm"]),
        ("OpenStack", &["openstack"]),
        ("KubeVirt", &["virtctl", "kubectl"]),
    ];
    let mut count = 0;
    for (name, text) in runbooks() {
        let text = blocks(&text, "sh").join("\n");
        let words: BTreeSet<&str> = text.split_whitespace().collect();
        let has = |programs: &[&str]| programs.iter().any(|program| words.contains(program));
        if !MANAGERS.iter().any(|(_, programs)| has(programs)) {
            continue;
        }
        count += 1;
        for (manager, programs) in MANAGERS {
            assert!(has(programs), "{name}: no command for {manager}");
        }
    }
    assert!(count >= 10, "{count}");
}

#[test]
fn the_queries_are_promql() {
    let documents = documents();
    let queries = documents
        .iter()
        .flat_map(|(_, text)| blocks(text, "promql"));
    let queries: Vec<String> = queries.map(str::to_owned).collect();
    assert!(!queries.is_empty());
    promtool::parse(&queries);
}

/// Words in the text that look like one of our metrics or recording rules.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let words = words.map(|word| word.trim_end_matches(':'));
    words.filter(|word| {
        let families = ["kvm_vm", "kvm_vcpu", "kvm_host", "kvm_exporter"];
        let rest = families.iter().find_map(|f| word.strip_prefix(f));
        // `kvm_vcpu_` alone is the start of a regular expression.
        rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with(['_', ':']))
    })
}

/// Whether the name is in the catalog or a series of a histogram.
fn is_metric(name: &str) -> bool {
    let parts = ["_bucket", "_sum", "_count"];
    let family = parts.iter().find_map(|part| name.strip_suffix(part));
    metrics::find(name).is_some() || family.is_some_and(|name| metrics::find(name).is_some())
}

#[test]
fn every_metric_and_rule_that_is_named_exists() {
    let recorded = rules("record");
    let complete = !rules("alert").is_empty();
    if !complete {
        println!("skipped: names of rules, as there are no alerts in alerts/*.yaml");
    }
    for (document, text) in documents() {
        for name in names(&text) {
            let exists = if name.contains(':') {
                !complete || recorded.contains(name)
            } else {
                is_metric(name)
            };
            assert!(exists, "{document}: {name}");
        }
    }
}

#[test]
fn configurations_are_accepted() {
    let pages = runbooks();
    let blocks: Vec<_> = pages.iter().flat_map(|(_, t)| blocks(t, "yaml")).collect();
    assert!(!blocks.is_empty());
    for yaml in blocks {
        Config::parse(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    }
}

/// The command up to the first pipe.
#[test]
fn our_own_commands_exist() {
    let pages = runbooks();
    let lines = pages.iter().flat_map(|(_, text)| blocks(text, "sh"));
    let lines = lines.flat_map(str::lines);
    let ours: Vec<&str> = lines.filter(|l| l.starts_with("vcpu-exporter ")).collect();
    assert!(!ours.is_empty());
    for line in ours {
        let words = line.split_whitespace().take_while(|word| *word != "|");
        let matches = cli::command().try_get_matches_from(words);
        assert!(matches.is_ok(), "{line}: {}", matches.unwrap_err());
    }
}

#[test]
fn links_lead_somewhere() {
    for (folder, page) in [("docs/runbooks", true), ("docs", false)] {
        for (name, text) in documents() {
            let is_page = name != "WALKTHROUGH";
            if is_page != page {
                continue;
            }
            let targets = text.split("](").skip(1);
            let targets = targets.filter_map(|rest| Some(rest.split_once(')')?.0));
            for target in targets.filter(|t| !t.starts_with("http")) {
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let path = root().join(folder).join(file);
                if file.starts_with("images/") && !path.parent().unwrap().exists() {
                    println!("skipped: there are no pictures in docs/images");
                    continue;
                }
                assert!(path.exists(), "{name}: {target}");
                if !anchor.is_empty() {
                    let heading = format!("## {}", anchor.replace('-', " "));
                    let text = std::fs::read_to_string(path).unwrap().to_lowercase();
                    assert!(text.contains(&heading), "{name}: {target}");
                }
            }
        }
    }
}

/// Titles of a dashboard's panels, including those in collapsed rows.
fn titles(panels: &Value, into: &mut BTreeSet<String>) {
    for panel in panels.as_array().into_iter().flatten() {
        into.extend(panel["title"].as_str().map(str::to_owned));
        titles(&panel["panels"], into);
    }
}

/// Titles in quotes after the word panel or panels, up to the end of the sentence or bracket.
fn panels_named(text: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut named = vec![];
    for after in text.split(" panel").skip(1) {
        let after = after.trim_start_matches(['s', ' ']);
        if !after.starts_with('"') {
            continue;
        }
        // "A", "B" and "C": nothing else is between titles.
        for (n, part) in after.split('"').enumerate() {
            match n % 2 {
                1 => named.push(part.to_owned()),
                _ if n > 0 && ![", ", " and "].contains(&part) => break,
                _ => {}
            }
        }
    }
    named
}

#[test]
fn panels_that_are_named_exist() {
    let dashboards = files("dashboards", "json");
    if dashboards.is_empty() {
        println!("skipped: there are no dashboards in dashboards/*.json");
        return;
    }
    let mut known = BTreeSet::new();
    for (_, text) in &dashboards {
        let dashboard: Value = serde_json::from_str(text).unwrap();
        titles(&dashboard["panels"], &mut known);
    }
    let mut count = 0;
    for (document, text) in documents() {
        for title in panels_named(&text) {
            assert!(known.contains(&title), "{document}: no panel {title:?}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}
