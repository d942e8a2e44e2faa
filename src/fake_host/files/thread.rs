//! A thread, as in the files of /proc/PID/task/TID.

/// State and counters of one thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thread {
    /// Its name.
    pub comm: String,
    /// Start time, clock ticks since boot.
    pub start_time: u64,
    /// CPU it last ran on.
    pub cpu: u32,
    /// Clock ticks in user mode.
    pub user_ticks: u64,
    /// Clock ticks in kernel mode.
    pub system_ticks: u64,
    /// Clock ticks in a guest.
    pub guest_ticks: u64,
    /// Page faults without disk access.
    pub minor_faults: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// Time on a CPU, ns.
    pub run: u64,
    /// Time waiting for a CPU, ns.
    pub delay: u64,
    /// Number of times that it was put on a CPU.
    pub timeslices: u64,
    /// Moves to another CPU.
    pub migrations: u64,
    /// Voluntary context switches: the thread slept.
    pub voluntary: u64,
    /// Involuntary context switches: the thread was preempted.
    pub involuntary: u64,
    /// CPUs it may use, as a CPU list.
    pub cpus_allowed: String,
    /// UID of the process.
    pub uid: u32,
    /// `PF_*` of include/linux/sched.h.
    pub flags: u64,
    /// Content of /proc/TID/syscall.
    pub syscall: String,
}

impl Thread {
    /// A new thread with zero counters.
    pub fn new(comm: &str, start_time: u64) -> Self {
        Self {
            // TASK_COMM_LEN is 16 with its NUL (include/linux/sched.h).
            comm: comm.chars().take(15).collect(),
            start_time,
            cpus_allowed: "0-3".into(),
            // PF_USER_WORKER: a thread that the kernel created.
            flags: if comm.starts_with("kvm-nx-") {
                0x4000
            } else {
                0
            },
            syscall: "running".into(),
            ..Self::default()
        }
    }

    /// The 52 fields of proc_pid_stat(5).
    pub fn stat(&self, tid: i32) -> String {
        let mut fields = [0u64; 53];
        fields[4] = 1; // parent
        fields[9] = self.flags;
        fields[10] = self.minor_faults;
        fields[12] = self.major_faults;
        fields[14] = self.user_ticks;
        fields[15] = self.system_ticks;
        fields[18] = 20; // priority
        fields[20] = 1; // threads
        fields[22] = self.start_time;
        fields[38] = 17; // SIGCHLD
        fields[39] = u64::from(self.cpu);
        fields[43] = self.guest_ticks;
        let fields: Vec<String> = fields[4..].iter().map(u64::to_string).collect();
        format!("{tid} ({}) S {}\n", self.comm, fields.join(" "))
    }

    /// `schedstat`: Documentation/scheduler/sched-stats.rst.
    pub fn schedstat(&self) -> String {
        format!("{} {} {}\n", self.run, self.delay, self.timeslices)
    }

    /// `sched`: kernel/sched/debug.c, shortened.
    pub fn sched(&self, tid: i32) -> String {
        let line = |name: &str, value: u64| format!("{name:<45}:{value:>21}\n");
        format!(
            "{} ({tid}, #threads: 1)\n{}\n{}{}{}{}",
            self.comm,
            "-".repeat(67),
            line("se.nr_migrations", self.migrations),
            line("nr_switches", self.voluntary + self.involuntary),
            line("nr_voluntary_switches", self.voluntary),
            line("nr_involuntary_switches", self.involuntary),
        )
    }

    /// `status`: proc_pid_status(5), shortened.
    pub fn status(&self, pid: i32, tid: i32) -> String {
        format!(
            "Name:\t{}\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t{pid}\nNgid:\t0\nPid:\t{tid}\n\
             PPid:\t1\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nThreads:\t1\nCpus_allowed:\tff\nCpus_allowed_list:\t{}\n\
             Mems_allowed_list:\t0\nvoluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
            self.comm,
            self.cpus_allowed,
            self.voluntary,
            self.involuntary,
            uid = self.uid,
        )
    }
}
