//! Converts prometheus-client's OpenMetrics text to Prometheus text 0.0.4, line by line.
//!
//! prometheus-client writes only OpenMetrics. The input is the exporter's own registry: a few dozen
//! lines without exemplars and timestamps.

/// Appends `open_metrics` in the classic format: `# TYPE` has the full name of a counter, info is a
/// gauge, `# UNIT` and `# EOF` do not exist.
pub(super) fn append(open_metrics: &str, out: &mut Vec<u8>) {
    // HELP precedes TYPE, but only TYPE determines the name in this format.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        match Line::of(line) {
            Line::Help { family, text } => help = Some((family, text)),
            Line::Type { family, kind } => {
                let (suffix, kind) = classic_type(kind);
                if let Some((_, text)) = help.take().filter(|(of, _)| *of == family) {
                    push(out, &["# HELP ", family, suffix, " ", text, "\n"]);
                }
                push(out, &["# TYPE ", family, suffix, " ", kind, "\n"]);
            }
            Line::Dropped => {}
            Line::Sample => push(out, &[line, "\n"]),
        }
    }
}

/// A parsed line of OpenMetrics.
enum Line<'a> {
    Help { family: &'a str, text: &'a str },
    Type { family: &'a str, kind: &'a str },
    Dropped,
    Sample,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        let Some(comment) = line.strip_prefix('#') else {
            return if line.is_empty() {
                Line::Dropped
            } else {
                Line::Sample
            };
        };
        let mut words = comment.trim_start().splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(family), text) => Line::Help {
                family,
                text: text.unwrap_or_default(),
            },
            (Some("TYPE"), Some(family), Some(kind)) => Line::Type { family, kind },
            _ => Line::Dropped,
        }
    }
}

/// The suffix of a family's name, and its type in the classic format.
fn classic_type(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        "gauge" | "stateset" => ("", "gauge"),
        "histogram" => ("", "histogram"),
        "summary" => ("", "summary"),
        _ => ("", "untyped"),
    }
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn classic(open_metrics: &str) -> String {
        let mut out = Vec::new();
        append(open_metrics, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_counter_is_named_in_full() {
        let text = "# HELP ticks Ticks.\n# TYPE ticks counter\nticks_total 3\n";
        let expected = "# HELP ticks_total Ticks.\n# TYPE ticks_total counter\nticks_total 3\n";
        assert_eq!(classic(text), expected);
    }

    #[test]
    fn a_unit_and_the_end_mark_do_not_exist() {
        let text = "# HELP cpu_seconds CPU time.\n# TYPE cpu_seconds counter\n\
                    # UNIT cpu_seconds seconds\ncpu_seconds_total 0.5\n# EOF\n";
        let expected = "# HELP cpu_seconds_total CPU time.\n# TYPE cpu_seconds_total counter\n\
                        cpu_seconds_total 0.5\n";
        assert_eq!(classic(text), expected);
    }

    #[test]
    fn a_fact_is_a_gauge() {
        let text = "# HELP build Version.\n# TYPE build info\nbuild_info{version=\"# 1\"} 1\n";
        let expected =
            "# HELP build_info Version.\n# TYPE build_info gauge\nbuild_info{version=\"# 1\"} 1\n";
        assert_eq!(classic(text), expected);
    }

    #[test]
    fn gauges_and_histograms_stay_as_they_are() {
        let text = "# HELP d Time.\n# TYPE d histogram\nd_sum 0.5\nd_count 1\n\
                    d_bucket{le=\"+Inf\"} 1\n# HELP g Level.\n# TYPE g gauge\ng 1\n";
        assert_eq!(classic(text), text);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "(#? ?(HELP|TYPE|UNIT|EOF)?[ -~]*\n?){0,8}") {
            classic(&text);
        }
    }
}
