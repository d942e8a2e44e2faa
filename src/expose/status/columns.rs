//! Columns of the VM table.

use std::cmp::Ordering;

use super::format::{count, number, percent};
use crate::diagnosis::cause::{self, Unit};
use crate::diagnosis::{Cause, VmView};

/// A column; the table can be sorted by each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum PageColumn {
    Name,
    /// Score of the VM's worst cause.
    #[default]
    Worst,
    /// Score of the worst cause that another VM has because of this one.
    Pushes,
    Vcpus,
    Time,
    Cpi,
    Frequency,
    Migrations,
    Cause(Cause),
}

/// Columns that stand before a cause's.
const BEFORE: [(Cause, PageColumn); 2] = [
    (Cause::CpiPeers, PageColumn::Cpi),
    (Cause::Exits, PageColumn::Frequency),
];

/// Key, title, tooltip, unit and value of a column.
type Plain = (
    &'static str,
    &'static str,
    &'static str,
    Unit,
    fn(&VmView) -> Option<f64>,
);

impl PageColumn {
    /// All columns in order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let first = [
            Self::Name,
            Self::Worst,
            Self::Pushes,
            Self::Vcpus,
            Self::Time,
        ];
        let of_cause = |cause: Cause| {
            let before = BEFORE.into_iter().filter(move |(at, _)| *at == cause);
            before.map(|(_, column)| column).chain([Self::Cause(cause)])
        };
        let causes = Cause::ALL.into_iter().flat_map(of_cause);
        first.into_iter().chain(causes).chain([Self::Migrations])
    }

    pub(super) fn info(self) -> cause::CauseColumn {
        let (key, title, help, unit, value): Plain = match self {
            Self::Name => ("name", "VM", "Name of the VM", Unit::Count, |_| None),
            Self::Worst => (
                "worst",
                "Worst",
                "Its worst cause, as a multiple of the threshold",
                Unit::Multiple,
                |vm| vm.causes.first().map(|cause| cause.score),
            ),
            Self::Pushes => (
                "pushes",
                "Pushes others",
                "The worst cause of another VM that it slows down, as a multiple of the threshold",
                Unit::Multiple,
                |vm| Some(vm.pushes.first().map_or(0.0, |push| push.score)),
            ),
            Self::Vcpus => ("vcpus", "vCPUs", "vCPUs", Unit::Count, |vm| {
                Some(vm.vcpu_count() as f64)
            }),
            Self::Time => (
                "time",
                "Cores",
                "Cores that its vCPUs use",
                Unit::Ratio,
                |vm| vm.numbers.time,
            ),
            Self::Cpi => (
                "cpi",
                "CPI",
                "Cycles per instruction in the guest",
                Unit::Ratio,
                |vm| vm.numbers.cpi,
            ),
            Self::Frequency => (
                "frequency",
                "Clock",
                "Frequency of its cores, as a multiple of the nominal frequency",
                Unit::Ratio,
                |vm| vm.frequency,
            ),
            Self::Migrations => (
                "migrations",
                "Moves",
                "Moves of its vCPUs to another CPU, per second",
                Unit::Number,
                |vm| vm.numbers.migrations,
            ),
            Self::Cause(cause) => return cause.info().column,
        };
        cause::CauseColumn {
            key,
            title,
            help,
            unit,
            value,
        }
    }

    /// The VM's value; `None` if unknown.
    pub(super) fn value(self, vm: &VmView) -> Option<f64> {
        (self.info().value)(vm)
    }

    /// The value as text; `None` if unknown.
    pub(super) fn text(self, vm: &VmView) -> Option<String> {
        let value = self.value(vm)?;
        Some(match self.info().unit {
            Unit::Share => percent(value),
            Unit::Multiple => format!("{}×", number(value)),
            Unit::Ratio => format!("{value:.2}"),
            Unit::Number => number(value),
            Unit::Count => count(value),
        })
    }

    /// The score that the column shows by its color; 0 if it shows none.
    pub(super) fn score(self, vm: &VmView) -> f64 {
        let score = match self {
            Self::Worst | Self::Pushes => self.value(vm),
            Self::Cause(cause) => vm.score(cause),
            _ => None,
        };
        score.unwrap_or(0.0)
    }

    /// Orders VMs by value, unknown first. Equal ones keep the view's order, which is by name.
    pub(super) fn compare(self, a: &VmView, b: &VmView) -> Ordering {
        match self {
            Self::Name => a.name.cmp(&b.name),
            _ => {
                let value = |vm| self.value(vm).unwrap_or(f64::NEG_INFINITY);
                value(a).total_cmp(&value(b))
            }
        }
    }
}
