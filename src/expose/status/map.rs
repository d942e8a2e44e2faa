//! The host as a map: nodes, cores, and the vCPUs last found on them.

use maud::{html, Markup};

use super::format::{grouped, number, or_unknown, percent, plural, ratio};
use super::page_state::{Colour, PageState};
use crate::diagnosis::thresholds::thresholds;
use crate::diagnosis::{CoreView, HostView, NodeView, Tenant, ThreadView, VcpuView, View, VmView};

/// Most vCPUs drawn on a thread; the number of further ones is shown.
const MOST_ON_A_THREAD: usize = 16;

/// A core below this fraction of its nominal frequency is marked.
const SLOW: f64 = 0.9;

/// A core that was throttled by heat for more than this share of time is marked.
const HOT: f64 = 0.01;

pub(super) fn section(view: &View, look: &PageState) -> Markup {
    html! {
        section #host aria-labelledby="host-title" {
            div.head {
                h2 #host-title { "Host" }
                p.muted { (about(&view.host)) }
            }
            (facts(view))
            @if view.nodes.is_empty() {
                p { "The CPU topology of this host is not known yet." }
            } @else {
                div.tools { (switch(look)) (legend(look.colour)) }
                div.nodes { @for node in &view.nodes { (of_node(view, node, look.colour)) } }
            }
        }
    }
}

fn about(host: &HostView) -> String {
    let known = [host.cpu_model.as_deref(), host.kernel.as_deref()];
    let known: Vec<&str> = known.into_iter().flatten().collect();
    known.join(" · ")
}

fn facts(view: &View) -> Markup {
    let host = &view.host;
    // The host's own CPU times are read every 15 s, those of vCPUs every second.
    let (wanted, demand) = match host.wanted {
        Some(wanted) => ("CPUs wanted, 1 min", Some(wanted)),
        None => ("CPUs wanted by vCPUs", host.demand),
    };
    let demand = demand.map(|demand| format!("{demand:.1}"));
    let per_cpu = ratio(host.vcpus as f64, host.cpus);
    html! {
        dl.facts {
            (fact("VMs", &grouped(host.vms)))
            (fact("vCPUs", &grouped(host.vcpus)))
            (fact("CPUs online", &grouped(host.cpus)))
            (fact("Cores", &grouped(host.cores)))
            (fact("NUMA nodes", &view.nodes.len()))
            (fact("vCPUs per CPU", &or_unknown(per_cpu)))
            (fact(wanted, &or_unknown(demand)))
            (fact("Series", &grouped(host.series)))
        }
    }
}

fn fact(name: &str, value: &dyn maud::Render) -> Markup {
    html! { div { dt { (name) } dd { (value.render()) } } }
}

fn switch(look: &PageState) -> Markup {
    html! {
        div.switch role="group" aria-label="Color of vCPUs" {
            span.muted { "Color" }
            @for colour in Colour::ALL {
                button form="look" name="colour" value=(colour.key())
                    data-key={ "colour:" (colour.key()) }
                    aria-pressed=(if colour == look.colour { "true" } else { "false" }) {
                    (colour.title())
                }
            }
        }
    }
}

/// The meaning of colors and marks.
fn legend(colour: Colour) -> Markup {
    let words = match colour {
        Colour::Delay => ["below 1 %", "1 to 5 %", "5 to 20 %", "20 % and more"],
        Colour::Cpi => ["below 1", "1 to 2", "2 to 4", "4 and more"],
    };
    let levels = (0..).map(Level::Known).zip(words);
    html! {
        ul.legend aria-label="Legend" {
            @for (level, words) in levels { li { (chip(level, colour, None)) " " (words) } }
            li { (chip(Level::Idle, colour, None)) " idle" }
            li { (chip(Level::Unknown, colour, None)) " unknown" }
        }
    }
}

fn of_node(view: &View, node: &NodeView, colour: Colour) -> Markup {
    let online = node.cores.iter().flat_map(|core| &core.threads);
    let online = online.filter(|thread| thread.online).count();
    html! {
        article.node aria-labelledby={ "node-" (node.id) } {
            h3 #{ "node-" (node.id) } {
                "Node " (node.id)
                span.muted {
                    "vCPUs want " (or_unknown(node.demand.map(number))) " of " (plural(online, "CPU"))
                }
            }
            ol.cores { @for core in &node.cores { (of_core(view, core, colour)) } }
        }
    }
}

fn of_core(view: &View, core: &CoreView, colour: Colour) -> Markup {
    let online = core.threads.iter().filter(|thread| thread.online).count();
    let load = core.demand.map(|demand| demand / online.max(1) as f64);
    let crowded = load.is_some_and(|load| load > 1.0);
    html! {
        li.core.crowded[crowded] title=(title(core)) {
            div.id {
                span { (core.package) "/" (core.core) }
                (marks(core, crowded))
                span.demand { (or_unknown(core.demand.map(|demand| format!("{demand:.2}")))) }
            }
            svg.bar viewBox="0 0 100 3" preserveAspectRatio="none" aria-hidden="true" {
                @if let Some(load) = load {
                    rect width=(format!("{:.0}", load.min(1.0) * 100.0)) height="3" {}
                }
            }
            @for thread in &core.threads { (of_thread(view, thread, colour)) }
        }
    }
}

