//! The demo's three micro-VMs: started and stopped together.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context};

use super::guest::Load;
use super::protocol::{Ready, Reply};
use super::vm;

/// Most time for a micro-VM to start its vCPUs; it needs milliseconds.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// One guest of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Activity of its vCPUs.
    pub load: Load,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// What the exporter should show, for the introduction.
    pub expect: &'static str,
}

impl Plan {
    /// The VM's name, which is its load's.
    pub fn name(&self) -> &'static str {
        self.load.name()
    }
}

/// The guests of the demo.
pub const PLANS: &[Plan] = &[
    Plan {
        load: Load::Spin,
        vcpus: 2,
        expect: "2 vCPUs that never stop: each 1 s/s of time, or its share of a core and the rest delay",
    },
    Plan {
        load: Load::Halt,
        vcpus: 1,
        expect: "halts and wakes up 100 times a second: almost no time, 100 voluntary switches/s",
    },
    Plan {
        load: Load::Io,
        vcpus: 1,
        expect: "1,000 port writes a second in bursts of 10: each an exit to user space, 100 voluntary switches/s",
    },
];

/// A running guest; killed on drop.
#[derive(Debug)]
pub struct Guest {
    /// Its description.
    pub plan: Plan,
    /// Its message when its vCPUs ran.
    pub ready: Ready,
    process: GuestProcess,
}

/// A child process that is killed on drop.
#[derive(Debug)]
struct GuestProcess(Child);

impl Drop for GuestProcess {
    fn drop(&mut self) {
        // Both fail only if the process has already ended and been reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All running guests. Dropping them kills and reaps them.
#[derive(Debug)]
pub struct Guests {
    guests: Vec<Guest>,
}

impl Guests {
    /// Starts all guests and waits until their vCPUs run.
    ///
    /// `exe` is this program: a guest is its hidden `micro-vm` command.
    ///
    /// # Errors
    /// If KVM is missing or a guest does not start; guests that have started are stopped.
    pub fn start(exe: &Path) -> anyhow::Result<Self> {
        vm::probe().context("the demo needs KVM")?;
        let mut starting = Vec::new();
        for (plan, number) in PLANS.iter().zip(1..) {
            starting.push(Starting::spawn(exe, *plan, number)?);
        }
        let deadline = Instant::now() + START_DEADLINE;
        let started = starting.into_iter().map(|guest| guest.wait(deadline));
        Ok(Self {
            guests: started.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The running guests, in the order of [`PLANS`].
    pub fn iter(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter()
    }

    /// Guests that ended by themselves since the last call. They are reaped, so that the exporter
    /// sees them disappear.
    pub(crate) fn take_ended(&mut self) -> Vec<GuestEnd> {
        let mut ended = Vec::new();
        self.guests.retain_mut(|guest| {
            let status = guest.process.0.try_wait().ok().flatten();
            ended.extend(status.map(|status| GuestEnd {
                name: guest.plan.name(),
                pid: guest.ready.pid,
                status,
            }));
            status.is_none()
        });
        ended
    }

    /// Stops all guests and waits until they have exited.
    pub fn stop(&mut self) {
        self.guests.clear();
    }
}

/// A guest that ended by itself.
#[derive(Debug)]
pub(crate) struct GuestEnd {
    name: &'static str,
    pid: u32,
    status: ExitStatus,
}

impl fmt::Display for GuestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pid, status } = self;
        write!(f, "The guest {name} (pid {pid}) has ended: {status}.")
    }
}

struct Starting {
    plan: Plan,
    process: GuestProcess,
    lines: Receiver<String>,
}

impl Starting {
    fn spawn(exe: &Path, plan: Plan, number: u32) -> anyhow::Result<Self> {
        let name = plan.name();
        let failed = || {
            format!(
                "cannot start the guest {name:?} ({} micro-vm)",
                exe.display()
            )
        };
        let mut child = Command::new(exe)
            .args(["micro-vm", "--control"])
            .args(["--name", name, "--load", name])
            .args(["--vcpus", &plan.vcpus.to_string()])
            .args(["--uuid", &uuid(std::process::id(), number)])
            // Its own process group: Ctrl-C goes to the demo, which then stops its guests.
            .process_group(0)
            // End of file tells the guest that the demo has ended, for whatever reason.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It reports errors on standard output.
            .stderr(Stdio::null())
            .spawn()
            .with_context(failed)?;
        let stdout = child.stdout.take();
        let process = GuestProcess(child);
        let (sender, lines) = mpsc::channel();
        thread::Builder::new()
            .name(format!("guest {name}"))
            .spawn(move || {
                let lines = stdout.map(|out| BufReader::new(out).lines());
                for line in lines.into_iter().flatten().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            })
            .with_context(failed)?;
        Ok(Self {
            plan,
            process,
            lines,
        })
    }

    fn wait(self, deadline: Instant) -> anyhow::Result<Guest> {
        let left = deadline.saturating_duration_since(Instant::now());
        let failed = format!("the guest {:?} did not start", self.plan.name());
        let line = match self.lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                bail!("{failed} within {} s", START_DEADLINE.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{failed}: it ended without a message"),
        };
        match serde_json::from_str(&line) {
            Ok(Reply::Ready(ready)) => Ok(Guest {
                plan: self.plan,
                ready,
                process: self.process,
            }),
            Ok(Reply::Error { error }) => bail!("{failed}: {error}"),
            _ => bail!("{failed}: unexpected answer {line:?}"),
        }
    }
}

/// A UUID whose first digits differ between the guests of two demos on one host. Version 8 (RFC
/// 9562, section 5.8): the content is application-defined.
fn uuid(pid: u32, number: u32) -> String {
    format!("{pid:08x}-0000-8000-8000-{number:012x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(exe: &str) -> String {
        let guest = Starting::spawn(Path::new(exe), PLANS[1], 1);
        guest
            .and_then(|guest| guest.wait(Instant::now() + START_DEADLINE))
            .map_err(|error| format!("{error:#}"))
            .unwrap_err()
    }

    #[test]
    fn failed_guest_is_reported_with_its_message() {
        let said = refusal("/bin/echo");
        assert!(
            said.contains("\"halt\" did not start: unexpected answer"),
            "{said}"
        );
        let said = refusal("/bin/true");
        assert!(said.contains("ended without a message"), "{said}");
        let said = refusal("/nonexistent");
        assert!(said.contains("/nonexistent micro-vm"), "{said}");
    }

    #[test]
    fn ended_guest_is_reported_once() {
        let child = Command::new("false").spawn().unwrap();
        let ready = Ready {
            ready: true,
            pid: 7,
            vcpus: Vec::new(),
        };
        let guest = Guest {
            plan: PLANS[2],
            ready,
            process: GuestProcess(child),
        };
        let mut guests = Guests {
            guests: vec![guest],
        };
        let deadline = Instant::now() + START_DEADLINE;
        let ended = loop {
            let ended = guests.take_ended();
            if !ended.is_empty() {
                break ended;
            }
            assert!(Instant::now() < deadline, "its end was not noticed");
        };
        let reported: Vec<String> = ended.iter().map(ToString::to_string).collect();
        assert_eq!(
            reported,
            ["The guest io (pid 7) has ended: exit status: 1."]
        );
        assert!(guests.take_ended().is_empty());
    }

    #[test]
    fn uuids_differ_and_have_the_right_shape() {
        assert_eq!(uuid(0x12ab, 3), "000012ab-0000-8000-8000-000000000003");
        assert_ne!(uuid(1, 1), uuid(2, 1));
    }
}
