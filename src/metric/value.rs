//! Values of series.

use std::sync::Arc;

use super::Buckets;

/// Value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// An integer.
    Int(u64),
    /// Nanoseconds, exposed as seconds.
    Nanoseconds(u64),
    /// Any other number.
    Float(f64),
}

impl Value {
    /// The value in the metric's unit.
    pub fn as_f64(self) -> f64 {
        match self {
            Value::Int(n) => n as f64,
            Value::Nanoseconds(n) => seconds(n),
            Value::Float(x) => x,
        }
    }
}

/// Nanoseconds as the nearest float in seconds, which is also what a reader of the exact decimal
/// gets.
fn seconds(ns: u64) -> f64 {
    const NS_PER_S: u64 = 1_000_000_000;
    match ns >> f64::MANTISSA_DIGITS {
        // Exact as a float, so there is only one rounding.
        0 => ns as f64 / 1e9,
        // The rounding error of the fraction is below 2^-54; no fraction of whole nanoseconds comes
        // that close to a point where the rounding of the sum changes.
        _ => (ns / NS_PER_S) as f64 + (ns % NS_PER_S) as f64 / 1e9,
    }
}

/// Value of a fact or of one of the exporter's own metrics: a sample, or a histogram.
#[derive(Debug, Clone, PartialEq)]
pub enum FactValue {
    /// An integer in the metric's unit.
    Int(u64),
    /// Nanoseconds, exposed as seconds.
    Nanoseconds(u64),
    /// Any other number in the metric's unit.
    Float(f64),
    /// Durations in buckets, exposed as seconds.
    Histogram(Arc<Buckets>),
}

impl FactValue {
    /// The sample.
    ///
    /// # Errors
    /// The buckets of a histogram.
    pub fn sample(&self) -> Result<Value, &Buckets> {
        match self {
            Self::Int(n) => Ok(Value::Int(*n)),
            Self::Nanoseconds(n) => Ok(Value::Nanoseconds(*n)),
            Self::Float(x) => Ok(Value::Float(*x)),
            Self::Histogram(buckets) => Err(buckets),
        }
    }

    /// Number of series of this value.
    pub fn series(&self) -> usize {
        self.sample().map_or_else(Buckets::series, |_| 1)
    }
}
