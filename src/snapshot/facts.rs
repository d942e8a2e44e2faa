//! Facts of the background collectors about VMs and the host, as rows of the snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{metrics, Labels, Subject};
use crate::discover::{Inventory, Vm};
use crate::engine::{Fact, Origin, SourceInfo, SourceState, VmFacts};
use crate::metric::{FactValue, Metric};

/// One fact about a VM or the host: a sample or a histogram.
#[derive(Debug, Clone)]
pub struct FactRow {
    /// The family of the sample.
    pub metric: &'static Metric,
    /// The vCPU, VM or host.
    pub subject: Subject,
    /// `vm`, if the fact is about a VM, and the fact's own labels.
    pub labels: Arc<Labels>,
    /// The latest that was read.
    pub value: FactValue,
    /// Where a counter started from 0.
    pub origin: Origin,
    /// End of the first tick that had this value, less than one tick after the read. A value that
    /// is read again unchanged keeps its time.
    pub since: Instant,
}

/// Interval at which older rows rotate, see [`FactRows::before`]: twice the usual period of a
/// background source, so that two readings can be compared.
const ROTATION: Duration = Duration::from_secs(30);

/// Renders facts as rows. An unchanged list of facts keeps its rows: a collector that replaces one
/// list of thousands costs the rendering of that list and a copy of pointers.
#[derive(Debug, Default)]
pub(crate) struct FactRows {
    of: Vec<Arc<VmFacts>>,
    inventory: Arc<Inventory>,
    /// Keyed by the address of the list; [`Rendered`] holds the list, so its address is not reused.
    rendered: HashMap<usize, Rendered>,
    rows: Arc<[FactRow]>,
    older: Option<Older>,
}

/// Rows of earlier ticks.
#[derive(Debug)]
struct Older {
    before: Arc<[FactRow]>,
    /// Replace `before` when they are old enough.
    next: Arc<[FactRow]>,
    next_is_of: Instant,
}

/// The rendered facts of one list: of one VM, or of the host.
#[derive(Debug)]
struct Rendered {
    _facts: Arc<[Fact]>,
    vm: Option<Arc<Vm>>,
    /// Each row with its metric's position in the catalog.
    rows: Box<[(usize, FactRow)]>,
}

impl FactRows {
    /// Rows of all facts about the host and the VMs in `inventory`, in catalog order; within a
    /// metric, in inventory order.
    pub(crate) fn follow(
        &mut self,
        facts: &[Arc<VmFacts>],
        inventory: &Arc<Inventory>,
        now: Instant,
    ) -> &Arc<[FactRow]> {
        let as_before = self.of.len() == facts.len()
            && self.of.iter().zip(facts).all(|(a, b)| Arc::ptr_eq(a, b))
            && Arc::ptr_eq(&self.inventory, inventory);
        if !as_before {
            self.of = facts.to_vec();
            self.inventory = inventory.clone();
            self.render(now);
        }
        self.rotate(now);
        &self.rows
    }

    /// The rows that [`follow`](Self::follow) returned last.
    pub(crate) fn now(&self) -> &Arc<[FactRow]> {
        &self.rows
    }

    /// The rows of 30 to 60 s before; of less just after the start.
    pub(crate) fn before(&self) -> &Arc<[FactRow]> {
        self.older
            .as_ref()
            .map_or(&self.rows, |older| &older.before)
    }

    fn rotate(&mut self, now: Instant) {
        let rows = &self.rows;
        let older = self.older.get_or_insert_with(|| Older {
            before: rows.clone(),
            next: rows.clone(),
            next_is_of: now,
        });
        if now.saturating_duration_since(older.next_is_of) >= ROTATION {
            older.before = std::mem::replace(&mut older.next, rows.clone());
            older.next_is_of = now;
        }
    }

    /// State of each source of the facts.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &(SourceInfo, SourceState)> {
        self.of.iter().flat_map(|facts| &facts.sources)
    }

    fn render(&mut self, now: Instant) {
        let mut before = std::mem::take(&mut self.rendered);
        let mut order = Vec::new();
        let of_vm = |vm| {
            self.of
                .iter()
                .filter_map(move |facts: &Arc<VmFacts>| facts.vms.get(vm))
        };
        let vms = self.inventory.vms.iter();
        let of_vms = vms.flat_map(|vm| of_vm(&vm.key).flatten().map(move |list| (Some(vm), list)));
        let of_host = self.of.iter().flat_map(|facts| &facts.host);
        let lists = of_vms.chain(of_host.map(|list| (None, list)));
        for (vm, facts) in lists.filter(|(_, facts)| !facts.is_empty()) {
            let address = facts.as_ptr() as usize;
            let known = before.remove(&address).filter(|known| known.is_of(vm));
            let rendered = known.unwrap_or_else(|| Rendered::new(vm, facts, now));
            self.rendered.insert(address, rendered);
            order.push(address);
        }
        let lists = order
            .iter()
            .filter_map(|address| self.rendered.get(address));
        let mut rows: Vec<&(usize, FactRow)> = lists.flat_map(|list| &list.rows).collect();
        // A stable sort: within a metric, VMs stay in inventory order.
        rows.sort_by_key(|(position, _)| *position);
        self.rows = rows.into_iter().map(|(_, row)| row.clone()).collect();
    }
}

impl Rendered {
    fn new(vm: Option<&Arc<Vm>>, facts: &Arc<[Fact]>, now: Instant) -> Self {
        Self {
            _facts: facts.clone(),
            vm: vm.cloned(),
            rows: facts.iter().map(|fact| row(vm, fact, now)).collect(),
        }
    }

