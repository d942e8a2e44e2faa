//! Pushes to one endpoint: encodes the latest snapshot, sends it, and records the result.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::answer::Answer;
use super::encode::{Encoder, Export, Request};
use super::settings::Settings;
use super::starts::Clock;
use super::transport::Client;
use super::{App, Resource};
use crate::config::otlp::Temporality;
use crate::metric::Label;
use crate::snapshot::visit::unix_ns;
use crate::telemetry::Heartbeat;

/// Shortest interval between log messages about failures.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A request that takes this much longer than its timeout counts as hanging.
const MARGIN: Duration = Duration::from_secs(30);

/// The result of one push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There was no snapshot yet.
    NoSample,
    /// The endpoint accepted all requests.
    Delivered {
        /// Data points sent.
        points: u64,
        /// Data points that the endpoint rejected.
        rejected: u64,
    },
    /// A request failed; the push may be repeated.
    Failed {
        /// The error.
        reason: String,
        /// Delay that the endpoint requested.
        after: Option<Duration>,
    },
    /// The endpoint refused a request, and would refuse it again.
    Refused {
        /// The error.
        reason: String,
    },
}

/// Pushes to one endpoint.
#[derive(Debug)]
pub struct Pusher {
    settings: Settings,
    encoder: Encoder,
    app: Arc<App>,
    /// Created for the first push, and again after a failure: certificates may have been replaced.
    client: Option<Client>,
    heartbeat: Heartbeat,
    trouble: FailureLog,
}

impl Pusher {
    /// A pusher of the snapshots of `app`.
    pub fn new(settings: Settings, resource: Resource, clock: Clock, app: Arc<App>) -> Self {
        Self {
            encoder: match settings.temporality {
                Temporality::Cumulative => Encoder::cumulative(resource, clock),
                Temporality::Delta => Encoder::delta(resource, clock),
            },
            heartbeat: {
                let limit = settings.timeout + MARGIN;
                app.telemetry.heartbeats.add("otlp", limit, false)
            },
            settings,
            app,
            client: None,
            trouble: FailureLog::default(),
        }
    }

    /// The endpoint's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Pushes the latest snapshot. The future may be dropped at any time: a request without an
    /// answer counts as not delivered.
    pub async fn push(&mut self) -> Outcome {
        let Some(snapshot) = self.app.snapshots.load() else {
            return Outcome::NoSample;
        };
        let begun = Instant::now();
        let requests = self.encoder.encode(&Export {
            snapshot: &snapshot,
            registry: &self.app.registry,
            now: begun,
            now_unix: unix_ns(SystemTime::now()),
        });
        // Let the sampler reuse the snapshot's buffers.
        drop(snapshot);
        let outcome = self.send_all(requests).await;
        if matches!(outcome, Outcome::Failed { .. }) {
            self.client = None;
        }
        self.account(&outcome, begun.elapsed());
        self.trouble
            .log(&self.settings.url, &outcome, Instant::now());
        outcome
    }

    /// Sends the requests in order. A failure that may be retried ends the push, because the next
    /// request would fail too. A refused request does not affect the others.
    async fn send_all(&mut self, requests: Vec<Request>) -> Outcome {
        let (mut points, mut rejected, mut refusal) = (0, 0, None);
        for request in requests {
            self.heartbeat.step("push");
            let answer = self.send(&request).await;
            self.heartbeat.rest();
            match answer {
                Answer::Delivered {
                    rejected: n,
                    message,
                } => {
                    points += request.points;
                    rejected += n;
                    if let Some(message) = message {
                        self.trouble.hint(&self.settings.url, n, &message);
                    }
                    self.count_points("delivered", request.points.saturating_sub(n));
                    self.count_points("rejected", n);
                    self.encoder.delivered(request);
                }
                Answer::Retry { reason, after } => return Outcome::Failed { reason, after },
                Answer::Refused { reason } => {
                    self.count_points("refused", request.points);
                    refusal = Some(reason);
                }
            }
        }
        match refusal {
            Some(reason) => Outcome::Refused { reason },
            None => Outcome::Delivered { points, rejected },
        }
    }

