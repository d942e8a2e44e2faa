//! Open /proc files of one thread, and parsers of the few fields that a tick needs.
//!
//! `Task::stat` of the procfs crate opens and parses everything each time: 17-25 µs, compared with
//! 6 µs for reading an open descriptor and these fields (`benches/tick` measures both). The crate
//! is used outside of the hot path.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use super::number::decimal;
use super::roots::Roots;

/// Longest file read here: `status` has about 1.5 kB, `sched` 2 kB.
pub(crate) const BUFFER: usize = 4096;

/// Length of a clock tick, the unit of times in `stat`, in nanoseconds.
pub(crate) fn ns_per_clock_tick() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// A /proc file that stays open. procfs generates the text again for each read at offset 0.
#[derive(Debug)]
pub(crate) struct KeptFile(File);

impl KeptFile {
    /// Opens `/proc/PID/task/TID/NAME`.
    ///
    /// # Errors
    /// If the open fails; `NotFound` if the thread exited.
    pub(crate) fn open(roots: &Roots, pid: i32, tid: i32, name: &str) -> io::Result<Self> {
        roots
            .open(&roots.proc.join(format!("{pid}/task/{tid}/{name}")))
            .map(Self)
    }

    /// Reads the present text; text beyond the buffer is dropped.
    ///
    /// # Errors
    /// `ESRCH` if the thread exited, even if its TID belongs to another thread now.
    pub(crate) fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let n = self.0.read_at(buffer, 0)?;
        Ok(&buffer[..n])
    }
}

impl AsFd for KeptFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Fields of a thread's `stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// Field 10: page faults without disk access.
    pub minor_faults: u64,
    /// Field 12: page faults that waited for a disk.
    pub major_faults: u64,
    /// Field 22: start time in clock ticks since boot.
    pub start_time: u64,
    /// Field 39: CPU it last ran on.
    pub cpu: u32,
    /// Field 43: guest time, clock ticks.
    pub guest_ticks: u64,
}

/// Parses a `stat` line. The name can contain any character, including `)`, so fields are counted
/// from the last one.
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    let end_of_name = text.iter().rposition(|b| *b == b')')?;
    let mut fields = text[end_of_name + 1..].split(|b| *b == b' ').skip(1);
    // The first field after the name is number 3; `nth` continues from the last position.
    Some(Stat {
        minor_faults: decimal(fields.nth(10 - 3)?)?,
        major_faults: decimal(fields.nth(12 - 10 - 1)?)?,
        start_time: decimal(fields.nth(22 - 12 - 1)?)?,
        cpu: u32::try_from(decimal(fields.nth(39 - 22 - 1)?)?).ok()?,
        guest_ticks: decimal(fields.nth(43 - 39 - 1)?)?,
    })
}

/// A thread's name in its `stat`: between the first and the last parenthesis.
pub fn comm(stat: &[u8]) -> Option<String> {
    let first = stat.iter().position(|b| *b == b'(')?;
    let last = stat.iter().rposition(|b| *b == b')')?;
    let name = stat.get(first + 1..last)?;
    Some(String::from_utf8_lossy(name).into())
}

/// Whether the `stat` is that of a kernel thread, either without a process or added to a process by
/// the kernel (`kvm-nx-lpage-recovery`, vhost, io_uring workers). Flags of include/linux/sched.h in
/// field 9.
pub fn is_of_kernel(stat: &[u8]) -> bool {
    const PF_IO_WORKER: u64 = 0x10;
    const PF_USER_WORKER: u64 = 0x4000;
    const PF_KTHREAD: u64 = 0x0020_0000;
    let flags = field(stat, 9);
    flags.is_some_and(|flags| flags & (PF_IO_WORKER | PF_USER_WORKER | PF_KTHREAD) != 0)
}

/// CPU time of a process in clock ticks from /proc/PID/stat: fields 14 (user, including guest time)
/// and 15 (system). Includes exited threads.
pub(crate) fn process_ticks(stat: &[u8]) -> Option<u64> {
    field(stat, 14)?.checked_add(field(stat, 15)?)
}

/// A numeric field after the name.
fn field(stat: &[u8], field: usize) -> Option<u64> {
    let end_of_name = stat.iter().rposition(|b| *b == b')')?;
    let mut fields = stat.get(end_of_name..)?.split(|b| *b == b' ');
    decimal(fields.nth(field.checked_sub(2)?)?)
}

/// A thread's `schedstat` (Documentation/scheduler/sched-stats.rst). All 0 on a kernel without
/// `CONFIG_SCHED_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedStat {
    /// Time on a CPU, ns.
    pub run: u64,
    /// Time runnable but waiting for a CPU, ns.
    pub delay: u64,
    /// Number of times it was put on a CPU.
    pub timeslices: u64,
}

