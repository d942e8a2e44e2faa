//! Interprets an endpoint's answer (OTLP specification 1.x, "Failures" of both transports).

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::host::text::is_default_ignorable;

/// Longest delay that an endpoint may request; a longer request means that it is broken or hostile.
const LONGEST_AFTER: Duration = Duration::from_secs(600);

/// Most characters of an endpoint's message that are repeated in logs.
const LONGEST_MESSAGE: usize = 200;

/// The result of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The endpoint accepted it.
    Delivered {
        /// Data points that the endpoint rejected.
        rejected: u64,
        /// The endpoint's error message or warning.
        message: Option<String>,
    },
    /// It failed and may be sent again.
    Retry {
        /// The error.
        reason: String,
        /// Delay that the endpoint requested.
        after: Option<Duration>,
    },
    /// The endpoint would refuse it again.
    Refused {
        /// The error.
        reason: String,
    },
}

impl Answer {
    pub(super) fn retry(reason: impl Into<String>) -> Self {
        Answer::Retry {
            reason: reason.into(),
            after: None,
        }
    }

    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Answer::Refused {
            reason: reason.into(),
        }
    }

    /// Interprets an HTTP response.
    pub(super) fn of_http(response: &http::Response<Bytes>, now: SystemTime) -> Self {
        let (status, body) = (response.status(), response.body());
        let header = |name| response.headers().get(name)?.to_str().ok();
        let kind = header(CONTENT_TYPE);
        let reason = || format!("the receiver answered {status}{}", said(body));
        match status.as_u16() {
            200..=299 => match message(kind, body) {
                Some(message) => Self::of_response(message),
                // A proxy, a login portal or another service: an OTLP receiver would answer in its
                // protocol.
                None => Answer::refused(format!(
                    "answered {status}, but not as an OTLP receiver ({}): the push may be lost; \
                     check the URL{}",
                    printable_kind(kind),
                    said(body)
                )),
            },
            429 | 502 | 503 | 504 => Answer::Retry {
                reason: reason(),
                after: header(RETRY_AFTER).and_then(|text| seconds_or_date(text, now)),
            },
            _ => Answer::refused(reason()),
        }
    }

    pub(super) fn of_response(response: ExportMetricsServiceResponse) -> Self {
        let partial = response.partial_success.unwrap_or_default();
        let message = printable(&partial.error_message);
        Answer::Delivered {
            rejected: u64::try_from(partial.rejected_data_points).unwrap_or(0),
            message: (!message.is_empty()).then_some(message),
        }
    }

    /// Interprets a gRPC status other than OK.
    pub(super) fn of_status(status: &Status) -> Self {
        let after = status.get_details_retry_info();
        let after = after.and_then(|info| info.retry_delay);
        let after = after.map(|after| after.min(LONGEST_AFTER));
        let message = printable(status.message());
        let code = status.code();
        let reason = format!("the receiver answered {code:?}: {message}");
        match code {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Answer::Retry { reason, after },
            // Without a delay, the receiver does not expect to recover.
            Code::ResourceExhausted if after.is_some() => Answer::Retry { reason, after },
            _ => Answer::Refused { reason },
        }
    }
}

/// The message of a success: protobuf, JSON from receivers that support only JSON, or nothing, as
/// from VictoriaMetrics and Prometheus, whatever the content type is.
fn message(kind: Option<&str>, body: &[u8]) -> Option<ExportMetricsServiceResponse> {
    if body.is_empty() {
        return Some(ExportMetricsServiceResponse::default());
    }
    let kind = kind.unwrap_or("application/x-protobuf");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind.to_ascii_lowercase().as_str() {
        "application/json" => {
            let json: serde_json::Value = serde_json::from_slice(body).ok()?;
            json.is_object().then(|| of_json(&json))
        }
        "application/x-protobuf" | "application/protobuf" | "application/octet-stream" => {
            ExportMetricsServiceResponse::decode(body).ok()
        }
        _ => None,
    }
}

/// The content type, for messages.
fn printable_kind(kind: Option<&str>) -> String {
    let kind = kind.unwrap_or("no content type");
    printable(kind).chars().take(60).collect()
}

/// Parses the JSON form (OTLP specification, "JSON Protobuf Encoding": 64-bit numbers are strings).
fn of_json(json: &serde_json::Value) -> ExportMetricsServiceResponse {
    let partial = &json["partialSuccess"];
    let rejected = &partial["rejectedDataPoints"];
    let rejected = rejected
        .as_i64()
        .or_else(|| rejected.as_str()?.parse().ok());
    let message = partial["errorMessage"].as_str();
    ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: rejected.unwrap_or(0),
            error_message: message.unwrap_or_default().to_owned(),
        }),
    }
}

/// RFC 9110, 10.2.3: seconds, or a date.
fn seconds_or_date(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    Some(after.min(LONGEST_AFTER))
}

