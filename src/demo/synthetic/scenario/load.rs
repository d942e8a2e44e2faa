//! Finds the texts of a scenario and of those it extends, and reads its VMs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::raw::{RawScenario, RawVm, RawWorkload};
use super::{
    bound, clip, cpus, number, time, ScenarioError, VmSpec, Workload, EMBEDDED, MOST_NAME, MOST_VMS,
};
use crate::config::{parse_named, read};

/// How often a scenario may extend one that extends another.
const MOST_BASES: usize = 4;

/// The text of a scenario with all it extends. `dir` is where paths begin.
pub(super) fn raw(name: &str, dir: &Path, depth: usize) -> Result<RawScenario, ScenarioError> {
    if let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) {
        return with_base(parse_named(text, Path::new(name))?, dir, depth);
    }
    let path: PathBuf = dir.join(name);
    if !path.is_file() {
        return Err(ScenarioError::Unknown(clip(name)));
    }
    let below = path.parent().unwrap_or(dir).to_owned();
    with_base(parse_named(&read(&path)?, &path)?, &below, depth)
}

/// A scenario has the workloads, VMs and troubles of the one it extends, and its own.
pub(super) fn with_base(
    own: RawScenario,
    dir: &Path,
    depth: usize,
) -> Result<RawScenario, ScenarioError> {
    let Some(base) = own.extends.clone() else {
        return Ok(own);
    };
    if depth == MOST_BASES {
        return Err(ScenarioError::Impossible {
            scenario: clip(&base),
            what: format!("extends: more than {MOST_BASES} scenarios above each other"),
        });
    }
    let mut all = raw(&base, dir, depth + 1)?;
    all.workloads.extend(own.workloads);
    all.vms.extend(own.vms);
    all.troubles.extend(own.troubles);
    all.about = own.about;
    Ok(all)
}

/// Adds a VM, or as many as its count says.
pub(super) fn add_vms(
    vms: &mut Vec<VmSpec>,
    raw: &RawVm,
    workloads: &BTreeMap<String, RawWorkload>,
) -> Result<(), String> {
    let named = |what| format!("VM {:?}: {what}", clip(&raw.name));
    bound("count", raw.count as usize, MOST_VMS).map_err(named)?;
    let workload = workloads.get(&raw.workload);
    let workload =
        workload.ok_or_else(|| named(format!("no workload {:?}", clip(&raw.workload))))?;
    let spec = vm(raw, *workload).map_err(named)?;
    if raw.count != 1 && !raw.name.contains("{n}") {
        return Err(named(
            "a name with {n} in it is expected where count is not 1".into(),
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

fn vm(raw: &RawVm, workload: RawWorkload) -> Result<VmSpec, String> {
    bound("name (bytes)", raw.name.len(), MOST_NAME)?;
    bound("flavor (bytes)", raw.flavor.len(), MOST_NAME)?;
    let names = [&raw.name, &raw.flavor];
    if names
        .iter()
        .any(|name| name.trim().is_empty() || name.contains(char::is_control))
    {
        return Err(
            "name and flavor are expected to have characters, none of them a control one".into(),
        );
    }
    let time = |text: &Option<String>| text.as_deref().map(time).transpose();
    Ok(VmSpec {
        name: raw.name.clone(),
        flavor: raw.flavor.clone(),
        workload: Workload {
            demand: number("demand", workload.demand, 0.0, 1.0)?,
            cpi: number("cpi", workload.cpi, 0.1, 50.0)?,
            cache_mpki: number("cache_mpki", workload.cache_mpki, 0.0, 200.0)?,
            exits: number("exits", workload.exits, 0.0, 1e6)?,
        },
        vcpus: number("vcpus", f64::from(raw.vcpus), 1.0, 288.0)? as u32,
        memory: (number("memory_gib", raw.memory_gib as f64, 1.0, 4096.0)? as u64) << 30,
        cpus: cpus(&raw.cpus)?,
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
