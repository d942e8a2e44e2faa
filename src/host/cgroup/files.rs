//! Parsers of a group's files; `None` for text of another format.

use crate::host::key_value::values;
use crate::host::number::decimal;

/// CPU time that a group may use per period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Microseconds of CPU time, summed over all CPUs.
    pub quota: u64,
    /// Microseconds.
    pub period: u64,
}

impl Quota {
    /// The quota as a number of cores.
    pub(crate) fn cores(self) -> f64 {
        self.quota as f64 / self.period as f64
    }
}

/// Effect of a quota on a group since the group was created (`cpu.stat`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Throttling {
    /// Periods in which the group had runnable tasks.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub(crate) throttled_periods: u64,
    /// Nanoseconds of throttling, summed over CPUs.
    pub throttled: u64,
}

/// Time that a group's tasks waited for a resource since the group was created, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pressure {
    /// At least one task waited.
    pub some: u64,
    /// All non-idle tasks waited. Older kernels do not report it for the CPU.
    pub full: Option<u64>,
}

/// v2's `cpu.max`: quota or `max`, and period. The inner `None` means no quota.
pub(crate) fn cpu_max(text: &str) -> Option<Option<Quota>> {
    let mut fields = text.split_ascii_whitespace();
    let (quota, period) = (fields.next()?, decimal(fields.next()?)?);
    match quota {
        "max" => Some(None),
        quota => Some(nonzero(decimal(quota)?, period)),
    }
}

/// v1's `cpu.cfs_quota_us` (negative for no quota, which needs no period) and `cpu.cfs_period_us`
/// (Documentation/scheduler/sched-bwc.rst).
pub(crate) fn cfs_quota(
    quota: &str,
    period: impl FnOnce() -> Option<u64>,
) -> Option<Option<Quota>> {
    let quota: i64 = quota.trim().parse().ok()?;
    match u64::try_from(quota) {
        Ok(quota) => Some(nonzero(quota, period()?)),
        Err(_) => Some(None),
    }
}

/// v1's `cpu.cfs_period_us`.
pub(crate) fn cfs_period(text: &str) -> Option<u64> {
    decimal(text.trim())
}

fn nonzero(quota: u64, period: u64) -> Option<Quota> {
    (quota > 0 && period > 0).then_some(Quota { quota, period })
}

/// `cpu.stat` of both versions: v1 has `throttled_time` in nanoseconds
/// (Documentation/scheduler/sched-bwc.rst), v2 `throttled_usec`.
pub(crate) fn cpu_stat(text: &str) -> Option<Throttling> {
    let [periods, throttled_periods] = values(text, ["nr_periods", "nr_throttled"])?;
    let nanoseconds = values(text, ["throttled_time"]).map(|[time]| time);
    let microseconds = || values(text, ["throttled_usec"]).map(|[time]| time.saturating_mul(1000));
    Some(Throttling {
        periods,
        throttled_periods,
        throttled: nanoseconds.or_else(microseconds)?,
    })
}

/// v2's `cpu.weight`: 1 to 10,000, default 100; 0 for a group that gets idle time only.
pub(crate) fn weight(text: &str) -> Option<u64> {
    decimal(text.trim()).filter(|weight| *weight <= MAX_WEIGHT)
}

/// `CGROUP_WEIGHT_MAX` of include/linux/cgroup.h.
const MAX_WEIGHT: u64 = 10_000;

/// v1's `cpu.shares` in v2's scale. The kernel keeps one number for both, with a default of 1024
/// shares and weight 100, and rounds to nearest (`cpu_weight_read_u64`, kernel/sched/core.c); so
/// does systemd (`cgroup_cpu_shares_to_weight`). This preserves the ratio between two VMs. runc
/// maps the range 2 to 262,144 to 1 to 10,000 instead, so that 1024 shares become a weight of 39.
pub(crate) fn weight_of_shares(text: &str) -> Option<u64> {
    let shares = decimal(text.trim())?;
    let weight = shares.saturating_mul(100).saturating_add(512) / 1024;
    Some(weight.clamp(1, MAX_WEIGHT))
}

/// `cpu.pressure`, `memory.pressure`, `io.pressure` (Documentation/accounting/psi.rst): lines
/// `some` and `full` with `total=` in microseconds.
pub(crate) fn pressure(text: &str) -> Option<Pressure> {
    Some(Pressure {
        some: total(text, "some ")?,
        full: total(text, "full "),
    })
}

/// NUMA balancing in `memory.stat`: page table entries marked to find the node that uses a page,
/// faults on marked entries, and pages moved to that node. Since Linux 6.12 (commit f77f0c751478)
/// with `CONFIG_NUMA_BALANCING`; never in v1.
pub(crate) fn numa_balancing(text: &str) -> Option<[u64; 3]> {
    let keys = [
        "numa_pte_updates",
        "numa_hint_faults",
        "numa_pages_migrated",
    ];
    values(text, keys)
}