/// The core's tooltip.
fn title(core: &CoreView) -> String {
    let cpus: Vec<String> = core.threads.iter().map(|t| t.cpu.to_string()).collect();
    let (package, id, cpus) = (core.package, core.core, cpus.join(", "));
    let demand = core.demand.map(|d| format!("vCPUs want {d:.2} CPUs"));
    let of_time = |what, share: Option<f64>| {
        let share = share.filter(|share| *share > 0.0)?;
        Some(format!("{what} {} of the time", percent(share)))
    };
    let words = [
        Some(format!("package {package}, core {id}, CPUs {cpus}")),
        Some(demand.unwrap_or_else(|| "demand unknown".to_owned())),
        core.frequency.map(|f| format!("clock {f:.2} of nominal")),
        of_time("its threads are busy at the same time", core.smt_shared),
        of_time("throttled by heat", core.throttled),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    words.join("; ")
}

fn marks(core: &CoreView, crowded: bool) -> Markup {
    let slow = core.frequency.filter(|ratio| *ratio < SLOW);
    let hot = core.throttled.filter(|share| *share >= HOT);
    html! {
        @if crowded { span.flag.down { "full" } }
        @if hot.is_some() { span.flag.down { "hot" } }
        @if let Some(ratio) = slow { span.flag.degraded { (format!("{ratio:.1}×")) } }
    }
}

fn of_thread(view: &View, thread: &ThreadView, colour: Colour) -> Markup {
    let tenants = thread.vcpus.iter();
    let known = tenants.filter_map(|tenant| of_tenant(view, *tenant));
    let more = thread.vcpus.len().saturating_sub(MOST_ON_A_THREAD);
    html! {
        div.thread.offline[!thread.online] {
            span.cpu { (thread.cpu) }
            div.chips {
                @if !thread.online { span.muted { "offline" } }
                @for (vm, vcpu) in known.take(MOST_ON_A_THREAD) {
                    (chip(level(vcpu, colour), colour, Some((vm, vcpu))))
                }
                @if more > 0 { span.muted { "+" (more) } }
            }
        }
    }
}

fn of_tenant(view: &View, tenant: Tenant) -> Option<(&VmView, &VcpuView)> {
    let vm = view.vms.get(tenant.vm)?;
    Some((vm, vm.vcpus.get(tenant.vcpu)?))
}

/// A vCPU's color level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Unknown,
    /// It is runnable for too little time for its ratios to mean anything.
    Idle,
    /// From 0 (best) to 3.
    Known(usize),
}

fn level(vcpu: &VcpuView, colour: Colour) -> Level {
    let numbers = &vcpu.numbers;
    let wanted = numbers
        .time
        .zip(numbers.delay)
        .map(|(time, delay)| time + delay);
    let (value, bounds) = match colour {
        Colour::Delay => (numbers.delay_ratio, [0.01, 0.05, 0.2]),
        Colour::Cpi => (numbers.cpi, [1.0, 2.0, 4.0]),
    };
    match (wanted, value) {
        (Some(wanted), _) if wanted < thresholds().vcpu_wanted_cores => Level::Idle,
        (_, None) => Level::Unknown,
        (_, Some(value)) => Level::Known(bounds.iter().filter(|b| value >= **b).count()),
    }
}

/// A vCPU, or an entry of the legend. Each level has a sign in addition to its color.
fn chip(level: Level, colour: Colour, of: Option<(&VmView, &VcpuView)>) -> Markup {
    const SIGNS: [&str; 4] = ["", "·", "!", "!!"];
    let (class, sign) = match level {
        Level::Unknown => ("unknown".to_owned(), "?"),
        Level::Idle => ("idle".to_owned(), ""),
        Level::Known(n) => (format!("{}{n}", colour.key()), SIGNS[n.min(3)]),
    };
    html! {
        @match of {
            Some((vm, vcpu)) => i.chip.(class) role="img" title=(words(vm, vcpu)) { (sign) },
            None => i.chip.(class) aria-hidden="true" { (sign) },
        }
    }
}

/// The vCPU's tooltip.
fn words(vm: &VmView, vcpu: &VcpuView) -> String {
    let numbers = &vcpu.numbers;
    let unknown = || "unknown".to_owned();
    format!(
        "{} vCPU {}: delay {}, CPI {}, {} of a core",
        vm.name,
        vcpu.index,
        numbers.delay_ratio.map_or_else(unknown, percent),
        numbers.cpi.map_or_else(unknown, |cpi| format!("{cpi:.2}")),
        numbers
            .time
            .map_or_else(unknown, |time| format!("{time:.2}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Numbers;

    #[test]
    fn vcpu_level_depends_on_demand_and_known_values() {
        let level_of = |time, delay, ratio, cpi| {
            let numbers = Numbers {
                time,
                delay,
                delay_ratio: ratio,
                cpi,
                ..Numbers::default()
            };
            let vcpu = VcpuView {
                index: 0,
                tid: 1,
                place: None,
                numbers,
                io_on_core: None,
            };
            Colour::ALL.map(|colour| level(&vcpu, colour))
        };
        use Level::{Idle, Known, Unknown};
        assert_eq!(level_of(None, None, None, None), [Unknown, Unknown]);
        assert_eq!(
            level_of(Some(0.01), Some(0.01), Some(0.5), Some(9.0)),
            [Idle, Idle]
        );
        assert_eq!(
            level_of(Some(0.9), Some(0.0), Some(0.0), None),
            [Known(0), Unknown]
        );
        assert_eq!(
            level_of(Some(0.7), Some(0.3), Some(0.3), Some(2.0)),
            [Known(3), Known(2)]
        );
    }
}
