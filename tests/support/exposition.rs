//! A minimal parser of expositions for tests.
#![allow(dead_code, unreachable_pub, unused_imports)]
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// All samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Exposition {
    pub text: String,
    pub samples: Vec<Sample>,
}

impl Exposition {
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        Self {
            samples: lines.map(sample).collect(),
            text: text.to_owned(),
        }
    }

    /// Samples of this name with these labels among others.
    pub fn all<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name && labels.iter().all(|(n, v)| sample.label(n) == *v)
        })
    }

    /// Sum of these samples; `None` if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let values: Vec<f64> = self.all(name, labels).map(|s| s.value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Value of the only such sample.
    pub fn one(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut all = self.all(name, labels);
        let first = all.next();
        assert!(all.next().is_none(), "more than one {name}{labels:?}");
        first.map(|sample| sample.value)
    }

    /// Every counter sample by name and labels.
    pub fn counters(&self) -> BTreeMap<String, f64> {
        let counters = self.samples.iter().filter(|s| s.name.ends_with("_total"));
        counters
            .map(|s| (format!("{}{:?}", s.name, s.labels), s.value))
            .collect()
    }
}

impl Sample {
    /// A label's value; empty if it is missing, as in Prometheus.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

fn sample(line: &str) -> Sample {
    let split = line.find(['{', ' ']).expect("a sample has a value");
    let (name, rest) = line.split_at(split);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest),
        None => (BTreeMap::new(), rest),
    };
    let value = value
        .split_whitespace()
        .next()
        .expect("a sample has a value");
    Sample {
        name: name.to_owned(),
        labels,
        value: value
            .parse()
            .unwrap_or_else(|_| panic!("not a number in {line:?}")),
    }
}

/// Label pairs up to the closing brace, and the rest of the text.
fn labels(mut rest: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    while let Some((name, after)) = rest.split_once("=\"") {
        if rest.starts_with('}') {
            break;
        }
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("a label value ends") {
                (end, '"') => break end,
                (_, '\\') => match chars.next().expect("an escape is whole").1 {
                    'n' => value.push('\n'),
                    c => value.push(c),
                },
                (_, c) => value.push(c),
            }
        };
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        rest = &after[end + 1..];
    }
    (labels, rest.strip_prefix('}').expect("labels are closed"))
}