/// Parses a `schedstat` line.
pub fn parse_schedstat(text: &[u8]) -> Option<SchedStat> {
    let mut fields = text.trim_ascii_end().split(|b| *b == b' ');
    Some(SchedStat {
        run: decimal(fields.next()?)?,
        delay: decimal(fields.next()?)?,
        timeslices: decimal(fields.next()?)?,
    })
}

/// Counters in a thread's `sched` (kernel/sched/debug.c, `proc_sched_show_task`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sched {
    /// `se.nr_migrations`: moves to another CPU.
    pub migrations: u64,
    /// `nr_voluntary_switches`
    pub voluntary: u64,
    /// `nr_involuntary_switches`
    pub involuntary: u64,
}

/// Parses a `sched` file. Its first line contains the thread's name, which is shorter than each of
/// the keys.
pub fn parse_sched(text: &[u8]) -> Option<Sched> {
    let (mut migrations, mut voluntary, mut involuntary) = (None, None, None);
    for line in text.split(|b| *b == b'\n') {
        let field = match line {
            [b's', b'e', b'.', b'n', b'r', b'_', b'm', ..] => {
                Field("se.nr_migrations", &mut migrations)
            }
            [b'n', b'r', b'_', b'v', ..] => Field("nr_voluntary_switches", &mut voluntary),
            [b'n', b'r', b'_', b'i', ..] => Field("nr_involuntary_switches", &mut involuntary),
            _ => continue,
        };
        field.take(line);
        if involuntary.is_some() {
            break;
        }
    }
    Some(Sched {
        migrations: migrations?,
        voluntary: voluntary?,
        involuntary: involuntary?,
    })
}

struct Field<'a>(&'static str, &'a mut Option<u64>);

impl Field<'_> {
    fn take(self, line: &[u8]) {
        let value = line
            .strip_prefix(self.0.as_bytes())
            .map(<[u8]>::trim_ascii_start);
        *self.1 = value
            .and_then(|v| v.strip_prefix(b":"))
            .and_then(|v| decimal(v.trim_ascii()));
    }
}

/// The value of `Cpus_allowed_list:` in a thread's `status` (proc_pid_status(5)).
pub fn cpus_allowed(status: &[u8]) -> Option<&str> {
    let list = after(status, b"Cpus_allowed_list:")?;
    std::str::from_utf8(list.trim_ascii()).ok()
}

/// The rest of the line that begins with `key`.
pub(super) fn after<'a>(status: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut lines = status.split(|b| *b == b'\n');
    lines.find_map(|line| line.strip_prefix(key))
}

/// User of a process from its `status`: the effective uid, or the real uid if a setuid root program
/// made the effective one 0. Any user can start such a program (`su`, `mount`) with open KVM
/// descriptors.
pub fn user(status: &[u8]) -> Option<u32> {
    let ids = after(status, b"Uid:")?
        .split(u8::is_ascii_whitespace)
        .filter(|id| !id.is_empty());
    let mut ids = ids.map(|id| u32::try_from(decimal(id)?).ok());
    let (real, effective) = (ids.next()??, ids.next()??);
    Some(if effective == 0 { real } else { effective })
}

