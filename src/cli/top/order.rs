//! Selects and sorts rows.

use std::cmp::Ordering;

use super::column::{Column, Row, Table};
use crate::diagnosis::{View, VmView};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: Column,
    pub(super) reversed: bool,
}

/// Rows of a table: of the opened VM, else of VMs whose name contains the filter's text.
pub(super) fn rows(
    view: &View,
    table: Table,
    sort: Sort,
    opened: Option<&str>,
    filter: &str,
) -> Vec<Row> {
    let filter = filter.to_lowercase();
    let wanted = |vm: &VmView| match opened {
        Some(name) => vm.name == name,
        None => filter.is_empty() || vm.name.to_lowercase().contains(&filter),
    };
    let vms = view.vms.iter().enumerate().filter(|(_, vm)| wanted(vm));
    let rows = match table {
        Table::Vms => vms.map(|(vm, _)| Row { vm, vcpu: None }).collect(),
        Table::Vcpus => vms
            .flat_map(|(vm, of_vm)| (0..of_vm.vcpus.len()).map(move |n| Row { vm, vcpu: Some(n) }))
            .collect(),
    };
    sorted(rows, view, sort)
}

/// Sorted by the column's number, unknown values last in both directions; equal ones by VM and
/// vCPU.
fn sorted(rows: Vec<Row>, view: &View, Sort { column, reversed }: Sort) -> Vec<Row> {
    let number = |row: &Row| column.number(row.subject(view)?);
    let mut keyed: Vec<(Option<f64>, Row)> =
        rows.into_iter().map(|row| (number(&row), row)).collect();
    let descends = column.ascends() == reversed;
    keyed.sort_by(|(a, at), (b, bt)| {
        let by_place = by_place(view, *at, *bt);
        match column {
            Column::Vm if descends => by_place.reverse(),
            Column::Vm => by_place,
            _ => unknown_last(*a, *b, descends).then(by_place),
        }
    });
    keyed.into_iter().map(|(_, row)| row).collect()
}

fn unknown_last(a: Option<f64>, b: Option<f64>, descends: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if descends => b.total_cmp(&a),
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

fn by_place(view: &View, a: Row, b: Row) -> Ordering {
    let name = |row: Row| view.vms.get(row.vm).map_or("", |vm| &vm.name);
    natural(name(a), name(b)).then((a.vm, a.vcpu).cmp(&(b.vm, b.vcpu)))
}

/// Natural order: digits compare as numbers, web-2 before web-10.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (of_a, rest_a) = piece(a);
        let (of_b, rest_b) = piece(b);
        if of_a.is_empty() || of_b.is_empty() {
            return a.len().cmp(&b.len());
        }
        let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = if is_number(of_a) && is_number(of_b) {
            let (x, y) = (of_a.trim_start_matches('0'), of_b.trim_start_matches('0'));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            of_a.cmp(of_b)
        };
        // Equal numbers may differ in length: 07 and 7.
        let order = order.then_with(|| of_a.len().cmp(&of_b.len()));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The first run of digits or of other characters, and the rest.
fn piece(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits);
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let mut names = [
            "web-10", "web-2", "web", "api-07", "api-7", "web-2b", "10", "9",
        ];
        names.sort_by(|a, b| natural(a, b));
        let expected = [
            "9", "10", "api-7", "api-07", "web", "web-2", "web-2b", "web-10",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn unknown_values_sort_last_in_both_directions() {
        let mut numbers = [None, Some(1.0), Some(3.0), None, Some(2.0)];
        numbers.sort_by(|a, b| unknown_last(*a, *b, true));
        assert_eq!(numbers, [Some(3.0), Some(2.0), Some(1.0), None, None]);
        numbers.sort_by(|a, b| unknown_last(*a, *b, false));
        assert_eq!(numbers, [Some(1.0), Some(2.0), Some(3.0), None, None]);
    }
}
