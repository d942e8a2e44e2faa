//! `list`: VMs, their vCPUs, and the CPU of each.

use std::borrow::Cow;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::top::source::{self, Address};
use super::{out, CommonArgs};
use crate::discover::{Inventory, Scanner, Vcpu, Vm};
use crate::host::roots::Roots;
use crate::host::thread::parse_stat;
use crate::host::topology::{Place, Topology};

mod remote;

const EXAMPLES: &str = "\
Examples:
  vcpu-exporter list                             this host, read now; needs root to see all VMs
  vcpu-exporter list --url http://kvm-07:9752    what the exporter there sees; needs no privilege
";

/// Flags of `list`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// Read from the exporter at http://HOST:PORT instead of from this host
    #[arg(long, value_name = "URL", value_parser = Address::parse)]
    url: Option<Address>,
    /// Print a JSON array with one object per vCPU
    #[arg(long)]
    json: bool,
}

/// One vCPU, or a VM whose vCPU threads are all unknown. The fields are the keys of `--json` and
/// must stay; null is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    vm: String,
    uuid: Option<String>,
    vmm: Cow<'static, str>,
    manager: Option<Cow<'static, str>>,
    pid: Option<i32>,
    vcpu: Option<u32>,
    tid: Option<i32>,
    cpu: Option<u32>,
    package: Option<i32>,
    core: Option<i32>,
    numa_node: Option<u32>,
    #[serde(skip)]
    name_source: Option<&'static str>,
}

pub(super) fn run(common: &CommonArgs, args: &ListArgs) -> anyhow::Result<()> {
    let roots = super::roots(&common.start()?.paths);
    let (rows, visibility_gaps) = match &args.url {
        Some(address) => {
            let view = source::ask(address)?;
            (remote::rows(&view), view.visibility_gaps)
        }
        None => {
            let topology = Arc::new(Topology::read(&roots, &Topology::default())?);
            let inventory = Scanner::new(roots.clone()).scan(&topology);
            let gaps = inventory.visibility_gaps.iter();
            let gaps = gaps.map(ToString::to_string).collect();
            (rows(&inventory, &roots), gaps)
        }
    };
    if args.json {
        out::print_json(&rows)?
    } else {
        out::print(&table(&rows, &visibility_gaps, out::width()))?
    }
    for blind_spot in &visibility_gaps {
        out::say(&format!("not seen: {}", out::printable(blind_spot)));
    }
    Ok(())
}

/// One row for each vCPU, in the order of the inventory.
fn rows(inventory: &Inventory, roots: &Roots) -> Vec<Row> {
    let topology = &inventory.topology;
    let of_vm = |vm: &Arc<Vm>| -> Vec<Row> {
        let of_vcpu = |vcpu: &Vcpu| {
            let cpu = cpu_now(roots, vm, vcpu);
            row(vm, Some(vcpu), cpu, topology)
        };
        if vm.vcpus.is_empty() {
            vec![row(vm, None, None, topology)]
        } else {
            vm.vcpus.iter().map(of_vcpu).collect()
        }
    };
    inventory.vms.iter().flat_map(of_vm).collect()
}

fn row(vm: &Vm, vcpu: Option<&Vcpu>, cpu: Option<u32>, topology: &Topology) -> Row {
    let place: Option<Place> = cpu.and_then(|cpu| topology.place(cpu));
    Row {
        vm: vm.name.clone(),
        uuid: vm.uuid.clone(),
        vmm: vm.vmm.into(),
        manager: vm.manager.map(Into::into),
        pid: Some(vm.key.pid),
        vcpu: vcpu.map(|vcpu| vcpu.index),
        tid: vcpu.map(|vcpu| vcpu.tid),
        cpu,
        package: place.map(|place| place.package),
        core: place.map(|place| place.core),
        numa_node: place.map(|place| place.numa_node),
        name_source: Some(vm.name_source),
    }
}

/// The CPU on which a vCPU last ran; `None` if its thread exited or another thread has its TID.
fn cpu_now(roots: &Roots, vm: &Vm, vcpu: &Vcpu) -> Option<u32> {
    let stat = vcpu.thread(vm.key).stat(roots).ok()?;
    parse_stat(&stat).map(|stat| stat.cpu)
}

