//! Commands and answers of a micro-VM with `--control`, line by line.
//!
//! It prints one JSON line when it is ready, and one for each command ([`Reply`]).
//!
//! | command | effect |
//! |---|---|
//! | `add-vcpu` | starts one more vCPU |
//! | `pin INDEX CPU` | restricts a vCPU's thread to that CPU |
//! | `stats` | reports the counters of each vCPU |
//! | `stop` | ends the process |

use serde::{Deserialize, Serialize};

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// All vCPUs run; sent once, first.
    Ready(Ready),
    /// Answers `stats`.
    Stats(Stats),
    /// Answers `add-vcpu`.
    Added {
        /// The new vCPU.
        added: VcpuThread,
    },
    /// Answers `pin`.
    Pinned {
        /// The vCPU's index.
        pinned: u32,
        /// The CPU that it is restricted to.
        cpu: u32,
    },
    /// Answers `stop`.
    Stopped {
        /// Always true.
        stopped: bool,
    },
    /// A command failed, or the micro-VM ends because of an error.
    Error {
        /// What failed, with its causes.
        error: String,
    },
}

/// Sent when all vCPU threads run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// PID in the micro-VM's namespace.
    pub pid: u32,
    /// Its vCPUs, by index.
    pub vcpus: Vec<VcpuThread>,
}

/// A vCPU's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuThread {
    /// The vCPU's index.
    pub index: u32,
    /// TID in the micro-VM's namespace.
    pub tid: i32,
}

/// Counters of all vCPUs since their creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// One for each vCPU, by index.
    pub vcpus: Vec<VcpuStats>,
    /// Monotonic clock after the counters were read, in nanoseconds.
    pub monotonic_ns: u64,
}

/// Counters of one vCPU since its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuStats {
    /// The vCPU's index.
    pub index: u32,
    /// Monotonic clock when its thread started, in nanoseconds. Wake-ups are due every
    /// [`WAKE_PERIOD`](super::micro_vm::WAKE_PERIOD) from then on.
    pub started_ns: u64,
    /// CPU time of its thread, in nanoseconds.
    pub cpu_ns: u64,
    /// Turns counted by the guest (defined by its [`Load`](super::guest::Load)); wraps at 2^32.
    pub turns: u32,
    /// Returns to user space.
    pub exits: u64,
    /// Exits that were halts.
    pub halts: u64,
    /// Exits that were writes to the port.
    pub writes: u64,
    /// Skipped wake-ups: the thread was more than a second behind.
    pub skipped: u64,
}

/// A parsed command.
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
                "unknown command {line:?}: expected add-vcpu, pin INDEX CPU, stats or stop"
            )),
        }
    }
}

fn number(word: &str) -> Result<u32, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is not a number"))
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
    fn invalid_commands_are_refused() {
        let pin = Command::Pin { index: 1, cpu: 12 };
        assert_eq!(Command::parse(" pin 1  12 "), Ok(pin));
        assert_eq!(Command::parse("stats"), Ok(Command::Stats));
        assert!(Command::parse("").is_err());
        assert!(Command::parse("pin 1").is_err());
        assert!(Command::parse("pin 1 -1").unwrap_err().contains("\"-1\""));
        assert!(Command::parse("stop now").is_err());
    }

    #[test]
    fn replies_survive_a_round_trip() {
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