    async fn send(&mut self, request: &Request) -> Answer {
        let client = match self.client.take() {
            Some(client) => client,
            None => match Client::new(&self.settings) {
                Ok(client) => client,
                Err(error) => return Answer::retry(error.to_string()),
            },
        };
        let client = self.client.insert(client);
        client.send(request.body.clone()).await
    }

    fn count_points(&self, outcome: &'static str, points: u64) {
        if points > 0 {
            let counter = &self.app.telemetry.otlp.data_points;
            let labels = [self.label(), ("outcome", outcome.into())];
            counter.get_or_create(labels).inc_by(points);
        }
    }

    fn label(&self) -> Label {
        ("endpoint", self.settings.url.clone().into())
    }

    fn account(&self, outcome: &Outcome, took: Duration) {
        let word = match outcome {
            Outcome::NoSample => return,
            Outcome::Delivered { .. } => "delivered",
            Outcome::Failed { .. } => "failed",
            Outcome::Refused { .. } => "refused",
        };
        let otlp = &self.app.telemetry.otlp;
        let labels = [self.label(), ("outcome", word.into())];
        otlp.pushes.get_or_create(labels).inc();
        let duration = otlp.duration.get_or_create([self.label()]);
        duration.observe(took.as_secs_f64());
        if word == "delivered" {
            let now = unix_ns(SystemTime::now()) as f64 / 1e9;
            otlp.last_delivery.get_or_create([self.label()]).set(now);
        }
    }
}

/// Logs failures, with a limited rate.
#[derive(Debug, Default)]
struct FailureLog {
    last_report: Option<Instant>,
    hinted: Option<Instant>,
    /// Failed pushes since the last success.
    failures: u64,
    /// Whether a failure was logged.
    known: bool,
}

impl FailureLog {
    fn log(&mut self, endpoint: &str, outcome: &Outcome, now: Instant) {
        match outcome {
            Outcome::NoSample => {}
            Outcome::Delivered { .. } => {
                if std::mem::take(&mut self.known) {
                    tracing::info!(endpoint, failures = self.failures, "pushes succeed again");
                }
                self.failures = 0;
            }
            Outcome::Failed { reason, .. } => {
                self.warn(endpoint, reason, "it will be retried", now)
            }
            Outcome::Refused { reason } => {
                self.warn(endpoint, reason, "the next push follows on schedule", now);
            }
        }
    }

    fn warn(&mut self, endpoint: &str, reason: &str, then: &str, now: Instant) {
        self.failures += 1;
        if is_time(&mut self.last_report, now) {
            self.known = true;
            let failures = self.failures;
            tracing::warn!(endpoint, reason, failures, "push failed; {then}");
        }
    }

    /// Logs a receiver's message about a request that it accepted.
    fn hint(&mut self, endpoint: &str, rejected: u64, message: &str) {
        if is_time(&mut self.hinted, Instant::now()) {
            tracing::warn!(
                endpoint,
                rejected,
                message,
                "the receiver accepted a push with a warning"
            );
        }
    }
}

fn is_time(last: &mut Option<Instant>, now: Instant) -> bool {
    let is = last.is_none_or(|last| now.saturating_duration_since(last) >= REPORT_EVERY);
    if is {
        *last = Some(now);
    }
    is
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_logged_at_most_once_a_minute() {
        let (mut last, now) = (None, Instant::now());
        let times = [0, 1, 59, 60, 61, 119, 120];
        let reported = times.map(|s| is_time(&mut last, now + Duration::from_secs(s)));
        assert_eq!(reported, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn recovery_is_logged_only_after_a_logged_failure() {
        let mut trouble = FailureLog::default();
        let now = Instant::now();
        let failed = Outcome::Failed {
            reason: "x".to_owned(),
            after: None,
        };
        let delivered = Outcome::Delivered {
            points: 1,
            rejected: 0,
        };
        trouble.log("e", &failed, now);
        assert!(trouble.known);
        trouble.log("e", &delivered, now);
        assert!(!trouble.known && trouble.failures == 0);
        trouble.log("e", &failed, now);
        assert!(!trouble.known, "it was logged a moment ago");
    }
}