/// The PID is only in `--json`: tools take a vCPU's TID, and with the PID a line of a libvirt or
/// OpenStack domain would exceed 80 columns.
const HEADER: [&str; 10] = [
    "VM", "VCPU", "TID", "CPU", "PKG", "CORE", "NODE", "VMM", "MANAGER", "NAME IN",
];

/// Names are not shortened below this length to fit the terminal.
const SHORTEST: usize = 16;

fn table(rows: &[Row], visibility_gaps: &[String], width: Option<usize>) -> String {
    if rows.is_empty() {
        return if visibility_gaps.is_empty() {
            "no KVM VM is running on this host\n".to_owned()
        } else {
            "no KVM VM is seen on this host\n".to_owned()
        };
    }
    let whole = draw(rows, usize::MAX);
    let widest = whole.lines().map(|line| line.chars().count()).max();
    let excess = widest
        .unwrap_or(0)
        .saturating_sub(width.unwrap_or(usize::MAX));
    if excess == 0 {
        return whole;
    }
    let names = rows.iter().map(|row| row.vm.chars().count());
    let longest = names.max().unwrap_or(0);
    draw(rows, longest.saturating_sub(excess).max(SHORTEST))
}

fn draw(rows: &[Row], name: usize) -> String {
    out::table(
        &HEADER,
        rows.iter().map(|row| cells(row, name)),
        HEADER.len(),
    )
}

