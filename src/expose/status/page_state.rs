//! The state of the page: order of VMs, open rows, meaning of colors. It is all in the URL, so the
//! page works without a script, and reloads and links keep it.

use std::collections::BTreeSet;

use super::columns::PageColumn;
use crate::expose::query;

/// Most VMs with open rows.
const MAX_OPEN: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PageState {
    pub(super) sort: PageColumn,
    /// Ascending order.
    pub(super) up: bool,
    pub(super) colour: Colour,
    /// Names of VMs with open rows.
    pub(super) open: BTreeSet<String>,
}

/// What the colors of vCPUs show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Colour {
    #[default]
    Delay,
    Cpi,
}

impl Colour {
    pub(super) const ALL: [Self; 2] = [Self::Delay, Self::Cpi];

    /// The value in the URL.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Cpi => "cpi",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Delay => "Delay",
            Self::Cpi => "Cycles per instruction",
        }
    }
}

impl PageState {
    /// Parses a query; ignores invalid parts.
    pub(super) fn parse(query: &str) -> Self {
        let mut look = Self::default();
        let mut toggled = None;
        for pair in query::pairs(query) {
            match pair {
                ("sort", value) => look.sort(&value),
                ("colour", value) => {
                    let known = Colour::ALL.into_iter().find(|c| c.key() == value);
                    look.colour = known.unwrap_or(look.colour);
                }
                ("open", value) => look.open(value),
                ("toggle", value) => toggled = Some(value),
                _ => {}
            }
        }
        if let Some(vm) = toggled {
            if !look.open.remove(&vm) {
                look.open(vm);
            }
        }
        look
    }

    fn sort(&mut self, value: &str) {
        let (key, up) = match value.strip_suffix(UP) {
            Some(key) => (key, true),
            None => (value, false),
        };
        if let Some(column) = PageColumn::all().find(|c| c.info().key == key) {
            (self.sort, self.up) = (column, up);
        }
    }

    fn open(&mut self, vm: String) {
        if self.open.len() < MAX_OPEN {
            self.open.insert(vm);
        }
    }

    /// The value of `sort` after a click on a column's head; reverses the current column.
    pub(super) fn sort_by(&self, column: PageColumn) -> String {
        let up = if column == self.sort {
            !self.up
        } else {
            column == PageColumn::Name
        };
        sort_value(column, up)
    }

    /// The state as form fields.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("sort", sort_value(self.sort, self.up)),
            ("colour", self.colour.key().to_owned()),
        ];
        fields.extend(self.open.iter().map(|vm| ("open", vm.clone())));
        fields
    }
}

/// Suffix of `sort` for ascending order.
const UP: &str = ".up";

fn sort_value(column: PageColumn, up: bool) -> String {
    format!("{}{}", column.info().key, if up { UP } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Cause;

    #[test]
    fn invalid_parts_of_a_query_are_ignored() {
        let look = PageState::parse("sort=delay.up&colour=cpi&open=a%26b&open=c+d&open=e&toggle=e");
        assert_eq!(
            (look.sort, look.up),
            (PageColumn::Cause(Cause::Delay), true)
        );
        assert_eq!(look.colour, Colour::Cpi);
        assert!(look.open.iter().eq(["a&b", "c d"]));
        for nonsense in ["", "&&=&", "sort=x&colour=%ff&sort", "x=y"] {
            assert_eq!(
                PageState::parse(nonsense),
                PageState::default(),
                "{nonsense}"
            );
        }
        let toggled = PageState::parse("open=a&toggle=b");
        assert!(toggled.open.iter().eq(["a", "b"]));
        let many: String = (0..1000).map(|n| format!("open={n}&")).collect();
        assert_eq!(PageState::parse(&many).open.len(), MAX_OPEN);
    }

    #[test]
    fn a_second_press_sorts_the_other_way_round() {
        let look = PageState::parse("sort=delay");
        assert_eq!(look.sort_by(PageColumn::Cause(Cause::Delay)), "delay.up");
        assert_eq!(look.sort_by(PageColumn::Cause(Cause::Exits)), "exits");
        assert_eq!(look.sort_by(PageColumn::Name), "name.up");
        assert_eq!(
            PageState::parse("sort=name.up").sort_by(PageColumn::Name),
            "name"
        );
    }
}
