//! Who a read of a process is charged to.

use super::cgroup::{memberships, session_user};
use super::number::decimal;
use super::readers::Payer;
use super::roots::Roots;
use super::thread::{after, user};

impl Payer {
    /// From the texts of /proc/PID/status and cgroup. The user of a login session is accountable
    /// for its processes, because a user namespace gives its creator thousands of other uids
    /// (subuid(5)).
    pub(crate) fn identify(pid: i32, status: &[u8], cgroup: &[u8]) -> Self {
        let cgroup = String::from_utf8_lossy(cgroup);
        let of_session = memberships(&cgroup).find_map(|group| session_user(group.path));
        let uid = of_session.or(user(status)).unwrap_or(u32::MAX);
        Self { pid, uid }
    }

    /// For reads of a thread or process, as far as /proc shows it.
    pub(crate) fn of_thread(roots: &Roots, tid: i32) -> Self {
        let dir = roots.proc.join(tid.to_string());
        let status = roots.read(&dir.join("status")).unwrap_or_default();
        let cgroup = roots.read(&dir.join("cgroup")).unwrap_or_default();
        Self::identify(process(&status).unwrap_or(tid), &status, &cgroup)
    }
}

/// The PID in a thread's `status`.
fn process(status: &[u8]) -> Option<i32> {
    decimal(after(status, b"Tgid:")?.trim_ascii())?
        .try_into()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payer(pid: i32, uid: u32) -> Payer {
        Payer { pid, uid }
    }

    #[test]
    fn a_login_session_answers_for_its_processes() {
        let status = b"Name:\tx\nUid:\t100000\t100000\t100000\t100000\n";
        let of = |cgroup: &[u8]| Payer::identify(7, status, cgroup);
        let session = b"0::/user.slice/user-1000.slice/user@1000.service/x\n";
        assert_eq!(of(session), payer(7, 1000));
        assert_eq!(of(b"0::/machine.slice\n"), payer(7, 100_000));
        let feigned = b"0::/docker/1a/user.slice/user-0.slice\n";
        assert_eq!(of(feigned), payer(7, 100_000));
        assert_eq!(Payer::identify(7, b"", b""), payer(7, u32::MAX));
        assert_eq!(process(b"Name:\tx\nTgid:\t12\nPid:\t13\n"), Some(12));
    }
}
