//! `/runbooks/`: the runbook of each alert, embedded at build time, so that links in alerts work
//! wherever the exporter is reachable.
//!
//! Browsers get HTML, other clients Markdown as text. The query (`vm`, `vcpu`, `instance`, `host`)
//! replaces the example names in both.

use maud::{html, Markup, PreEscaped, DOCTYPE};

use super::html::head;
use subject::{Context, Subject};

mod markdown;
mod subject;

// RUNBOOKS: name and text of each file of docs/runbooks, sorted by name; build.rs generates it.
include!(concat!(env!("OUT_DIR"), "/runbooks.rs"));

pub(super) const STYLE: &str = include_str!("runbooks/style.css");

/// The runbook that helps to choose among the others.
const INDEX: &str = "README";

#[derive(Debug, Clone, Copy)]
pub(super) struct Runbook {
    name: &'static str,
    text: &'static str,
}

impl Runbook {
    /// Finds a runbook by name, with or without `.md`.
    pub(super) fn find(name: &str) -> Option<Self> {
        let name = name.strip_suffix(".md").unwrap_or(name);
        all().find(|runbook| runbook.name == name)
    }

    /// The VM that the runbook's queries use as an example.
    fn example(self) -> Option<&'static str> {
        let (_, after) = self.text.split_once("vm=\"")?;
        after.split('"').next()
    }

    /// The first sentence without Markdown.
    fn summary(self) -> String {
        let mut paragraphs = self.text.split("\n\n").skip(1);
        let first = paragraphs.next().unwrap_or_default().replace('\n', " ");
        let first = first.split_inclusive(". ").next().unwrap_or_default();
        first.replace(['`', '*'], "").trim().to_owned()
    }

    /// Markdown with the names of the query.
    pub(super) fn plain(self, query: &str) -> String {
        let subject = Subject::parse(query);
        let mut block = None;
        let mut text = String::with_capacity(self.text.len());
        for line in self.text.split_inclusive('\n') {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                block = match block {
                    Some(_) => None,
                    None => Some(Context::of_block(language.trim())),
                };
                text += line;
                continue;
            }
            // Outside code blocks, every second part between backticks is code.
            for (n, part) in line.split('`').enumerate() {
                let context = block.unwrap_or(match n % 2 {
                    0 => Context::Prose,
                    _ => Context::Command,
                });
                text += if n > 0 { "`" } else { "" };
                text += &subject.fill(part, self.example(), context);
            }
        }
        text
    }

    /// HTML with the names of the query.
    pub(super) fn page(self, query: &str) -> Markup {
        let subject = Subject::parse(query);
        let body = markdown::html(self.text, self.example(), &subject);
        let title = match self.name {
            INDEX => "Which runbook",
            name => name,
        };
        let about = [&subject.vm, &subject.host];
        let about: Vec<&str> = about.into_iter().flatten().map(String::as_str).collect();
        let title = match about.as_slice() {
            [] => title.to_owned(),
            about => format!("{title}: {}", about.join(" on ")),
        };
        let form = html! {
            details {
                summary { (commands_are_for(&subject)) }
                form method="get" {
                    (field("vm", "VM", subject.vm.as_deref(), self.example()))
                    (field("neighbor", "Culprit", subject.neighbor.as_deref(), None))
                    (field("vcpu", "vCPU", subject.vcpu.as_deref(), None))
                    (field("instance", "Exporter", subject.instance.as_deref(), Some("HOST:9752")))
                    button { "Fill in" }
                }
            }
            @if subject.keeps_example() {
                p.note role="note" {
                    "A shell would interpret characters of this VM's name. Commands keep the example "
                    code { (self.example().unwrap_or_default()) } ": quote the name yourself."
                }
            }
        };
        page(&title, &subject, html! { (form) (PreEscaped(body)) })
    }
}

impl Context {
    /// The context of a code block in this language.
    fn of_block(language: &str) -> Self {
        match language {
            "promql" => Self::PromQl,
            _ => Self::Command,
        }
    }
}

fn all() -> impl Iterator<Item = Runbook> {
    let runbooks = RUNBOOKS.iter();
    runbooks.map(|&(name, text)| Runbook { name, text })
}

/// The list of runbooks with their summaries.
pub(super) fn list(query: &str) -> Markup {
    let subject = Subject::parse(query);
    let query = subject.query();
    let body = html! {
        h1 { "Runbooks" }
        @if RUNBOOKS.is_empty() { p { "This build contains no runbooks." } }
        @if Runbook::find(INDEX).is_some() {
            p { a href={ "/runbooks/" (INDEX) (query) } { "Which runbook? Start here." } }
        }
        dl.list {
            @for runbook in all().filter(|runbook| runbook.name != INDEX) {
                dt { a href={ "/runbooks/" (runbook.name) (query) } { (runbook.name) } }
                dd { (runbook.summary()) }
            }
        }
    };
    page("Runbooks", &subject, body)
}

/// The names that the commands of a page contain.
fn commands_are_for(subject: &Subject) -> String {
    let known = [
        ("VM", &subject.vm),
        ("culprit", &subject.neighbor),
        ("vCPU", &subject.vcpu),
        ("exporter", &subject.instance),
    ];
    let known = known.into_iter();
    let known = known.filter_map(|(what, name)| Some(format!("{what} {}", name.as_deref()?)));
    match known.collect::<Vec<_>>().as_slice() {
        [] => "The commands contain example names: fill in yours".to_owned(),
        known => format!("Commands for {}", known.join(", ")),
    }
}

fn field(name: &str, label: &str, value: Option<&str>, example: Option<&str>) -> Markup {
    html! {
        label { (label) " " input name=(name) value=[value] placeholder=[example] size="14"; }
    }
}

fn page(title: &str, subject: &Subject, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{title} · vcpu-exporter"), STYLE))
            body {
                nav {
                    a href="/" { "Status page of this host" }
                    a href={ "/runbooks/" (subject.query()) } { "All runbooks" }
                }
                main { (body) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
