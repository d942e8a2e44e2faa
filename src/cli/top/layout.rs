//! Which columns fit, and how wide each is.

use super::column::{Column, Table};
use super::history::SECONDS;

/// Names get this many columns where they need them, and more on a wide screen.
const NAME: usize = 14;

/// Narrowest graph. All widths of a graph divide its minute.
const GRAPHS: [usize; 5] = [60, 30, 20, 15, 12];

/// Columns of the screen between two columns of the table.
pub(super) const GAP: usize = 1;

/// A table's columns on a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// The columns and their widths.
    pub(super) columns: Vec<(Column, usize)>,
    /// Width of the graph at the end; none where there is no room.
    pub(super) graph: Option<usize>,
}

/// Lays a table out for a width and names that are so long.
pub(super) fn layout(table: Table, width: usize, longest: usize, graph: bool) -> Layout {
    let most = NAME.max(width / 5);
    let name = longest.max(Column::Vm.title().len()).min(most);
    let narrowest = GRAPHS[GRAPHS.len() - 1];
    // The graph of a vCPU is worth more than its last columns, that of a VM less than its causes.
    let kept = match graph && table == Table::Vcpus && width >= 60 {
        true => narrowest + GAP,
        false => 0,
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
