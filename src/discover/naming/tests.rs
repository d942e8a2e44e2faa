use super::*;
use crate::discover::label::clean;
use proptest::prelude::*;

const A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const B: &str = "bbbbbbbb-0000-4000-8000-000000000001";

/// A VM of user 1000; a higher PID is younger.
fn vm<'a>(base: &'a str, uuid: Option<&'a str>, pid: i32) -> Unnamed<'a> {
    Unnamed {
        key: VmKey {
            pid,
            start_time: pid as u64,
            ordinal: 0,
        },
        base,
        uuid,
        owner: Owner::User(Some(1000)),
        trust: Trust::default(),
    }
}

fn of_user(uid: u32, vm: Unnamed<'_>) -> Unnamed<'_> {
    Unnamed {
        owner: Owner::User(Some(uid)),
        ..vm
    }
}

fn trusted<'a>(base: &'a str, uuid: Option<&'a str>, pid: i32) -> Unnamed<'a> {
    let runner = Runner::Host;
    Unnamed {
        owner: Owner::Host,
        trust: Trust {
            runner,
            ..Trust::default()
        },
        ..vm(base, uuid, pid)
    }
}

fn unique(vms: &[Unnamed<'_>]) -> Vec<String> {
    Names::default().give(vms)
}

#[test]
fn no_name_takes_another_from_a_vm_more_to_be_trusted() {
    let real = trusted("web", Some(A), 1);
    assert_eq!(
        unique(&[vm("web", Some(A), 2), real.clone()]),
        ["web-aaaaaaaa", "web"]
    );
    // A name equal to another VM's suffixed name does not take it either.
    let twin = trusted("web", Some(B), 3);
    let names = unique(&[vm("web-bbbbbbbb", None, 2), real.clone(), twin]);
    assert_eq!(names, ["web-bbbbbbbb-2", "web", "web-bbbbbbbb"]);
    // Every suffixed name may be the base name of another VM.
    let all = ["web-2", "web-2-0", "web-2-0-4"].map(|name| trusted(name, None, 9));
    let [a, b, c] = all;
    let names = unique(&[vm("web", None, 2), real, a, b, c]);
    assert_eq!(names, ["web-2-0-5", "web", "web-2", "web-2-0", "web-2-0-4"]);
}

#[test]
fn at_first_sight_the_older_of_one_name_has_it() {
    let names = unique(&[vm("a", Some(B), 2), vm("a", Some(A), 1), vm("b", None, 3)]);
    assert_eq!(names, ["a-bbbbbbbb", "a", "b"]);
    let names = unique(&[vm("a", None, 2), vm("a", None, 1)]);
    assert_eq!(names, ["a-2", "a"], "without a uuid, the PID is the suffix");
}

#[test]
fn vms_of_one_uuid_or_one_process_stay_separate() {
    let all = [1, 2, 3].map(|pid| vm("a", Some(A), pid));
    assert_eq!(unique(&all), ["a", "a-aaaaaaaa", "a-3"]);
    let mut second = vm("a", None, 1);
    second.key.ordinal = 20;
    let mut third = second.clone();
    third.key.ordinal = 21;
    assert_eq!(
        unique(&[vm("a", None, 1), second, third]),
        ["a", "a-1", "a-1-21"]
    );
}

#[test]
fn a_namesake_that_appears_gets_the_suffix_also_when_it_is_older() {
    let mut names = Names::default();
    assert_eq!(names.give(&[vm("a", Some(A), 5)]), ["a"]);
    let both = [vm("a", Some(B), 4), vm("a", Some(A), 5)];
    assert_eq!(names.give(&both), ["a-bbbbbbbb", "a"]);
    // It keeps the suffix when the other VM ends, whichever owner that VM had.
    assert_eq!(names.give(&both[..1]), ["a-bbbbbbbb"]);
    let third = [both[0].clone(), vm("a", Some(A), 6)];
    assert_eq!(names.give(&third), ["a-bbbbbbbb", "a"]);
}

#[test]
fn a_name_passes_to_the_same_owner_and_to_those_more_to_be_trusted_alone() {
    let mut names = Names::default();
    assert_eq!(names.give(&[of_user(7, vm("db", None, 1))]), ["db"]);
    assert_eq!(names.give(&[]), [""; 0]);
    assert_eq!(names.give(&[of_user(8, vm("db", None, 2))]), ["db-2"]);
    assert_eq!(names.give(&[of_user(7, vm("db", None, 3))]), ["db"]);
    assert_eq!(names.give(&[trusted("db", None, 4)]), ["db"]);
    assert_eq!(names.give(&[]), [""; 0]);
    assert_eq!(names.give(&[of_user(7, vm("db", None, 5))]), ["db-5"]);
    assert_eq!(names.give(&[trusted("db", None, 6)]), ["db"], "restarted");
}

#[test]
fn a_squatter_is_renamed_and_does_not_get_the_name_back() {
    let mut names = Names::default();
    let (squatter, real) = (vm("db", Some(B), 1), trusted("db", Some(A), 2));
    assert_eq!(names.give(std::slice::from_ref(&squatter)), ["db"]);
    let both = [squatter.clone(), real];
    assert_eq!(names.give(&both), ["db-bbbbbbbb", "db"]);
    assert_eq!(names.give(&[squatter]), ["db-bbbbbbbb"]);
}

#[test]
fn a_vm_that_is_trusted_later_or_less_for_a_moment_keeps_its_name() {
    let mut names = Names::default();
    let known = |known, vm: Unnamed<'static>| Unnamed {
        trust: Trust { known, ..vm.trust },
        ..vm
    };
    let (first, second) = (trusted("db", Some(A), 1), trusted("db", Some(B), 2));
    let expected = ["db", "db-bbbbbbbb"];
    for (a, b) in [(false, false), (false, true), (true, false), (false, true)] {
        let vms = [known(a, first.clone()), known(b, second.clone())];
        assert_eq!(names.give(&vms), expected);
    }
}

#[test]
fn a_vm_that_is_renamed_has_its_new_name_and_may_return() {
    let mut names = Names::default();
    assert_eq!(names.give(&[vm("old", None, 1)]), ["old"]);
    assert_eq!(names.give(&[vm("new", None, 1)]), ["new"]);
    let both = [vm("new", None, 1), of_user(7, vm("old", None, 2))];
    assert_eq!(names.give(&both), ["new", "old-2"]);
    assert_eq!(names.give(&[vm("old", None, 1)]), ["old"]);
}

#[test]
fn uuids_have_one_form() {
    assert_eq!(
        uuid("AAAAAAAA-0000-4000-8000-000000000001").as_deref(),
        Some(A)
    );
    assert_eq!(uuid("aaaaaaaa000040008000000000000001").as_deref(), Some(A));
    for text in [
        "",
        "web",
        "00000000-0000-0000-0000-000000000000",
        "aaaaaaaa-0000-4000-8000-00000000000g",
        "aaaaaaaa0-000-4000-8000-000000000001",
    ] {
        assert_eq!(uuid(text), None, "{text}");
    }
}

/// Running VMs: name, uuid, whether the host owns it.
fn some_vms() -> impl Strategy<Value = Vec<(String, Option<&'static str>, bool)>> {
    let name =
        "(a|b|a-1|a-1-0|a-2|\\PC{0,200})".prop_map(|name| clean(&name).unwrap_or("x".into()));
    prop::collection::vec((name, prop::option::of(Just(A)), any::<bool>()), 1..12)
}

proptest! {
    #[test]
    fn names_are_unique_clean_and_bounded(vms in some_vms()) {
        let vms: Vec<Unnamed<'_>> = vms.iter().enumerate().map(|(n, (base, uuid, host))| {
            let make = if *host { trusted } else { vm };
            make(base, *uuid, n as i32 + 1)
        }).collect();
        let names = unique(&vms);
        let of_host = |vm: &Unnamed<'_>| vm.owner == Owner::Host;
        let real: Vec<_> = vms.iter().filter(|vm| of_host(vm)).cloned().collect();
        let of_real: Vec<String> = names.iter().zip(&vms).filter(|(_, vm)| of_host(vm)).map(|(name, _)| name.clone()).collect();
        prop_assert_eq!(unique(&real), of_real, "as if the others were not there");
        let different: HashSet<&String> = names.iter().collect();
        prop_assert_eq!(different.len(), vms.len());
        prop_assert!(names.iter().all(|n| n.len() <= MAX_LENGTH && !n.chars().any(char::is_control)));
    }

    /// VMs start and end; a name changes only if a VM of the host takes it.
    #[test]
    fn a_running_vm_keeps_its_name(vms in some_vms(), steps in prop::collection::vec(any::<u16>(), 1..20)) {
        let vms: Vec<Unnamed<'_>> = vms.iter().enumerate().map(|(n, (base, uuid, host))| {
            let make = if *host { trusted } else { vm };
            make(base, *uuid, n as i32 + 1)
        }).collect();
        let mut names = Names::default();
        let mut before: HashMap<VmKey, String> = HashMap::new();
        for step in steps {
            let running: Vec<_> = vms.iter().enumerate().filter(|(n, _)| step >> n & 1 == 1).map(|(_, vm)| vm.clone()).collect();
            let given = names.give(&running);
            let now: HashMap<VmKey, String> = running.iter().map(|vm| vm.key).zip(given).collect();
            for vm in &running {
                let (was, is) = (before.get(&vm.key), &now[&vm.key]);
                let taker = |name: &String| running.iter().any(|o| o.trust > vm.trust && &now[&o.key] == name);
                prop_assert!(was.is_none_or(|was| was == is || taker(was)));
            }
            prop_assert_eq!(now.values().collect::<HashSet<_>>().len(), running.len());
            before = now;
        }
    }

    #[test]
    fn any_text_is_a_uuid_or_not(text in "\\PC{0,40}") {
        prop_assert!(uuid(&text).is_none_or(|u| u.len() == 36));
    }
}
