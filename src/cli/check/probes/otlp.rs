//! Whether each endpoint takes what it would be sent: one empty request, as a push would send it.

use bytes::Bytes;

use super::super::{Finding, Need};
use crate::cli::push::endpoints;
use crate::config::Config;
use crate::expose::otlp::{Answer, Client, Settings};

/// A finding for each endpoint; none where nothing is pushed.
pub(in super::super) fn otlp(config: &Config) -> Vec<Finding> {
    let need = Need("otlp", "a receiver of pushes");
    let endpoints = match endpoints(config) {
        Ok(endpoints) => endpoints,
        Err(error) => {
            let variable = need.missing(format!("{error:#}"));
            return vec![variable.fix("set the variable as its message says, or unset it")];
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
        Err(error) => return vec![need.missing(format!("cannot try: {error}"))],
    };
    let tried = endpoints.iter().map(|settings| {
        let answer = runtime.block_on(empty_request(settings));
        told(need, &settings.url, answer)
    });
    let findings = tried.collect();
    // A name that is being looked up keeps nobody waiting.
    runtime.shutdown_background();
    findings
}

/// No bytes are an `ExportMetricsServiceRequest` without metrics.
async fn empty_request(settings: &Settings) -> Result<Answer, String> {
    let client = Client::new(settings).map_err(|error| error.to_string())?;
    Ok(client.send(Bytes::new()).await)
}

fn told(need: Need, url: &str, answer: Result<Answer, String>) -> Finding {
    match answer {
        Ok(Answer::Delivered { message, .. }) => {
            let said = message.map(|message| format!(" and said: {message}"));
            let said = said.unwrap_or_default();
            need.ok(format!("{url} took an empty request{said}"))
        }
        Ok(Answer::Retry { reason, .. }) => need
            .missing(format!("{url}: {reason}"))
            .fix("a receiver that listens there and speaks the protocol: otlp.endpoints[].url and protocol"),
        Ok(Answer::Refused { reason }) => need
            .missing(format!("{url}: {reason}"))
            .fix("the path of the url, and what the receiver wants of headers or basic_auth"),
        Err(reason) => need
            .missing(format!("{url}: {reason}"))
            .fix("otlp.endpoints[] of the configuration: a file that can be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::State;

    #[test]
    fn what_answered_is_told() {
        let need = Need("otlp", "a receiver");
        let url = "http://c/v1/metrics";
        let delivered = Answer::Delivered {
            rejected: 0,
            message: Some("old client".to_owned()),
        };
        let ok = told(need, url, Ok(delivered));
        assert_eq!(ok.state, State::Ok);
        assert_eq!(
            ok.detail,
            "http://c/v1/metrics took an empty request and said: old client"
        );
        let refused = Answer::Refused {
            reason: "it answered 401 Unauthorized".to_owned(),
        };
        let refused = told(need, url, Ok(refused));
        assert_eq!(refused.state, State::Missing);
        assert!(refused.detail.ends_with("it answered 401 Unauthorized"));
        assert!(refused.fix.is_some());
    }
}
