//! Content negotiation (RFC 9110, section 12.5): text format and compression.
//!
//! Headers are untrusted. They are only compared with the few supported values; unknown elements
//! are ignored.

/// Most elements of a header that are parsed; Prometheus sends six.
const MAX_ELEMENTS: usize = 32;

/// A text format of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// OpenMetrics 1.0.0: with units and start times.
    OpenMetrics,
    /// Prometheus text 0.0.4, which every client understands.
    Text,
}

impl Format {
    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The format for a client that sent these `Accept` headers.
///
/// OpenMetrics if the client names it (without a version or with 1.0.0) with at least the weight of
/// text. Otherwise text, even if the client accepts neither: readable text is better than 406.
pub fn format<'a>(accept: impl IntoIterator<Item = &'a str>) -> Format {
    let formats = [
        ["application", "openmetrics-text", "1.0.0"],
        ["text", "plain", "0.0.4"],
    ];
    let [open_metrics, text] = best(accept, formats);
    let preferred = open_metrics.q > text.q || (open_metrics.by_name() && open_metrics.q == text.q);
    if preferred && open_metrics.q > 0 {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// Whether to serve HTML to a client that sent these `Accept` headers: it names `text/html`, as
/// browsers do, and prefers it to plain text or accepts both equally. `*/*` (curl) is plain text.
pub fn html<'a>(accept: impl IntoIterator<Item = &'a str>) -> bool {
    let [html, plain] = best(accept, [["text", "html", ""], ["text", "plain", ""]]);
    html.by_name() && html.q > 0 && html.q >= plain.q
}

/// Whether to compress for a client that sent these `Accept-Encoding` headers: it accepts gzip with
/// at least the weight of identity.
pub fn gzip<'a>(accept_encoding: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut gzip, mut identity) = (Best::default(), Best::default());
    for coding in elements(accept_encoding) {
        let name = coding.name;
        if name == "*" {
            gzip.offer(Precision::Any, coding.q);
        } else if is(name, "gzip") || is(name, "x-gzip") {
            gzip.offer(Precision::Subtype, coding.q);
        } else if is(name, "identity") {
            identity.offer(Precision::Subtype, coding.q);
        }
    }
    gzip.q > 0 && gzip.q >= identity.q
}

/// How specifically an element matches a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    /// `*/*`
    Any,
    /// `text/*`
    Type,
    /// `text/plain`
    Subtype,
    /// `text/plain;version=0.0.4`
    Version,
}

/// The weight of the most specific matching element.
#[derive(Debug, Default)]
struct Best {
    precision: Option<Precision>,
    q: u16,
}

impl Best {
    fn offer(&mut self, precision: Precision, q: u16) {
        let precision = Some(precision);
        if precision > self.precision || (precision == self.precision && q > self.q) {
            *self = Self { precision, q };
        }
    }

    fn by_name(&self) -> bool {
        self.precision >= Some(Precision::Subtype)
    }
}

/// The best element for each format: type, subtype and version.
fn best<'a, const N: usize>(
    accept: impl IntoIterator<Item = &'a str>,
    formats: [[&str; 3]; N],
) -> [Best; N] {
    let mut all = formats.map(|_| Best::default());
    for range in elements(accept) {
        for (best, format) in all.iter_mut().zip(formats) {
            if let Some(precision) = range.names(format) {
                best.offer(precision, range.q);
            }
        }
    }
    all
}

/// One list element: a name, its version if given, and its weight in thousandths.
#[derive(Debug, PartialEq, Eq)]
struct Element<'a> {
    name: &'a str,
    version: Option<&'a str>,
    q: u16,
}

impl<'a> Element<'a> {
    /// `None` if the weight is invalid.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let mut element = Self {
            name,
            version: None,
            q: 1000,
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if is(key, "q") {
                element.q = weight(value)?;
            } else if is(key, "version") {
                element.version = Some(value.trim_matches('"'));
            }
        }
        Some(element)
    }

    /// How specifically this media range matches `kind`/`subtype` in `version`; `None` if it does
    /// not.
    fn names(&self, [kind, subtype, version]: [&str; 3]) -> Option<Precision> {
        let (its_kind, its_subtype) = self.name.split_once('/')?;
        match (its_kind, its_subtype, self.version) {
            ("*", "*", _) => Some(Precision::Any),
            (k, "*", _) if is(k, kind) => Some(Precision::Type),
            (k, s, None) if is(k, kind) && is(s, subtype) => Some(Precision::Subtype),
            (k, s, Some(v)) if is(k, kind) && is(s, subtype) && v == version => {
                Some(Precision::Version)
            }
            _ => None,
        }
    }
}

