//! CPU time of each logical CPU by mode, from /proc/stat (proc_stat(5)).

use std::io;
use std::path::PathBuf;

use super::number::decimal;
use super::roots::Roots;

/// Values of the `mode` label, in the order of [`CpuTime::modes`].
pub(crate) const MODES: [&str; 8] = [
    "user", "guest", "system", "irq", "softirq", "steal", "iowait", "idle",
];

/// Modes in which a CPU works for the host, its VMs, or another guest of the underlying hypervisor
/// (`steal`): all but `iowait` and `idle`.
pub(crate) const BUSY: [&str; 6] = ["user", "guest", "system", "irq", "softirq", "steal"];

/// Fields read per line. Linux 2.6.33 added the tenth, `guest_nice`.
const FIELDS: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) cpu: u32,
    /// Clock ticks in each of [`MODES`].
    pub modes: [u64; MODES.len()],
}

/// Path of /proc/stat.
pub(crate) fn path(roots: &Roots) -> PathBuf {
    roots.proc.join("stat")
}

/// Reads the lines of all online CPUs.
///
/// # Errors
/// If the file cannot be read; `InvalidData` if it has no line of a CPU.
pub(crate) fn read(roots: &Roots) -> io::Result<Vec<CpuTime>> {
    let cpus = parse(&roots.read(&path(roots))?);
    if cpus.is_empty() {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "unexpected format: no lines cpu0, cpu1, ... of ten numbers",
        ))
    } else {
        Ok(cpus)
    }
}

/// Parses the file. Skips other lines and malformed ones.
pub(crate) fn parse(text: &[u8]) -> Vec<CpuTime> {
    text.split(|b| *b == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<CpuTime> {
    let line = std::str::from_utf8(line.strip_prefix(b"cpu")?).ok()?;
    let mut words = line.split(' ');
    // The line that sums all CPUs has a space here.
    let cpu = decimal(words.next()?)?.try_into().ok()?;
    let mut fields = [0; FIELDS];
    for field in &mut fields {
        *field = decimal(words.next()?)?;
    }
    let [user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice] = fields;
    // The kernel adds guest time to user or nice too (account_guest_time, kernel/sched/cputime.c).
    let guest = guest.saturating_add(guest_nice);
    let user = user.saturating_add(nice).saturating_sub(guest);
    Some(CpuTime {
        cpu,
        modes: [user, guest, system, irq, softirq, steal, iowait, idle],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From a KVM host on Linux 6.12, shortened.
    const STAT: &str = "cpu  702 30 300 4000 12 0 21 0 500 10\n\
        cpu0 351 15 150 2000 6 0 11 3 250 5\ncpu1 351 15 150 2000 6 2 10 0 250 5\n\
        intr 5 0 1 2\nctxt 99\nbtime 1764500000\nprocesses 77\nsoftirq 1 2 3\n";

    #[test]
    fn guest_time_is_taken_out_of_user_and_nice() {
        let cpus = parse(STAT.as_bytes());
        let expected = |cpu, modes| CpuTime { cpu, modes };
        assert_eq!(
            cpus,
            [
                expected(0, [111, 255, 150, 0, 11, 3, 6, 2000]),
                expected(1, [111, 255, 150, 2, 10, 0, 6, 2000]),
            ]
        );
    }

    #[test]
    fn line_of_another_format_is_left_out() {
        for line in [
            "",
            "cpu",
            "cpu0",
            "cpu0 1 2 3 4 5 6 7 8 9",
            "cpu0 1 2 3 4 5 6 7 8 9 -1",
            "cpu0 1 2 3 4 5 6 7 8 9 x",
            "cpu-1 1 2 3 4 5 6 7 8 9 10",
            "cpu99999999999 1 2 3 4 5 6 7 8 9 10",
            "cpux 1 2 3 4 5 6 7 8 9 10",
        ] {
            assert_eq!(parse(line.as_bytes()), [], "{line}");
        }
        let ten = "cpu0 1 2 3 4 5 6 7 8 0 0";
        assert_eq!(parse(ten.as_bytes()).len(), 1);
        assert_eq!(
            parse(format!("{ten} 11").as_bytes()).len(),
            1,
            "a later kernel"
        );
    }

    #[test]
    fn more_guest_time_than_user_time_is_no_user_time() {
        let modes = parse(b"cpu3 1 0 0 0 0 0 0 0 2 18446744073709551615")[0].modes;
        assert_eq!(modes[..2], [0, u64::MAX]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(cpu[0-9]{0,12}|[0-9]{1,21}|\\PC| |\n|-){0,60}") {
            let _ = parse(text.as_bytes());
        }
    }
}