/// The message in the body of an error: a `google.rpc.Status`, or text.
fn said(body: &[u8]) -> String {
    let status = tonic_types::Status::decode(body);
    let message = match &status {
        Ok(status) if !status.message.is_empty() => printable(&status.message),
        _ => printable(&String::from_utf8_lossy(
            body.get(..4 * LONGEST_MESSAGE).unwrap_or(body),
        )),
    };
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

/// An untrusted message as one short line for the log and the terminal.
pub(super) fn printable(text: &str) -> String {
    let words =
        text.split(|c: char| c.is_control() || c.is_whitespace() || is_default_ignorable(c));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn http(status: u16, retry_after: Option<&str>, body: &[u8]) -> Answer {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        let response = http::Response::builder()
            .status(status)
            .header(CONTENT_TYPE, "application/x-protobuf");
        let response = retry_after.into_iter().fold(response, |response, after| {
            response.header(RETRY_AFTER, after)
        });
        let body = Bytes::copy_from_slice(body);
        Answer::of_http(&response.body(body).unwrap(), now)
    }

    /// A 200 with this content type.
    fn ok(content_type: Option<&str>, body: &str) -> Answer {
        let response = content_type
            .into_iter()
            .fold(http::Response::builder(), |response, kind| {
                response.header(CONTENT_TYPE, kind)
            });
        let body = Bytes::copy_from_slice(body.as_bytes());
        Answer::of_http(&response.body(body).unwrap(), SystemTime::UNIX_EPOCH)
    }

    fn delivered(rejected: u64, message: Option<&str>) -> Answer {
        let message = message.map(str::to_owned);
        Answer::Delivered { rejected, message }
    }

    fn partial(rejected: i64, message: &str) -> Vec<u8> {
        ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess {
                rejected_data_points: rejected,
                error_message: message.to_owned(),
            }),
        }
        .encode_to_vec()
    }

    #[test]
    fn over_http_a_few_codes_may_be_retried() {
        for status in [429, 502, 503, 504] {
            assert!(
                matches!(http(status, None, b""), Answer::Retry { .. }),
                "{status}"
            );
        }
        for status in [301, 400, 401, 403, 404, 413, 415, 500, 501] {
            assert!(
                matches!(http(status, None, b""), Answer::Refused { .. }),
                "{status}"
            );
        }
        assert_eq!(http(200, None, b""), delivered(0, None));
        assert_eq!(http(204, None, b""), delivered(0, None));
    }

    #[test]
    fn success_without_otlp_is_refused() {
        for (kind, body) in [
            (Some("text/html; charset=utf-8"), "<html>Sign in</html>"),
            (Some("application/x-protobuf"), "<html>Sign in</html>"),
            (Some("application/json"), "<html>Sign in</html>"),
            (Some("application/json"), "[]"),
            (Some("text/plain"), "ok"),
            (None, "<!DOCTYPE html>"),
        ] {
            let Answer::Refused { reason } = ok(kind, body) else {
                panic!("{kind:?} {body}");
            };
            assert!(reason.contains("check the URL"), "{reason}");
        }
        for kind in [None, Some("text/html"), Some("text/plain")] {
            assert_eq!(ok(kind, ""), delivered(0, None), "{kind:?}");
        }
    }

    #[test]
    fn a_success_in_json_is_one() {
        let json = |body| ok(Some("Application/JSON; charset=utf-8"), body);
        assert_eq!(json("{}"), delivered(0, None));
        assert_eq!(json(r#"{"partialSuccess":{}}"#), delivered(0, None));
        let partial = r#"{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"late"}}"#;
        assert_eq!(json(partial), delivered(3, Some("late")));
        let partial = r#"{"partialSuccess":{"rejectedDataPoints":3}}"#;
        assert_eq!(json(partial), delivered(3, None));
    }

    #[test]
    fn a_partial_success_says_what_was_rejected() {
        let two = "two\x1b[31m\nlines";
        assert_eq!(
            http(200, None, &partial(3, two)),
            delivered(3, Some("two [31m lines"))
        );
        assert_eq!(
            http(200, None, &partial(0, "hint")),
            delivered(0, Some("hint"))
        );
        assert_eq!(http(200, None, &partial(-3, "")), delivered(0, None));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let after = |text| match http(429, Some(text), b"") {
            Answer::Retry { after, .. } => after.map(|after| after.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(7));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30));
        assert_eq!(after("Sat, 06 Nov 1993 08:49:37 GMT"), Some(0));
        assert_eq!(after("99999999"), Some(600));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }

    #[test]
    fn the_reason_is_one_short_line() {
        let body = [b"no such tenant\r\n".as_slice(), &[b'x'; 100_000]].concat();
        let Answer::Refused { reason } = http(404, None, &body) else {
            panic!("not refused");
        };
        assert!(
            reason.starts_with("the receiver answered 404 Not Found: no such tenant xxx"),
            "{reason}"
        );
        assert!(reason.len() < 300);
        let status = tonic_types::Status {
            code: 3,
            message: "bad name".to_owned(),
            details: Vec::new(),
        };
        let Answer::Refused { reason } = http(400, None, &status.encode_to_vec()) else {
            panic!("not refused");
        };
        assert_eq!(reason, "the receiver answered 400 Bad Request: bad name");
    }

    #[test]
    fn over_grpc_exhaustion_may_be_retried_where_it_says_when() {
        let retry = |code| {
            matches!(
                Answer::of_status(&Status::new(code, "")),
                Answer::Retry { .. }
            )
        };
        let retryable: Vec<i32> = (1..=16).filter(|n| retry(Code::from_i32(*n))).collect();
        // Cancelled, DeadlineExceeded, Aborted, OutOfRange, Unavailable, DataLoss
        assert_eq!(retryable, [1, 4, 10, 11, 14, 15]);
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_secs(5000)));
        let status = Status::with_error_details(Code::ResourceExhausted, "busy", details);
        let reason = "the receiver answered ResourceExhausted: busy".to_owned();
        let after = Some(LONGEST_AFTER);
        assert_eq!(Answer::of_status(&status), Answer::Retry { reason, after });
    }
}
