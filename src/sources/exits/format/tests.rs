use super::*;
use proptest::prelude::*;

/// From Linux 6.18 on x86-64, as the kernel shows it.
const X86: &str = include_str!("kvm_exit-x86-6.18.txt");

/// From Linux 6.12 on arm64.
const ARM: &str = include_str!("kvm_exit-arm64-6.12.txt");

fn filter(reasons: &Reasons, name: &str) -> Option<String> {
    reasons.known.get(name).map(Filter::to_string)
}

#[test]
fn vmx_and_svm_are_separate() {
    let vmx = reasons(X86, Isa::Vmx);
    let svm = reasons(X86, Isa::Svm);
    // Numbers from arch/x86/include/uapi/asm/{vmx,svm}.h.
    for (reasons, name, expected) in [
        (&vmx, "hlt", "exit_reason==12&&isa==1"),
        (&svm, "hlt", "exit_reason==120&&isa==2"),
        (&vmx, "ept_violation", "exit_reason==48&&isa==1"),
        (&svm, "io", "exit_reason==123&&isa==2"),
        (&svm, "npf", "exit_reason==1024&&isa==2"),
        (&svm, "pf_excp", "exit_reason==78&&isa==2"),
        (&svm, "idle_halt", "exit_reason==166&&isa==2"),
        (
            &svm,
            "vmgexit_ap_creation",
            "exit_reason==2147483667&&isa==2",
        ),
        (
            &svm,
            "invalid_guest_state",
            "exit_reason==4294967295&&isa==2",
        ),
    ] {
        assert_eq!(filter(reasons, name).as_deref(), Some(expected), "{name}");
    }
    assert_eq!((vmx.known.len(), svm.known.len()), (65, 110));
}

#[test]
fn table_of_64_bit_exit_codes_is_read_like_one_of_32_bits() {
    let (first, second) = X86.rsplit_once("__print_symbolic(").unwrap();
    let wide = format!("{first}__print_symbolic_u64({second}");
    for isa in [Isa::Vmx, Isa::Svm] {
        assert_eq!(reasons(&wide, isa), reasons(X86, isa));
    }
}

#[test]
fn names_of_the_other_vendor_are_known_as_such() {
    let vmx = reasons(X86, Isa::Vmx);
    assert!(vmx.elsewhere.contains("npf") && !vmx.elsewhere.contains("hlt"));
    assert!(reasons(X86, Isa::Svm).elsewhere.contains("ept_violation"));
}

#[test]
fn flags_are_no_reasons() {
    let vmx = reasons(X86, Isa::Vmx);
    let both = |name| vmx.known.contains_key(name) || vmx.elsewhere.contains(name);
    assert!(!both("failed_vmentry"));
}

#[test]
fn arm_has_return_codes_and_exception_classes() {
    let arm = reasons(ARM, Isa::Arm);
    assert!(is_arm(ARM) && !is_arm(X86));
    for (name, expected) in [
        ("irq", "ret==0"),
        ("serror", "ret==1"),
        ("hyp_gone", "ret==195938833"),
        ("unknown", "esr_ec==0&&ret==2"),
        ("wfx", "esr_ec==1&&ret==2"),
        ("dabt_low", "esr_ec==36&&ret==2"),
    ] {
        assert_eq!(filter(&arm, name).as_deref(), Some(expected), "{name}");
    }
    // 35 classes and 4 return codes: serror is in both, and traps are named by their class.
    assert_eq!(arm.known.len(), 35 + 4 - 2);
    assert!(arm.elsewhere.is_empty());
}

#[test]
fn invalid_entries_are_skipped() {
    let read = |text| entries(text);
    assert_eq!(
        read("{ SYMBOL, \"a\" }, { 2, \"b\" \"c\" })"),
        [(2, "bc".into())]
    );
    assert_eq!(read("{ 99999999999, \"a\" })"), []);
    assert_eq!(read("{ 1, \"a"), []);
    assert_eq!(read("{ 1 }, { 2, \"b\" }").len(), 0);
}

#[test]
fn vmx_reasons_are_known_by_number() {
    let names = vmx_names(X86);
    let name = |number| names.get(&number).map(String::as_str);
    // SDM volume 3, appendix C: HLT, I/O instruction, EPT violation.
    assert_eq!(name(12), Some("hlt"));
    assert_eq!(name(30), Some("io_instruction"));
    assert_eq!(name(48), Some("ept_violation"));
    assert_eq!(name(0x78), None, "SVM's HLT");
    assert!(vmx_names("").is_empty());
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_skipped(text in "(__print_symbolic\\(REC->(exit_reason|ret|esr_ec), )?(\\{ ?[-0-9xa-fUL+() ]{0,12},? ?\"\\PC{0,6}\"? ?\\}?,? ?){0,6}") {
        for isa in [Isa::Vmx, Isa::Svm, Isa::Arm] {
            for name in reasons(&text, isa).known.keys() {
                prop_assert!(name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()));
            }
        }
    }

    #[test]
    fn truncated_text_gives_no_wrong_number(at in 0..X86.len()) {
        let whole = reasons(X86, Isa::Svm).known;
        // A text cut between the tables has only the first one, which is not this one.
        for (name, filter) in reasons(&X86[..at], Isa::Svm).known {
            prop_assert_eq!(whole.get(&name), Some(&filter));
        }
    }
}
