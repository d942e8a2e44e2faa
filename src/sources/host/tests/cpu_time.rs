//! CPU time by core, on a host whose /proc/stat behaves as the kernel's may.

use super::*;

/// The ten numbers of a line, from user, system, iowait, idle and guest.
fn ticks([user, system, iowait, idle, guest]: [u64; 5]) -> [u64; 10] {
    [user + guest, 0, system, idle, iowait, 0, 0, 0, guest, 0]
}

/// A host with one package and two cores of two threads: CPUs 0 and 2 are one core.
fn host() -> FakeHost {
    let host = FakeHost::new();
    host.cpus(1, 2, 2, 1);
    host
}

/// Seconds of one core by mode, without those that are 0.
fn of_core(lines: &[String], core: u32) -> Vec<String> {
    let name = format!("core_seconds_total{{package=0,core={core},numa_node=0,mode=");
    let lines = lines.iter().filter_map(|line| line.strip_prefix(&name));
    let lines = lines.filter(|line| !line.ends_with(" 0s"));
    lines.map(|line| line.replace('}', "")).collect()
}

#[test]
fn threads_of_a_core_add_up_and_guest_time_is_counted_once() {
    let host = host();
    host.stat(&[
        (0, [700, 50, 10, 1000, 5, 1, 2, 3, 600, 20]),
        (1, ticks([1, 0, 0, 0, 0])),
        (2, [100, 0, 10, 2000, 0, 0, 0, 0, 100, 0]),
        (3, ticks([0; 5])),
    ]);
    let mut watched = Watched::new(&host, CpuTime::default());
    let lines = watched.read();
    assert_eq!((lines.len(), watched.code()), (2 * 8, ""));
    let expected = [
        "user 1.3s",
        "guest 7.2s",
        "system 0.2s",
        "irq 0.01s",
        "softirq 0.02s",
        "steal 0.03s",
        "iowait 0.05s",
        "idle 30s",
    ];
    assert_eq!(of_core(&lines, 0), expected);
    assert_eq!(of_core(&lines, 1), ["user 0.01s"]);
}

#[test]
fn small_step_back_is_ignored_until_caught_up() {
    let host = host();
    let mut watched = Watched::new(&host, CpuTime::default());
    let mut idle = |iowait, idle, guest| {
        host.stat(&[(0, ticks([5, 0, iowait, idle, guest]))]);
        of_core(&watched.read(), 0)
    };
    assert_eq!(
        idle(10, 1000, 100),
        ["user 0.05s", "guest 1s", "iowait 0.1s", "idle 10s"]
    );
    assert_eq!(
        idle(8, 990, 101),
        ["user 0.05s", "guest 1.01s", "iowait 0.1s", "idle 10s"]
    );
    assert_eq!(
        idle(12, 1010, 101),
        ["user 0.05s", "guest 1.01s", "iowait 0.12s", "idle 10.1s"]
    );
}

#[test]
fn cpu_that_comes_back_online_continues() {
    let host = host();
    let online = |idle| (0, ticks([0, 0, 0, idle, 0]));
    let other = (2, ticks([0, 0, 0, 500, 0]));
    host.stat(&[online(100_000), other]);
    let mut watched = Watched::new(&host, CpuTime::default());
    let mut idle = |cpus: &[(u32, [u64; 10])], listed: &str| {
        host.stat(cpus).online(listed);
        of_core(&watched.read(), 0)
    };
    assert_eq!(idle(&[online(100_000), other], "0-3"), ["idle 1005s"]);
    assert_eq!(idle(&[other], "1-3"), ["idle 1005s"], "offline");
    // Before Linux 6.8, idle time restarts at 0.
    assert_eq!(idle(&[online(7), other], "0-3"), ["idle 1005s"]);
    assert_eq!(idle(&[online(107), other], "0-3"), ["idle 1006s"]);
}

#[test]
fn cpu_that_comes_online_later_adds_no_jump() {
    let host = host();
    host.online("0-1").stat(&[(0, ticks([100, 0, 0, 0, 0]))]);
    let mut watched = Watched::new(&host, CpuTime::default());
    assert_eq!(of_core(&watched.read(), 0), ["user 1s"]);
    host.online("0-3").stat(&[
        (0, ticks([200, 0, 0, 0, 0])),
        (2, ticks([50_000, 0, 0, 0, 0])),
    ]);
    assert_eq!(of_core(&watched.read(), 0), ["user 2s"]);
    host.stat(&[(2, ticks([50_100, 0, 0, 0, 0]))]);
    assert_eq!(of_core(&watched.read(), 0), ["user 3s"]);
}

#[test]
fn missing_lines_and_an_empty_file_have_a_reason() {
    let host = host();
    let mut watched = Watched::new(&host, CpuTime::default());
    host.stat(&[(1, ticks([100, 0, 0, 0, 0])), (77, ticks([1; 5]))]);
    assert_eq!(of_core(&watched.read(), 1), ["user 1s"]);
    assert_eq!(watched.code(), "no_cpu_line");
    let detail = watched.state.reason().unwrap().detail.clone();
    assert!(detail.ends_with("for 3 of the online CPUs"), "{detail}");
    for text in ["", "cpu 1 2 3 4 5 6 7 8 9 10\n", "cpu1 many\n", "\0\u{ff}"] {
        host.file("proc/stat", text);
        assert_eq!(of_core(&watched.read(), 1), ["user 1s"], "{text:?}");
        assert_eq!(watched.code(), "unreadable", "{text:?}");
    }
    let huge = format!("cpu1 {}\n", [u64::MAX.to_string().as_str(); 10].join(" "));
    host.file("proc/stat", huge);
    assert_eq!(of_core(&watched.read(), 1), ["user 1s"]);
    host.stat(&[(1, ticks([250, 0, 0, 0, 0]))]);
    assert_eq!(
        of_core(&watched.read(), 1),
        ["user 2.5s"],
        "counting continues"
    );
}
