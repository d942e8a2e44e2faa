//! Columns of both tables: title, width, and the text of a row.

use std::sync::LazyLock;

use crate::diagnosis::{Cause, Numbers, VcpuView, View, VmView};

/// Shown for an unknown value.
pub(super) const UNKNOWN: &str = "-";

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// A row for each vCPU.
    Vcpus,
    /// A row for each VM.
    Vms,
}

/// A row, as indices into the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Index into [`View::vms`].
    pub(super) vm: usize,
    /// Index into [`VmView::vcpus`]; `None` for the row of a VM.
    pub(super) vcpu: Option<usize>,
}

/// What a row shows: a VM, or one of its vCPUs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) vm: &'a VmView,
    pub(super) vcpu: Option<&'a VcpuView>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Vm,
    Vcpu,
    Cpu,
    Core,
    Node,
    /// Number of the VM's vCPUs.
    Vcpus,
    /// Number of NUMA nodes that the VM uses.
    Nodes,
    Time,
    Delay,
    Cpi,
    Mpki,
    Exits,
    Migrations,
    Counted,
    /// Score of the VM's worst cause.
    Worst,
    /// Score of the worst cause that another VM has because of this one.
    Pushes,
    Cause(Cause),
}

const VCPUS: [Column; 12] = [
    Column::Vm,
    Column::Vcpu,
    Column::Cpu,
    Column::Core,
    Column::Node,
    Column::Time,
    Column::Delay,
    Column::Cpi,
    Column::Mpki,
    Column::Exits,
    Column::Migrations,
    Column::Counted,
];

/// Columns of the table of VMs; causes are in the order of [`Cause::ALL`].
static VMS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let first = [
        Column::Vm,
        Column::Vcpus,
        Column::Time,
        Column::Worst,
        Column::Pushes,
    ];
    let causes = Cause::ALL.map(Column::Cause);
    let last = [Column::Nodes, Column::Delay, Column::Cpi];
    first.into_iter().chain(causes).chain(last).collect()
});

impl Table {
    /// Columns, the most useful first: a narrow screen drops them from the right.
    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Vcpus => &VCPUS,
            Self::Vms => &VMS,
        }
    }

    /// The default order.
    pub(super) fn first_sort(self) -> Column {
        match self {
            Self::Vcpus => Column::Delay,
            Self::Vms => Column::Worst,
        }
    }
}

impl Row {
    /// The VM or vCPU of this row; `None` if the view does not have it.
    pub(super) fn subject(self, view: &View) -> Option<Subject<'_>> {
        let vm = view.vms.get(self.vm)?;
        let vcpu = match self.vcpu {
            Some(n) => Some(vm.vcpus.get(n)?),
            None => None,
        };
        Some(Subject { vm, vcpu })
    }
}

impl<'a> Subject<'a> {
    fn numbers(self) -> &'a Numbers {
        self.vcpu.map_or(&self.vm.numbers, |vcpu| &vcpu.numbers)
    }
}

