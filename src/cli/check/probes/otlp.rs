//! Whether each OTLP endpoint accepts a push: sends one empty request with the push's settings.

use bytes::Bytes;

use super::super::{Finding, Need};
use crate::cli::push::endpoints;
use crate::config::Config;
use crate::expose::otlp::{Answer, Client, Settings};

/// One finding for each endpoint.
pub(in super::super) fn otlp(config: &Config) -> Vec<Finding> {
    let need = Need("otlp", "OTLP receiver");
    let endpoints = match endpoints(config) {
        Ok(endpoints) => endpoints,
        Err(error) => {
            let variable = need.missing(format!("{error:#}"));
            return vec![variable.fix("correct or unset the variable")];
        }
    };
    if endpoints.is_empty() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return vec![need.missing(format!("cannot start the client: {error}"))],
    };
    let tried = endpoints.iter().map(|settings| {
        let answer = runtime.block_on(empty_request(settings));
        finding(need, &settings.url, answer)
    });
    let findings = tried.collect();
    // Do not wait for a DNS lookup that has not finished.
    runtime.shutdown_background();
    findings
}

/// Zero bytes encode an `ExportMetricsServiceRequest` without metrics.
async fn empty_request(settings: &Settings) -> Result<Answer, String> {
    let client = Client::new(settings).map_err(|error| error.to_string())?;
    Ok(client.send(Bytes::new()).await)
}

fn finding(need: Need, url: &str, answer: Result<Answer, String>) -> Finding {
    match answer {
        Ok(Answer::Delivered { message, .. }) => {
            let said = message.map(|message| format!(" and answered: {message}"));
            let said = said.unwrap_or_default();
            need.ok(format!("{url} took an empty request{said}"))
        }
        Ok(Answer::Retry { reason, .. }) => need
            .missing(format!("{url}: {reason}"))
            .fix("start a receiver there, or correct url and protocol in otlp.endpoints[]"),
        Ok(Answer::Refused { reason }) => need
            .missing(format!("{url}: {reason}"))
            .fix("correct the path of the url, headers or basic_auth in otlp.endpoints[]"),
        Err(reason) => need
            .missing(format!("{url}: {reason}"))
            .fix("correct this setting in otlp.endpoints[]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::State;

    #[test]
    fn answer_of_the_receiver_is_shown() {
        let need = Need("otlp", "a receiver");
        let url = "http://c/v1/metrics";
        let delivered = Answer::Delivered {
            rejected: 0,
            message: Some("old client".to_owned()),
        };
        let ok = finding(need, url, Ok(delivered));
        assert_eq!(ok.state, State::Ok);
        assert_eq!(
            ok.detail,
            "http://c/v1/metrics took an empty request and answered: old client"
        );
        let refused = Answer::Refused {
            reason: "the receiver answered 401 Unauthorized".to_owned(),
        };
        let refused = finding(need, url, Ok(refused));
        assert_eq!(refused.state, State::Missing);
        assert!(refused
            .detail
            .ends_with("the receiver answered 401 Unauthorized"));
        assert!(refused.fix.is_some());
    }
}