/// The elements of all headers of one name. No value of interest contains a quoted comma, so
/// splitting inside quotes only produces elements that match nothing.
fn elements<'a>(headers: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = Element<'a>> {
    headers
        .into_iter()
        .flat_map(|header| header.split(','))
        .take(MAX_ELEMENTS)
        .filter_map(Element::parse)
}

/// `qvalue` of RFC 9110 section 12.4.2 in thousandths: 0 to 1 with at most three digits.
fn weight(text: &str) -> Option<u16> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    if digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = [1000, 100, 10, 1].get(digits.len())?;
    let fraction = digits.parse::<u16>().unwrap_or(0) * scale;
    match (whole, fraction) {
        ("0", fraction) => Some(fraction),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// Names in these headers are case-insensitive.
fn is(name: &str, expected: &str) -> bool {
    name.eq_ignore_ascii_case(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_client_that_names_html_gets_html() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert!(html([firefox]) && html(["TEXT/HTML"]));
        let others = [
            "",
            "*/*",
            "text/*",
            "text/html;q=0",
            "text/plain,text/html;q=0.9",
        ];
        assert!(others.into_iter().all(|accept| !html([accept])));
    }

    /// Captured from the named clients.
    const ACCEPTS: &[(&str, &str, Format)] = &[
        (
            "Prometheus 2.42",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        ),
        (
            "Prometheus 2.53",
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Format::OpenMetrics,
        ),
        (
            "Prometheus 3.5.3 with native histograms",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            Format::OpenMetrics,
        ),
        ("curl", "*/*", Format::Text),
        (
            "Chromium",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
            Format::Text,
        ),
    ];

    #[test]
    fn real_clients_get_what_they_read_best() {
        for (client, accept, expected) in ACCEPTS {
            assert_eq!(format([*accept]), *expected, "{client}");
        }
    }

    #[test]
    fn no_accept_header_gets_text() {
        assert_eq!(format([]), Format::Text);
        assert_eq!(format([""]), Format::Text);
        assert_eq!(format(["application/json"]), Format::Text);
    }

    #[test]
    fn weights_decide() {
        for (accept, expected) in [
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text ; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.6", Format::Text),
            ("text/plain;q=0.6,application/openmetrics-text;q=0.601", Format::OpenMetrics),
            ("application/openmetrics-text, */*", Format::OpenMetrics),
            ("application/*, text/*;q=0.1", Format::OpenMetrics),
            ("*/*, text/plain;q=0.1, application/openmetrics-text;q=0.05", Format::Text),
            ("text/plain;version=0.0.4;q=0.2,text/plain;q=0.9,application/openmetrics-text;q=0.5", Format::OpenMetrics),
            ("application/openmetrics-text;q=7", Format::Text),
        ] {
            assert_eq!(format([accept]), expected, "{accept}");
        }
    }

    #[test]
    fn headers_of_one_name_are_one_list() {
        let accept = ["text/plain;q=0.5", "application/openmetrics-text"];
        assert_eq!(format(accept), Format::OpenMetrics);
        assert!(gzip(["br", "gzip"]));
    }

    #[test]
    fn gzip_only_when_asked() {
        for (header, expected) in [
            ("gzip", true),
            ("gzip, deflate, br, zstd", true),
            ("GZIP;q=0.5", true),
            ("x-gzip", true),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("gzip;q=0.5, identity", false),
            ("identity;q=0.5, gzip;q=1.0", true),
            ("deflate", false),
            ("gzipped", false),
            ("", false),
        ] {
            assert_eq!(gzip([header]), expected, "{header}");
        }
        assert!(!gzip([]));
    }

    #[test]
    fn weights_are_thousandths() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("0", Some(0)),
            ("0.", Some(0)),
            ("0.05", Some(50)),
            ("0.999", Some(999)),
            ("1.1", None),
            ("0.0001", None),
            ("-1", None),
            ("0.+5", None),
            (".5", None),
            ("", None),
        ] {
            assert_eq!(weight(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_parsed_without_panic(header in "\\PC{0,200}", tail in "[a-z0-9*/;=.,\" q-]{0,200}") {
            format([header.as_str(), tail.as_str()]);
            gzip([header.as_str(), tail.as_str()]);
        }

        #[test]
        fn a_format_refused_is_never_served(q in "0(\\.0{0,3})?", rest in "[a-z]{1,8}/[a-z]{1,8}") {
            let accept = format!("{rest}, application/openmetrics-text;q={q}");
            prop_assert_eq!(super::format([accept.as_str()]), Format::Text);
            let encodings = format!("gzip;q={q}, deflate");
            prop_assert!(!gzip([encodings.as_str()]));
        }
    }
}