impl Column {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Vm => "VM",
            Self::Vcpu => "vCPU",
            Self::Cpu => "CPU",
            Self::Core => "core",
            Self::Node => "node",
            Self::Vcpus => "vCPUs",
            Self::Nodes => "nodes",
            Self::Time => "time",
            Self::Delay => "delay%",
            Self::Cpi => "CPI",
            Self::Mpki => "MPKI",
            Self::Exits => "exits/s",
            Self::Migrations => "moves/s",
            Self::Counted => "counted",
            Self::Worst => "worst",
            Self::Pushes => "pushes",
            Self::Cause(cause) => cause.info().short,
        }
    }

    /// Width in characters. The name column grows to fit its names.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Time | Self::Cpi | Self::Mpki | Self::Worst | Self::Pushes | Self::Cause(_) => {
                self.title().len().max(5)
            }
            _ => self.title().len(),
        }
    }

    /// Whether the lowest value comes first by default: for names and places, not for load and
    /// causes.
    pub(super) fn ascends(self) -> bool {
        matches!(
            self,
            Self::Vm | Self::Vcpu | Self::Cpu | Self::Core | Self::Node
        )
    }

    /// The value that rows are sorted by; `None` if unknown. Names have no number: they are sorted
    /// separately.
    pub(super) fn number(self, of: Subject<'_>) -> Option<f64> {
        let place = || of.vcpu?.place;
        match self {
            Self::Vm => None,
            Self::Vcpu => of.vcpu.map(|vcpu| f64::from(vcpu.index)),
            Self::Cpu => place().map(|place| f64::from(place.cpu)),
            Self::Core => place().map(|place| f64::from(place.core)),
            Self::Node => place().map(|place| f64::from(place.node)),
            Self::Vcpus => Some(of.vm.vcpu_count() as f64),
            Self::Nodes => of.vm.nodes_used.map(|nodes| nodes as f64),
            Self::Time => of.numbers().time,
            Self::Delay => of.numbers().delay_ratio,
            Self::Cpi => of.numbers().cpi,
            Self::Mpki => of.numbers().cache_mpki,
            Self::Exits => of.numbers().exits,
            Self::Migrations => of.numbers().migrations,
            Self::Counted => of.numbers().counted,
            Self::Worst => of.vm.causes.first().map(|cause| cause.score),
            Self::Pushes => Some(of.vm.pushes.first().map_or(0.0, |push| push.score)),
            Self::Cause(cause) => of.vm.score(cause),
        }
    }

    /// The text of a cell.
    pub(super) fn text(self, of: Subject<'_>) -> String {
        if self == Self::Vm {
            return of.vm.name.clone();
        }
        let Some(number) = self.number(of) else {
            return UNKNOWN.to_owned();
        };
        match self {
            Self::Time | Self::Cpi => fixed(number, 2),
            Self::Mpki => fixed(number, 1),
            Self::Delay => fixed(number * 100.0, 1),
            Self::Counted => format!("{}%", fixed(number * 100.0, 0)),
            Self::Exits => compact(number, 0),
            Self::Migrations => compact(number, 1),
            // The mark repeats what the color shows: the cause exceeds its threshold.
            Self::Worst | Self::Pushes | Self::Cause(_) if number >= 1.0 => {
                format!("{}!", fixed(number, 1))
            }
            Self::Worst | Self::Pushes | Self::Cause(_) => fixed(number, 1),
            _ => compact(number, 0),
        }
    }
}

/// Fixed decimals for small numbers; large ones are shortened by [`compact`].
fn fixed(number: f64, decimals: usize) -> String {
    match number.abs() {
        n if n < 100.0 => format!("{number:.decimals$}"),
        _ => compact(number, 0),
    }
}

/// At most five characters: 999, 12.3k, 4.0M.
fn compact(number: f64, decimals: usize) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")];
    match number.abs() {
        n if n >= 1e15 => ">999T".to_owned(),
        n if n < 100.0 => format!("{number:.decimals$}"),
        n if n < 1e4 => format!("{number:.0}"),
        n => {
            let unit = units.iter().find(|(least, _)| n >= *least);
            let (least, name) = unit.copied().unwrap_or((1.0, ""));
            let scale = if name == "k" { 1e3 } else { least };
            let scaled = number / scale;
            match scaled.abs() {
                s if s < 100.0 => format!("{scaled:.1}{name}"),
                _ => format!("{scaled:.0}{name}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_fit() {
        let texts = [0.0, 7.25, 99.94, 1234.0, 45_678.0, 123_456.0, 1.5e6, 9e300];
        let short = texts.map(|n| compact(n, 1));
        assert_eq!(
            short,
            ["0.0", "7.2", "99.9", "1234", "45.7k", "123k", "1.5M", ">999T"]
        );
        for n in [
            0.0, 1.0, 99.99, 999.9, 9_999.9, 99_999.0, 999_999.0, 1e9, 1e14,
        ] {
            assert!(compact(n, 1).len() <= 6, "{}", compact(n, 1));
            assert!(fixed(n, 2).len() <= 6, "{}", fixed(n, 2));
        }
    }

    #[test]
    fn every_column_has_room_for_its_title() {
        for table in [Table::Vcpus, Table::Vms] {
            assert!(table.columns().contains(&table.first_sort()));
            for column in table.columns() {
                assert!(column.title().len() <= column.width());
            }
        }
    }
}