/// Voluntary and involuntary context switches in a thread's `status`.
pub(crate) fn switches_of_status(status: &[u8]) -> Option<(u64, u64)> {
    let field = |name: &[u8]| decimal(after(status, name)?.trim_ascii());
    Some((
        field(b"voluntary_ctxt_switches:")?,
        field(b"nonvoluntary_ctxt_switches:")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stat_fields_are_counted_from_the_last_parenthesis() {
        // Each field from 4 on contains its own number.
        let fields: Vec<String> = (4..=52).map(|n: u32| n.to_string()).collect();
        let line = format!("4711 (CPU 0/KVM) x) S {}\n", fields.join(" "));
        assert_eq!(
            parse_stat(line.as_bytes()),
            Some(Stat {
                minor_faults: 10,
                major_faults: 12,
                start_time: 22,
                cpu: 39,
                guest_ticks: 43
            })
        );
    }

    #[test]
    fn own_stat_equals_what_procfs_reads() {
        let mut buffer = [0; BUFFER];
        let me = std::process::id() as i32;
        let file = KeptFile::open(&Roots::default(), me, me, "stat").unwrap();
        let ours = parse_stat(file.read(&mut buffer).unwrap()).unwrap();
        let theirs = procfs::process::Process::myself()
            .unwrap()
            .task_main_thread()
            .unwrap();
        let theirs = theirs.stat().unwrap();
        assert_eq!(ours.start_time, theirs.starttime);
        assert_eq!(Some(ours.guest_ticks), theirs.guest_time);
        assert!(ours.minor_faults <= theirs.minflt);
        assert!(ours.minor_faults > 0);
    }

    #[test]
    fn kernel_workers_are_recognized_by_their_flags() {
        // As on Linux 6.18: KVM's recovery thread in a QEMU, and a vCPU of it.
        assert!(is_of_kernel(
            b"2497 (kvm-nx-lpage-re) S 1 2483 1 0 -1 4210752 0 0"
        ));
        assert!(!is_of_kernel(
            b"2488 (CPU 0) KVM) S 1 2483 1 0 -1 4194368 0 0"
        ));
        assert!(!is_of_kernel(b"16384 16384 16384 16384 16384 16384"));
    }

    #[test]
    fn a_process_time_is_user_and_system() {
        let fields: Vec<String> = (4..=52).map(|n: u32| n.to_string()).collect();
        let line = format!("1 (a b) S {}\n", fields.join(" "));
        assert_eq!(process_ticks(line.as_bytes()), Some(14 + 15));
        assert_eq!(process_ticks(b"1 (a) S 1 2"), None);
    }

    #[test]
    fn a_name_may_hold_parentheses() {
        assert_eq!(comm(b"1 (a) (b)) S 1").as_deref(), Some("a) (b)"));
        assert_eq!(comm(b"1 )("), None);
    }

    #[test]
    fn schedstat_has_three_numbers() {
        let expected = SchedStat {
            run: 12,
            delay: 34,
            timeslices: 5,
        };
        assert_eq!(parse_schedstat(b"12 34 5\n"), Some(expected));
        assert_eq!(parse_schedstat(b"12 34"), None);
    }

    #[test]
    fn sched_counters_are_found_by_name() {
        let text = b"CPU 0/KVM (4712, #threads: 5)\n-----\n\
            se.exec_start   :  1.5\nse.nr_migrations   :    17\nnr_switches  :  300\n\
            nr_voluntary_switches  :  200\nnr_involuntary_switches   :   100\npolicy : 0\n";
        let expected = Sched {
            migrations: 17,
            voluntary: 200,
            involuntary: 100,
        };
        assert_eq!(parse_sched(text), Some(expected));
        assert_eq!(parse_sched(b"x (1, #threads: 1)\n"), None);
    }

    #[test]
    fn own_sched_file_is_understood() {
        let mut buffer = [0; BUFFER];
        let me = std::process::id() as i32;
        let Ok(file) = KeptFile::open(&Roots::default(), me, me, "sched") else {
            println!("skipped: this kernel has no /proc/PID/sched");
            return;
        };
        assert!(parse_sched(file.read(&mut buffer).unwrap()).is_some());
    }

    #[test]
    fn allowed_cpus_are_a_line_of_status() {
        let text = b"Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\nMems_allowed_list:\t0\n";
        assert_eq!(cpus_allowed(text), Some("0-3"));
        assert_eq!(cpus_allowed(b"Name:\tx\n"), None);
    }

    #[test]
    fn status_has_the_context_switches_too() {
        let text = b"Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(switches_of_status(text), Some((150, 545)));
        assert_eq!(switches_of_status(b"Name:\tx\n"), None);
    }

    #[test]
    fn a_process_is_its_effective_users_but_for_setuid_root() {
        assert_eq!(user(b"Name:\tUid:\nUid:\t7\t1000\t8\t9\n"), Some(1000));
        assert_eq!(user(b"Uid:\t1000\t0\t0\t0\n"), Some(1000));
        assert_eq!(user(b"Uid:\t0\t0\t0\t0\n"), Some(0));
        assert_eq!(user(b"Name:\tx\nUid:\t7\n"), None);
        let own = std::fs::read("/proc/self/status").unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(user(&own), Some(uid));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (comm(&text), is_of_kernel(&text), process_ticks(&text));
            let _ = (parse_stat(&text), parse_schedstat(&text), parse_sched(&text), cpus_allowed(&text).is_some(), switches_of_status(&text));
        }

        #[test]
        fn any_name_leaves_the_fields_right(name in "[^\\x00]{0,15}", cpu in 0u32..4096) {
            let fields: Vec<String> = (4..=52).map(|n| if n == 39 { cpu } else { n }.to_string()).collect();
            let line = format!("1 ({name}) S {}\n", fields.join(" "));
            let stat = parse_stat(line.as_bytes()).unwrap();
            prop_assert_eq!(stat.cpu, cpu);
            prop_assert_eq!(stat.start_time, 22);
            prop_assert_eq!(stat.guest_ticks, 43);
        }
    }
}
