//! One walk over the picture, metric by metric in the catalogue's order: every output is a visitor.

use super::catalog::Metric;
use super::Labels;

/// A sample's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(u64),
    /// Nanoseconds, to be shown as seconds.
    Nanoseconds(u64),
    /// Any other number.
    Float(f64),
}

impl Value {
    /// The value in the metric's unit.
    pub fn as_f64(self) -> f64 {
        match self {
            Value::Int(n) => n as f64,
            Value::Nanoseconds(n) => n as f64 / 1e9,
            Value::Float(x) => x,
        }
    }
}

/// Receives the picture, metric by metric.
pub trait Visitor {
    /// A metric begins. Only metrics with at least one sample are announced.
    fn metric(&mut self, metric: &'static Metric);
    /// A sample of the metric announced last; its labels are `row`'s and then `fixed`'s.
    fn sample(&mut self, row: &Labels, fixed: &Labels, value: Value);
}
