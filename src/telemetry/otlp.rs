//! Metrics of OTLP pushes.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::durations;
use super::values::{Family, Histogram, LabelSet, Registry};
use crate::metric::{metrics, Keys, Label, Metric, Rows};

metrics! { METRICS of "self":
    PUSHES = Metric::counter("kvm_exporter_otlp_pushes_total", Keys::Exporter, &["endpoint", "outcome"],
        "OTLP pushes by outcome: delivered, failed (retried) or refused").rows(Rows::Registry);
    DATA_POINTS = Metric::counter("kvm_exporter_otlp_data_points_total", Keys::Exporter, &["endpoint", "outcome"],
        "OTLP data points by outcome: delivered, rejected (by a receiver that accepted the rest), or refused").rows(Rows::Registry);
    PUSH_DURATION = Metric::histogram("kvm_exporter_otlp_push_duration_seconds", Keys::Exporter, &["endpoint"],
        "Duration of one OTLP push, from encoding to the last response").rows(Rows::Registry);
    LAST_DELIVERY_TIMESTAMP = Metric::gauge("kvm_exporter_otlp_last_delivery_timestamp_seconds", Keys::Exporter, &["endpoint"],
        "Unix time of the last delivered OTLP push").rows(Rows::Registry);
}

/// Label of a push receiver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointLabel {
    /// URL of the receiver, without secrets.
    pub endpoint: String,
}

impl LabelSet for EndpointLabel {
    fn labels(&self) -> Vec<Label> {
        vec![("endpoint", self.endpoint.clone().into())]
    }
}

/// Labels of push results.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutcomeLabels {
    /// URL of the receiver, without secrets.
    pub endpoint: String,
    /// `delivered`, `failed`, `rejected` or `refused`.
    pub outcome: &'static str,
}

impl LabelSet for OutcomeLabels {
    fn labels(&self) -> Vec<Label> {
        let endpoint = self.endpoint.clone().into();
        vec![("endpoint", endpoint), ("outcome", self.outcome.into())]
    }
}

/// Metrics of OTLP pushes.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// Pushes by outcome: `delivered`, `failed`, `refused`.
    pub pushes: Family<OutcomeLabels, Counter>,
    /// Data points by outcome: `delivered`, `rejected`, `refused`.
    pub data_points: Family<OutcomeLabels, Counter>,
    /// Time of one push, from encoding to the last response.
    pub duration: Family<EndpointLabel, Histogram>,
    /// Time of the last delivered push, in seconds since the epoch.
    pub last_delivery: Family<EndpointLabel, Gauge<f64, AtomicU64>>,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            pushes: Family::default(),
            data_points: Family::default(),
            duration: Family::new(durations),
            last_delivery: Family::default(),
        }
    }
}

impl Otlp {
    pub(super) fn register(&self, all: &mut Registry) {
        all.add(&PUSHES, self.pushes.clone());
        all.add(&DATA_POINTS, self.data_points.clone());
        all.add(&PUSH_DURATION, self.duration.clone());
        all.add(&LAST_DELIVERY_TIMESTAMP, self.last_delivery.clone());
    }
}
