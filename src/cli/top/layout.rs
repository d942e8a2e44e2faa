//! Chooses the columns that fit, and their widths.

use super::column::{Column, Table};
use super::history::SECONDS;

/// Width up to which names push out other columns; they get more only on a wide screen.
const NAME: usize = 14;

/// Widths of the graph; each divides its 60 s.
const GRAPHS: [usize; 5] = [60, 30, 20, 15, 12];

/// Characters between two columns.
pub(super) const GAP: usize = 1;

/// The columns of a table on a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Columns with their widths.
    pub(super) columns: Vec<(Column, usize)>,
    /// Width of the graph at the end; `None` if it does not fit.
    pub(super) graph: Option<usize>,
}

/// Fits a table into `width` characters; the longest name has `longest`.
pub(super) fn layout(table: Table, width: usize, longest: usize, graph: bool) -> Layout {
    let most = NAME.max(width / 5);
    let name = longest.max(Column::Vm.title().len()).min(most);
    let narrowest = GRAPHS[GRAPHS.len() - 1];
    // For vCPUs the graph takes precedence over the last columns, for VMs the causes do.
    let kept = if graph && table == Table::Vcpus && width >= 60 {
        narrowest + GAP
    } else {
        0
    };
    let mut columns = vec![(Column::Vm, name)];
    let mut used = name;
    for column in table.columns().iter().skip(1) {
        let more = GAP + column.width();
        if used + more + kept > width {
            break;
        }
        columns.push((*column, column.width()));
        used += more;
    }
    let room = width.saturating_sub(used + GAP).min(SECONDS);
    let fits = GRAPHS.into_iter().find(|columns| *columns <= room);
    Layout {
        columns,
        graph: fits.filter(|_| graph),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_leave_from_the_right_and_the_graph_stays() {
        let titles = |width| {
            let layout = layout(Table::Vcpus, width, 10, true);
            let titles: Vec<&str> = layout.columns.iter().map(|(c, _)| c.title()).collect();
            (titles.join(" "), layout.graph)
        };
        assert_eq!(titles(20), ("VM vCPU CPU".to_owned(), None));
        assert_eq!(
            titles(60),
            ("VM vCPU CPU core node time delay%".to_owned(), Some(15))
        );
        let (all, graph) = titles(160);
        assert!(all.ends_with("moves/s counted"), "{all}");
        assert_eq!(graph, Some(60));
    }

    #[test]
    fn nothing_is_wider_than_the_screen() {
        for table in [Table::Vcpus, Table::Vms] {
            for width in 14..200 {
                let Layout { columns, graph } = layout(table, width, 500, true);
                let used: usize = columns.iter().map(|(_, width)| width + GAP).sum();
                let used = used - GAP + graph.map_or(0, |graph| graph + GAP);
                assert!(used <= width, "{table:?} {width}: {used}");
            }
        }
    }
}