fn total(text: &str, kind: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
    let mut fields = line.split_ascii_whitespace();
    let total = fields.find_map(|field| field.strip_prefix("total="))?;
    decimal(total).map(|us| us.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quota(quota: u64, period: u64) -> Option<Option<Quota>> {
        Some(Some(Quota { quota, period }))
    }

    #[test]
    fn quotas_of_both_versions() {
        assert_eq!(cpu_max("max 100000\n"), Some(None));
        assert_eq!(cpu_max("150000 100000\n"), quota(150_000, 100_000));
        assert_eq!(cfs_quota("-1\n", || None), Some(None));
        let period = || cfs_period("10000\n");
        assert_eq!(cfs_quota("5000\n", period), quota(5000, 10_000));
        assert_eq!(cfs_quota("5000\n", || None), None);
        assert_eq!(
            Quota {
                quota: 150_000,
                period: 100_000
            }
            .cores(),
            1.5
        );
        for text in ["", "max", "1", "x 1", "-1 100000", "+1 1"] {
            assert_eq!(cpu_max(text), None, "{text}");
        }
        assert_eq!(cpu_max("1000 0"), Some(None), "no division by zero");
    }

    #[test]
    fn throttling_is_in_nanoseconds_whatever_the_version() {
        let reported = Throttling {
            periods: 30,
            throttled_periods: 20,
            throttled: 4_000_000_000,
        };
        let v1 = "nr_periods 30\nnr_throttled 20\nthrottled_time 4000000000\nnr_bursts 0\n";
        let v2 =
            "usage_usec 9\nuser_usec 1\nnr_periods 30\nnr_throttled 20\nthrottled_usec 4000000\n";
        assert_eq!(cpu_stat(v1), Some(reported));
        assert_eq!(cpu_stat(v2), Some(reported));
        assert_eq!(cpu_stat("usage_usec 9\n"), None, "the controller is off");
    }

    #[test]
    fn shares_keep_their_ratio() {
        let weights = ["2", "512", "1024", "2048", "262144"].map(|s| weight_of_shares(s).unwrap());
        assert_eq!(weights, [1, 50, 100, 200, 10_000]);
        assert_eq!((weight("100\n"), weight("0\n")), (Some(100), Some(0)));
        assert_eq!((weight("10001"), weight("x")), (None, None));
    }

    #[test]
    fn pressure_is_some_and_full() {
        let line =
            |kind, total| format!("{kind} avg10=0.12 avg60=0.00 avg300=0.00 total={total}\n");
        let both = line("some", 3) + &line("full", 2);
        let full = Some(2000);
        assert_eq!(pressure(&both), Some(Pressure { some: 3000, full }));
        let old = Some(Pressure {
            some: 3000,
            full: None,
        });
        assert_eq!(pressure(&line("some", 3)), old);
        assert_eq!(pressure("some avg10=0.00\n"), None);
    }

    #[test]
    fn numa_balancing_is_known_where_the_kernel_counts_it() {
        // From Linux 6.12, shortened.
        let text = "anon 1048576\nfile 0\npgfault 9\nnuma_pages_migrated 7\nnuma_pte_updates 600\n\
                    numa_hint_faults 50\npgdemote_kswapd 0\n";
        assert_eq!(numa_balancing(text), Some([600, 50, 7]));
        assert_eq!(numa_balancing("anon 1048576\npgfault 9\n"), None);
        assert_eq!(numa_balancing(&text.replace(" 7", " -7")), None);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(some|full|max|total=|nr_periods|throttled_usec|[0-9]{1,21}|\\PC| |\n|=|-){0,30}") {
            let _ = (cpu_max(&text), cpu_stat(&text), weight(&text), pressure(&text));
            let _ = numa_balancing(&text);
            let _ = (cfs_quota(&text, || cfs_period(&text)), weight_of_shares(&text));
        }

        #[test]
        fn what_the_kernel_writes_is_read(q in 1u64..1 << 40, p in 1u64..1_000_000, periods: u64) {
            prop_assert_eq!(cpu_max(&format!("{q} {p}\n")), quota(q, p));
            prop_assert_eq!(cfs_quota(&format!("{q}\n"), || cfs_period(&format!("{p}\n"))), quota(q, p));
            let text = format!("nr_periods {periods}\nnr_throttled 1\nthrottled_time 2\n");
            prop_assert_eq!(cpu_stat(&text).map(|t| t.periods), Some(periods));
        }
    }
}
