//! What a controlled micro-VM is told and answers, line by line.
//!
//! It prints one JSON line when it is ready and one for each command it reads ([`Reply`]).
//!
//! | command | does |
//! |---|---|
//! | `add-vcpu` | starts one more vCPU |
//! | `pin INDEX CPU` | lets a vCPU's thread run on that CPU only |
//! | `stats` | tells what each vCPU has done |
//! | `stop` | ends the process |

use serde::{Deserialize, Serialize};

/// One line of a controlled micro-VM's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// It runs; said once, first.
    Ready(Ready),
    /// To `stats`.
    Stats(Stats),
    /// To `add-vcpu`.
    Added {
        /// The new vCPU.
        added: VcpuThread,
    },
    /// To `pin`.
    Pinned {
        /// The vCPU's index.
        pinned: u32,
        /// The only CPU it may run on now.
        cpu: u32,
    },
    /// To `stop`.
    Stopped {
        /// Always true.
        stopped: bool,
    },
    /// To a command that failed, or the reason it ends.
    Error {
        /// What failed, and why.
        error: String,
    },
}

/// Said when all vCPU threads run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// Process id, as the micro-VM itself sees it.
    pub pid: u32,
    /// Its vCPUs, by index.
    pub vcpus: Vec<VcpuThread>,
}

/// Which thread runs a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuThread {
    /// The vCPU's index.
    pub index: u32,
    /// Its thread id, as the micro-VM itself sees it.
    pub tid: i32,
}

/// What the vCPUs have done since they were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// One for each vCPU, by index.
    pub vcpus: Vec<VcpuStats>,
    /// The monotonic clock after the vCPUs were looked at, in nanoseconds.
    pub monotonic_ns: u64,
}

/// What one vCPU has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuStats {
    /// The vCPU's index.
    pub index: u32,
    /// The monotonic clock when its thread began, in nanoseconds; wake-ups are due each
    /// [`WAKE_PERIOD`](super::micro_vm::WAKE_PERIOD) from there.
    pub started_ns: u64,
    /// CPU time of its thread, in nanoseconds.
    pub cpu_ns: u64,
    /// Turns by the guest's own count ([`Load`](super::guest::Load) says what one is); wraps at 2^32.
    pub turns: u32,
    /// Returns to user space.
    pub exits: u64,
    /// Of these, halts.
    pub halts: u64,
    /// Of these, writes to the port.
    pub writes: u64,
    /// Wake-ups left out because the thread was more than a second behind.
    pub skipped: u64,
}

/// What a controlled micro-VM can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    AddVcpu,
    Pin { index: u32, cpu: u32 },
    Stats,
    Stop,
}

impl Command {
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["add-vcpu"] => Ok(Command::AddVcpu),
            ["stats"] => Ok(Command::Stats),
            ["stop"] => Ok(Command::Stop),
            ["pin", index, cpu] => Ok(Command::Pin {
                index: number(index)?,
                cpu: number(cpu)?,
            }),
            _ => Err(format!(
                "{line:?} is none of: add-vcpu, pin INDEX CPU, stats, stop"
            )),
        }
    }
}

fn number(word: &str) -> Result<u32, String> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_line_is_a_command_or_refused(line in ".*", index: u32, cpu: u32) {
            let _ = Command::parse(&line);
            let pin = Command::Pin { index, cpu };
            prop_assert_eq!(Command::parse(&format!("pin {index} {cpu}")), Ok(pin));
        }
    }

    #[test]
    fn commands_are_told_from_nonsense() {
        let pin = Command::Pin { index: 1, cpu: 12 };
        assert_eq!(Command::parse(" pin 1  12 "), Ok(pin));
        assert_eq!(Command::parse("stats"), Ok(Command::Stats));
        assert!(Command::parse("").is_err());
        assert!(Command::parse("pin 1").is_err());
        assert!(Command::parse("pin 1 -1").unwrap_err().contains("\"-1\""));
        assert!(Command::parse("stop now").is_err());
    }

    #[test]
    fn replies_are_read_back_as_what_they_were() {
        let thread = VcpuThread { index: 0, tid: 7 };
        let replies = [
            Reply::Ready(Ready {
                ready: true,
                pid: 5,
                vcpus: vec![thread],
            }),
            Reply::Stats(Stats {
                vcpus: vec![],
                monotonic_ns: 1,
            }),
            Reply::Added { added: thread },
            Reply::Pinned { pinned: 0, cpu: 1 },
            Reply::Stopped { stopped: true },
            Reply::Error { error: "no".into() },
        ];
        for reply in replies {
            let line = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
        }
    }
}