    /// Whether the rows carry this VM's name.
    fn is_of(&self, vm: Option<&Arc<Vm>>) -> bool {
        self.vm.as_ref().map(|vm| &vm.name) == vm.map(|vm| &vm.name)
    }
}

fn row(vm: Option<&Arc<Vm>>, fact: &Fact, since: Instant) -> (usize, FactRow) {
    let name = vm.map(|vm| ("vm", vm.name.clone().into()));
    let labels = name.into_iter().chain(fact.labels.iter().cloned());
    let labels = Arc::new(Labels::new(labels));
    let row = FactRow {
        metric: fact.metric,
        subject: vm.map_or(Subject::Host, |vm| subject(vm, &labels)),
        labels,
        value: fact.value.clone(),
        origin: fact.origin,
        since,
    };
    (metrics::position(fact.metric), row)
}

/// The vCPU that the labels name, else the VM.
fn subject(vm: &Vm, labels: &Labels) -> Subject {
    let index: Option<u32> = labels.number("vcpu");
    let vcpu = index.and_then(|index| vm.vcpus.iter().find(|vcpu| vcpu.index == index));
    vcpu.map_or(Subject::Vm(vm.key), |vcpu| Subject::Vcpu(vm.key, *vcpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(pid: i32, name: &str) -> Arc<Vm> {
        Arc::new(Vm {
            name: name.to_owned(),
            ..crate::engine::fixture::vm(pid, pid, 1)
        })
    }

    fn fact(metric: &'static Metric, value: u64) -> Fact {
        Fact {
            metric,
            labels: vec![("stat", "x\"y".into())],
            value: FactValue::Int(value),
            origin: Origin::Exporter,
        }
    }

    fn inventory(vms: Vec<Arc<Vm>>) -> Arc<Inventory> {
        Arc::new(Inventory {
            vms,
            ..Inventory::default()
        })
    }

    #[test]
    fn rows_are_in_catalog_order_and_then_in_the_inventorys() {
        // Two catalog entries stand in for facts, the later one first.
        let (early, late) = (&metrics::VM_VCPUS, &metrics::SERIES);
        let inventory = inventory(vec![vm(2, "a"), vm(1, "b")]);
        let known = |n| vec![Arc::from([fact(late, n), fact(early, n)])];
        let facts = VmFacts {
            vms: HashMap::from([1, 2, 3].map(|pid| (vm(pid, "").key, known(pid as u64)))),
            host: vec![Arc::from([fact(late, 7)])],
            sources: Vec::new(),
        };
        let mut rows = FactRows::default();
        let rows = rows.follow(&[Arc::new(facts)], &inventory, Instant::now());
        let reported: Vec<_> = rows.iter().map(|r| (r.metric, r.labels.text())).collect();
        let (a, b) = (r#"vm="a",stat="x\"y""#, r#"vm="b",stat="x\"y""#);
        let host = r#"stat="x\"y""#;
        let expected = [(early, a), (early, b), (late, a), (late, b), (late, host)];
        assert_eq!(reported, expected);
        assert_eq!(rows[0].value, FactValue::Int(2));
    }

    /// Each row as text, with its value and the address of its labels.
    fn reported(rows: &[FactRow]) -> Vec<(String, FactValue, *const Labels)> {
        let line = |row: &FactRow| {
            let labels = row.labels.text().to_owned();
            (labels, row.value.clone(), Arc::as_ptr(&row.labels))
        };
        rows.iter().map(line).collect()
    }

    #[test]
    fn only_new_lists_are_rendered() {
        let list = |n| -> Arc<[Fact]> { Arc::from([fact(&metrics::VM_VCPUS, n)]) };
        let facts = |lists: &[&Arc<[Fact]>]| {
            let known = lists.iter().map(|list| (*list).clone()).collect();
            Arc::new(VmFacts {
                vms: HashMap::from([(vm(1, "").key, known)]),
                host: Vec::new(),
                sources: Vec::new(),
            })
        };
        let (old, stays, new) = (list(1), list(2), list(3));
        let now = Instant::now();
        let mut rows = FactRows::default();
        let here = inventory(vec![vm(1, "a")]);
        let published = [facts(&[&old]), facts(&[&stays])];
        let before = reported(rows.follow(&published, &here, now));
        let published = [facts(&[&new]), facts(&[&stays])];
        let after = reported(rows.follow(&published, &here, now));
        assert_eq!(after[1], before[1], "the same labels");
        assert_eq!(after[0].1, FactValue::Int(3));
        let renamed = inventory(vec![vm(1, "b")]);
        let after = reported(rows.follow(&published, &renamed, now));
        assert!(after.iter().all(|(labels, ..)| labels.contains("vm=\"b\"")));
        assert!(rows
            .follow(&published, &inventory(Vec::new()), now)
            .is_empty());
        assert!(
            rows.rendered.is_empty(),
            "no rows are kept for a VM that ended"
        );
    }

    #[test]
    fn older_rows_are_kept_for_deltas() {
        let (mut rows, start) = (FactRows::default(), Instant::now());
        let here = inventory(vec![vm(1, "a")]);
        let mut value_before = |second: u64| {
            let list: Arc<[Fact]> = Arc::from([fact(&metrics::VM_VCPUS, second)]);
            let facts = VmFacts {
                vms: HashMap::from([(vm(1, "").key, vec![list])]),
                ..VmFacts::default()
            };
            let now = start + Duration::from_secs(second);
            assert_eq!(rows.follow(&[Arc::new(facts)], &here, now)[0].since, now);
            rows.before()[0].value.clone()
        };
        let values = [0, 15, 30, 45, 60, 75, 90].map(&mut value_before);
        assert_eq!(values, [0, 0, 0, 0, 30, 30, 60].map(FactValue::Int));
    }
}