fn cells(row: &Row, name: usize) -> Vec<String> {
    vec![
        out::shorten(&out::printable(&row.vm), name).into_owned(),
        out::or_dash(row.vcpu),
        out::or_dash(row.tid),
        out::or_dash(row.cpu),
        out::or_dash(row.package),
        out::or_dash(row.core),
        out::or_dash(row.numa_node),
        out::printable(&row.vmm).into_owned(),
        out::or_dash(row.manager.as_deref().map(out::printable)),
        out::or_dash(row.name_source),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::VmKey;
    use crate::host::topology::{CoreType, Cpu};
    use expect_test::expect;

    fn inventory() -> Inventory {
        let cpu = Cpu {
            id: 5,
            place: Place {
                package: 1,
                core: 2,
                numa_node: 3,
            },
            siblings: vec![5],
            ids: Default::default(),
            core_type: CoreType::Uniform,
            llc: None,
            online: true,
        };
        let vcpu = |index, tid| Vcpu {
            index,
            tid,
            start_time: 100,
        };
        let vm = |name: &str, uuid, manager, vcpus| Vm {
            key: VmKey {
                pid: 10,
                start_time: 9,
                ordinal: 0,
            },
            name: name.to_owned(),
            name_source: "cmdline",
            uuid,
            vmm: "qemu",
            manager,
            owner: crate::discover::Owner::Host,
            facts: vec![],
            vcpus,
            threadless: 0,
            names_threads: true,
        };
        let uuid = Some("b813b8d7-0000-4000-8000-000000000001".to_owned());
        Inventory {
            topology: Arc::new(Topology { cpus: vec![cpu] }),
            vms: vec![
                Arc::new(vm("a\x1b[2J", None, None, vec![vcpu(0, 30)])),
                Arc::new(vm(
                    "web-1",
                    uuid,
                    Some("libvirt"),
                    vec![vcpu(0, 11), vcpu(1, 12)],
                )),
            ],
            ..Inventory::default()
        }
    }

    /// Thread 11 runs on CPU 5, a younger thread has TID 12, thread 30 has exited.
    fn host() -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        for (tid, start) in [(11, 100), (12, 101)] {
            let fields: Vec<String> = (4..=52)
                .map(|n| match n {
                    22 => start,
                    39 => 5,
                    _ => 0,
                })
                .map(|n| n.to_string())
                .collect();
            let path = dir.path().join(format!("proc/10/task/{tid}"));
            std::fs::create_dir_all(&path).unwrap();
            let line = format!("{tid} (CPU 0/KVM) S {}\n", fields.join(" "));
            std::fs::write(path.join("stat"), line).unwrap();
        }
        let roots = Roots::below(dir.path());
        (dir, roots)
    }

    #[test]
    fn table_shows_locations_and_escapes_names() {
        let (_dir, roots) = host();
        let inventory = inventory();
        expect![[r#"
            VM          VCPU  TID  CPU  PKG  CORE  NODE  VMM   MANAGER  NAME IN
            a\u{1b}[2J  0     30   -    -    -     -     qemu  -        cmdline
            web-1       0     11   5    1    2     3     qemu  libvirt  cmdline
            web-1       1     12   -    -    -     -     qemu  libvirt  cmdline
        "#]]
        .assert_eq(&table(&rows(&inventory, &roots), &[], None));
    }

    /// A row as wide as on a large host.
    fn openstack(vm: &str) -> Row {
        Row {
            vm: vm.to_owned(),
            uuid: None,
            vmm: "qemu".into(),
            manager: Some("openstack".into()),
            pid: Some(4_194_303),
            vcpu: Some(63),
            tid: Some(4_194_304),
            cpu: Some(511),
            package: Some(1),
            core: Some(127),
            numa_node: Some(7),
            name_source: Some("libvirt"),
        }
    }

    #[test]
    fn a_terminal_of_80_columns_is_enough() {
        let widest = |vm: &str, width| {
            let text = table(&[openstack(vm)], &[], width);
            let lines = text.lines().map(|line| line.chars().count());
            (lines.max(), text)
        };
        let (columns, text) = widest("instance-0000002a", Some(80));
        assert!(
            columns <= Some(80) && text.contains("instance-0000002a"),
            "{text}"
        );
        let long = "shop_frontend-5d8f7c9b6-production-eu-central-1a";
        let (columns, text) = widest(long, Some(80));
        assert!(
            columns <= Some(80) && text.contains("shop_fr") && text.contains("-1a"),
            "{text}"
        );
        // A pipe gets the whole name.
        assert!(widest(long, None).1.contains(long));
    }

    #[test]
    fn a_vm_without_known_threads_is_listed_too() {
        let (_dir, roots) = host();
        let mut inventory = inventory();
        inventory.vms.truncate(1);
        let mut vm = (*inventory.vms[0]).clone();
        vm.vcpus.clear();
        inventory.vms[0] = Arc::new(vm);
        let rows = rows(&inventory, &roots);
        assert_eq!((rows.len(), rows[0].vcpu, rows[0].tid), (1, None, None));
        assert!(table(&rows, &[], None).contains("qemu"));
    }

    #[test]
    fn json_has_exactly_the_promised_keys() {
        let (_dir, roots) = host();
        let rows = rows(&inventory(), &roots);
        expect![[r#"
            [
              {
                "vm": "web-1",
                "uuid": "b813b8d7-0000-4000-8000-000000000001",
                "vmm": "qemu",
                "manager": "libvirt",
                "pid": 10,
                "vcpu": 0,
                "tid": 11,
                "cpu": 5,
                "package": 1,
                "core": 2,
                "numa_node": 3
              },
              {
                "vm": "web-1",
                "uuid": "b813b8d7-0000-4000-8000-000000000001",
                "vmm": "qemu",
                "manager": "libvirt",
                "pid": 10,
                "vcpu": 1,
                "tid": 12,
                "cpu": null,
                "package": null,
                "core": null,
                "numa_node": null
              }
            ]"#]]
        .assert_eq(&serde_json::to_string_pretty(&rows[1..]).unwrap());
    }

    #[test]
    fn empty_list_says_not_seen_if_there_are_visibility_gaps() {
        assert_eq!(table(&[], &[], None), "no KVM VM is running on this host\n");
        let gaps = ["procfs hides processes".to_owned()];
        assert_eq!(table(&[], &gaps, None), "no KVM VM is seen on this host\n");
        assert_eq!(serde_json::to_string(&Vec::<Row>::new()).unwrap(), "[]");
    }
}
