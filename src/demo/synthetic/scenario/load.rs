//! Loads a scenario and those it extends, and reads its VMs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::super::raw::{RawMemoryNode, RawScenario, RawVm};
use super::{
    bound, clip, cpus, node_of, number, time, MemoryNode, Names, VmSpec, Workload, EMBEDDED,
    MOST_NAME, MOST_VMS, NODES,
};
use crate::config::{parse_named, read};

/// Most scenarios in a chain of `extends`.
const MOST_BASES: usize = 4;

/// Loads a scenario with all it extends. Paths are relative to `dir`.
pub(super) fn raw(name: &str, dir: &Path, depth: usize) -> anyhow::Result<RawScenario> {
    if let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) {
        return with_base(parse_named(text, Path::new(name))?, dir, depth);
    }
    let path: PathBuf = dir.join(name);
    if !path.is_file() {
        bail!(
            "unknown scenario {:?}: expected calm, troubles, incident or the path of a YAML file",
            clip(name)
        );
    }
    let below = path.parent().unwrap_or(dir).to_owned();
    with_base(parse_named(&read(&path)?, &path)?, &below, depth)
}

/// Merges a scenario with the one it extends: workloads, VMs and troubles of both.
pub(super) fn with_base(own: RawScenario, dir: &Path, depth: usize) -> anyhow::Result<RawScenario> {
    let Some(base) = own.extends.clone() else {
        return Ok(own);
    };
    if depth == MOST_BASES {
        bail!(
            "scenario {}: extends: more than {MOST_BASES} levels",
            clip(&base)
        );
    }
    let mut all = raw(&base, dir, depth + 1)?;
    all.workloads.extend(own.workloads);
    all.vms.extend(own.vms);
    all.troubles.extend(own.troubles);
    all.about = own.about;
    all.names = own.names.or(all.names);
    all.memory_node = own.memory_node.or(all.memory_node);
    Ok(all)
}

/// Adds a VM, or `count` VMs.
pub(super) fn add_vms(
    vms: &mut Vec<VmSpec>,
    raw: &RawVm,
    workloads: &BTreeMap<String, Workload>,
) -> Result<(), String> {
    let named = |what| format!("VM {:?}: {what}", clip(&raw.name));
    bound("count", raw.count as usize, MOST_VMS).map_err(named)?;
    let workload = workloads.get(&raw.workload);
    let workload =
        workload.ok_or_else(|| named(format!("no workload named {:?}", clip(&raw.workload))))?;
    let spec = vm(raw, *workload).map_err(named)?;
    if raw.count != 1 && !raw.name.contains("{n}") {
        return Err(named(
            "name: expected {n} in it, because count is not 1".into(),
        ));
    }
    for n in 0..raw.count {
        let number = raw.first.saturating_add(n).to_string();
        vms.push(VmSpec {
            name: raw.name.replace("{n}", &number),
            ..spec.clone()
        });
    }
    Ok(())
}

/// The number of nova's first instance on this host.
const FIRST_INSTANCE: usize = 0x2a;

/// Sets the name that libvirt has for each VM.
pub(super) fn name_domains(vms: &mut [VmSpec], names: Names) {
    for (n, vm) in vms.iter_mut().enumerate() {
        vm.domain = match names {
            Names::Plain => vm.name.clone(),
            // nova.conf's default instance_name_template.
            Names::Nova => format!("instance-{:08x}", FIRST_INSTANCE + n),
        };
    }
}

pub(super) fn memory_node(raw: RawMemoryNode) -> Result<MemoryNode, String> {
    let number =
        |name: &str, n: f64, most: f64| number(&format!("memory_node: {name}"), n, 0.0, most);
    Ok(MemoryNode {
        bytes: (number("gib", raw.gib as f64, 4096.0)? as u64) << 30,
        package: number("package", f64::from(raw.package), 1.0)? as u32,
    })
}

/// Refuses memory on a node that the host does not have.
pub(super) fn fit_memory(vms: &[VmSpec], node: Option<MemoryNode>) -> Result<(), String> {
    let on_it = vms.iter().find(|vm| vm.memory_on[NODES - 1] > 0.0);
    match (on_it, node) {
        (Some(vm), None) => Err(format!(
            "VM {:?}: memory_nodes: node 2 requires memory_node",
            clip(&vm.name)
        )),
        _ => Ok(()),
    }
}

/// Share of the memory on each node: as configured, else in proportion to the VM's CPUs there.
fn memory_on(raw: &RawVm, cpus: &[u32]) -> Result<[f64; NODES], String> {
    let mut on = [0.0; NODES];
    for (node, part) in raw.memory_nodes.iter().flatten() {
        let node = number(
            "memory_nodes: node",
            f64::from(*node),
            0.0,
            (NODES - 1) as f64,
        )?;
        on[node as usize] = number("memory_nodes: part", *part, 0.0, 1e6)?;
    }
    if raw.memory_nodes.is_none() {
        for cpu in cpus {
            on[node_of(*cpu) as usize] += 1.0;
        }
    }
    let all: f64 = on.iter().sum();
    if all > 0.0 {
        Ok(on.map(|part| part / all))
    } else {
        Err("memory_nodes: expected a part above 0 on at least one node".into())
    }
}

fn vm(raw: &RawVm, workload: Workload) -> Result<VmSpec, String> {
    bound("name (bytes)", raw.name.len(), MOST_NAME)?;
    bound("flavor (bytes)", raw.flavor.len(), MOST_NAME)?;
    let names = [&raw.name, &raw.flavor];
    if names
        .iter()
        .any(|name| name.trim().is_empty() || name.contains(char::is_control))
    {
        return Err("name and flavor: expected non-empty text without control characters".into());
    }
    let time = |text: &Option<String>| text.as_deref().map(time).transpose();
    let cpus = cpus(&raw.cpus)?;
    Ok(VmSpec {
        name: raw.name.clone(),
        domain: String::new(),
        flavor: raw.flavor.clone(),
        workload: Workload {
            demand: number("demand", workload.demand, 0.0, 1.0)?,
            cpi: number("cpi", workload.cpi, 0.1, 50.0)?,
            cache_mpki: number("cache_mpki", workload.cache_mpki, 0.0, 200.0)?,
            exits: number("exits", workload.exits, 0.0, 1e6)?,
        },
        vcpus: number("vcpus", f64::from(raw.vcpus), 1.0, 288.0)? as u32,
        memory: (number("memory_gib", raw.memory_gib as f64, 1.0, 4096.0)? as u64) << 30,
        memory_on: memory_on(raw, &cpus)?,
        cpus,
        pin: raw.pin,
        quota: raw
            .quota_cores
            .map(|q| number("quota_cores", q, 0.01, 288.0))
            .transpose()?,
        device: raw.device,
        iothread: raw.iothread,
        starts: time(&raw.starts_after)?.unwrap_or_default(),
        ends: time(&raw.ends_after)?,
    })
}
