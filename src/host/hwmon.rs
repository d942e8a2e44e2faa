//! Temperature sensors of hwmon (Documentation/hwmon/sysfs-interface.rst).

use std::path::Path;

use super::roots::Roots;

/// A sensor chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chip {
    /// Name of the driver: `coretemp`, `k10temp`, …
    pub name: String,
    /// Label and thousandths of a degree Celsius of each readable temperature.
    pub temperatures: Vec<(String, i64)>,
}

/// All chips, sorted by device name (PCI address for PCI devices).
pub(crate) fn chips(roots: &Roots) -> Vec<Chip> {
    let dir = roots.sys.join("class/hwmon");
    let names = roots.list(&dir).unwrap_or_default();
    let mut chips: Vec<(String, Chip)> = names
        .iter()
        .filter_map(|name| {
            let dir = dir.join(name);
            let device = std::fs::read_link(dir.join("device")).unwrap_or_default();
            let device = device.file_name().unwrap_or_default();
            Some((device.to_string_lossy().into_owned(), chip(roots, &dir)?))
        })
        .collect();
    chips.sort_by(|(a, _), (b, _)| a.cmp(b));
    chips.into_iter().map(|(_, chip)| chip).collect()
}

fn chip(roots: &Roots, dir: &Path) -> Option<Chip> {
    let name = roots.read_text(&dir.join("name")).ok()?;
    let mut files = roots.list(dir).ok()?;
    files.sort_unstable();
    let temperature = |file: &String| {
        let sensor = file.strip_suffix("_label")?;
        if !sensor.starts_with("temp") {
            return None;
        }
        let label = roots.read_text(&dir.join(file)).ok()?;
        Some((label, roots.number(&dir.join(format!("{sensor}_input")))?))
    };
    Some(Chip {
        temperatures: files.iter().filter_map(temperature).collect(),
        name,
    })
}
