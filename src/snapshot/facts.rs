//! What the slow lane knows of VMs, as rows of the picture.

use std::sync::Arc;

use super::catalog::{Metric, CATALOG};
use super::{Labels, Value};
use crate::discover::{Inventory, Vm};
use crate::sample::slow::{Fact, FactValue, VmFacts};

/// One sample about a VM.
#[derive(Debug, Clone)]
pub struct FactRow {
    /// The metric.
    pub metric: &'static Metric,
    /// `vm` and the fact's own labels.
    pub labels: Arc<Labels>,
    /// Its value.
    pub value: Value,
}

/// Rows of everything known of the VMs in `inventory`, in the catalogue's order. A fact whose
/// metric is not in the catalogue has no row.
pub fn rows(facts: &VmFacts, inventory: &Inventory) -> Arc<[FactRow]> {
    let of_vm = |vm: &Arc<Vm>| {
        let known = facts.vms.get(&vm.key).into_iter().flatten();
        let rows = known.flat_map(|facts| facts.iter());
        rows.filter_map(|fact| row(vm, fact)).collect::<Vec<_>>()
    };
    let mut rows: Vec<(usize, FactRow)> = inventory.vms.iter().flat_map(of_vm).collect();
    // Stable: within a metric the VMs stay in the inventory's order.
    rows.sort_by_key(|(position, _)| *position);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn row(vm: &Vm, fact: &Fact) -> Option<(usize, FactRow)> {
    let position = CATALOG.iter().position(|m| m.name == fact.metric)?;
    let own = fact.labels.iter();
    let own = own.map(|(name, value)| (*name, value.clone().into()));
    let labels = std::iter::once(("vm", vm.name.clone().into())).chain(own);
    let row = FactRow {
        metric: &CATALOG[position],
        labels: Arc::new(Labels::new(labels)),
        value: match fact.value {
            FactValue::Int(n) => Value::Int(n),
            FactValue::Nanoseconds(n) => Value::Nanoseconds(n),
            FactValue::Float(x) => Value::Float(x),
        },
    };
    Some((position, row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn vm(pid: i32, name: &str) -> Arc<Vm> {
        Arc::new(Vm {
            name: name.to_owned(),
            ..crate::sample::fixture::vm(pid, pid, 1)
        })
    }

    fn fact(metric: &'static str, value: u64) -> Fact {
        Fact {
            metric,
            labels: vec![("stat", "x\"y".to_owned())],
            value: FactValue::Int(value),
        }
    }

    #[test]
    fn rows_are_in_the_catalogues_order_and_then_in_the_inventorys() {
        // Two entries of the catalogue stand in for facts, the later one first.
        let (early, late) = ("kvm_vm_vcpus", "kvm_exporter_series");
        let inventory = Inventory {
            vms: vec![vm(2, "a"), vm(1, "b")],
            ..Inventory::default()
        };
        let known = |n| {
            vec![Arc::from([
                fact(late, n),
                fact(early, n),
                fact("no_such", n),
            ])]
        };
        let facts = VmFacts {
            vms: HashMap::from([1, 2, 3].map(|pid| (vm(pid, "").key, known(pid as u64)))),
            sources: Vec::new(),
        };
        let rows = rows(&facts, &inventory);
        let told: Vec<_> = rows
            .iter()
            .map(|r| (r.metric.name, r.labels.text()))
            .collect();
        let (a, b) = (r#"vm="a",stat="x\"y""#, r#"vm="b",stat="x\"y""#);
        assert_eq!(told, [(early, a), (early, b), (late, a), (late, b)]);
        assert_eq!(rows[0].value, Value::Int(2));
    }
}
