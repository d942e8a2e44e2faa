//! Metrics of OTLP pushes.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::values::{Family, Histogram, Registry};
use crate::metric::{metrics, Keys, Metric, Rows};

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

/// Metrics of OTLP pushes. Label `endpoint`: URL of the receiver, without secrets.
#[derive(Debug, Clone, Default)]
pub struct Otlp {
    /// Pushes by endpoint and outcome: `delivered`, `failed`, `refused`.
    pub pushes: Family<2, Counter>,
    /// By endpoint and outcome: `delivered`, `rejected`, `refused`.
    pub(crate) data_points: Family<2, Counter>,
    /// Time of one push, from encoding to the last response.
    pub duration: Family<1, Histogram>,
    pub(crate) last_delivery: Family<1, Gauge<f64, AtomicU64>>,
}

impl Otlp {
    pub(super) fn register(&self, all: &mut Registry) {
        all.add(&PUSHES, self.pushes.clone());
        all.add(&DATA_POINTS, self.data_points.clone());
        all.add(&PUSH_DURATION, self.duration.clone());
        all.add(&LAST_DELIVERY_TIMESTAMP, self.last_delivery.clone());
    }
}
