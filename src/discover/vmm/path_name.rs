//! Derives a VM name from a path among the arguments of a VMM without an option for names.
//!
//! Some managers put the name in the file name (`/run/ch/web.sock`), others in a parent directory
//! with the same file name for all VMs (`/run/kata/ID/ch-api.sock`, the jailer's
//! `…/ID/root/run/…`). The name is the innermost component that is more than a kind of file or
//! program.

/// Words for VMMs, their sockets and their files. A component of such words alone is not a name.
const WORDS: &[&str] = &[
    "alioth",
    "api",
    "ch",
    "clh",
    "cfg",
    "cloud",
    "conf",
    "config",
    "control",
    "crosvm",
    "ctl",
    "ctrl",
    "event",
    "fc",
    "fifo",
    "firecracker",
    "http",
    "hypervisor",
    "json",
    "kvm",
    "machine",
    "micro",
    "monitor",
    "qemu",
    "qmp",
    "rest",
    "sock",
    "sockets",
    "socket",
    "unix",
    "virt",
    "vm",
    "vmm",
    "vms",
];

/// Directories shared by many VMs, or internal to one VM. Includes those of managers that use the
/// same path in each VM's container (Virtink: /var/run/virtink/ch.sock).
const SHARED: &[&str] = &[
    "..",
    "cache",
    "containerd",
    "cuttlefish",
    "data",
    "dev",
    "etc",
    "flintlock",
    "home",
    "ignite",
    "instances",
    "internal",
    "jailer",
    "kata",
    "kubevirt",
    "lib",
    "libvirt",
    "local",
    "mnt",
    "nix",
    "nomad",
    "opt",
    "private",
    "root",
    "run",
    "share",
    "shm",
    "srv",
    "state",
    "store",
    "tmp",
    "user",
    "usr",
    "var",
    "vc",
    "virtink",
];

/// A longer component is a name, not a sequence of words (bytes).
const MAX_WORDS: usize = 48;

/// The name in a path; a relative path is below `cwd`. `None` if any VM of the host could have such
/// a path.
pub(super) fn find_name(path: &str, cwd: Option<&str>) -> Option<String> {
    // '@' stands for the NUL of an abstract socket (unix(7)).
    let path = path.strip_prefix('@').unwrap_or(path);
    let above = cwd.filter(|_| !path.starts_with('/')).unwrap_or_default();
    let path = in_nix_store(path).unwrap_or(path);
    let mut inwards = path.split('/').rev().chain(above.split('/').rev());
    let stem = stem(inwards.next()?);
    if !is_generic(stem) {
        return Some(stem.to_owned());
    }
    let dirs: Vec<&str> = inwards.filter(|dir| !matches!(*dir, "" | ".")).collect();
    let named = |n: &usize| {
        let outer = dirs.get(n + 1).copied();
        !is_shared(dirs[*n], outer)
    };
    (0..dirs.len()).find(named).map(|n| dirs[n].to_owned())
}

/// The part after the hash in `/nix/store/HASH-…`; the hash changes with any input of the file.
fn in_nix_store(path: &str) -> Option<&str> {
    /// Characters of a hash (Nix's src/libstore/path.cc, `HashLen`).
    const HASH: usize = 32;
    let (hash, rest) = path.strip_prefix("/nix/store/")?.split_once('-')?;
    let is_hash = hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_alphanumeric());
    is_hash.then_some(rest)
}

/// The file name without its extension.
fn stem(file: &str) -> &str {
    match file.rsplit_once('.') {
        Some((stem, end)) if end.bytes().all(|b| b.is_ascii_alphabetic()) => stem,
        _ => file,
    }
}

/// Whether a directory does not name a VM. Those below /home and /run/user name users.
fn is_shared(dir: &str, outer: Option<&str>) -> bool {
    let number = dir.bytes().all(|b| b.is_ascii_digit());
    let of_user = outer == Some("home") || (outer == Some("user") && number);
    of_user || SHARED.contains(&dir) || is_generic(dir)
}

/// Whether a component consists only of [`WORDS`], joined (`cloudhypervisor`) or separated
/// (`clh-api`). A number distinguishes VMs: `vm1` is a name.
pub(in crate::discover) fn is_generic(component: &str) -> bool {
    let component = component.to_ascii_lowercase();
    let tokens = component.split(|c: char| !c.is_alphanumeric());
    component.len() <= MAX_WORDS && tokens.filter(|t| !t.is_empty()).all(is_words)
}

fn is_words(token: &str) -> bool {
    let rests = WORDS.iter().filter_map(|word| token.strip_prefix(word));
    rests
        .into_iter()
        .any(|rest| rest.is_empty() || is_words(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn path_names_a_vm_by_what_is_its_own() {
        let cases = [
            ("/run/ch/web.sock", Some("web")),
            ("web", Some("web")),
            ("/run/user/1000/cloudy.sock", Some("cloudy")),
            ("/srv/fc/vm1.sock", Some("vm1")),
            ("/tmp/ch-2.sock", Some("ch-2")),
            ("/run/vc/vm/3f6c0d7a9e/clh-api.sock", Some("3f6c0d7a9e")),
            ("/run/kata/9b1d2e3f4a/ch-api.sock", Some("9b1d2e3f4a")),
            ("/vm/vmcw3k0x/ch-api.sock", Some("vmcw3k0x")),
            ("/vm/100/api.socket", Some("100")),
            ("/run/flintlock/0ujss/cloudhypervisor.sock", Some("0ujss")),
            (
                "/srv/jailer/firecracker/a1/root/run/firecracker.socket",
                Some("a1"),
            ),
            (
                "/var/tmp/cvd/cvd-1/internal/crosvm_control.sock",
                Some("cvd-1"),
            ),
            ("/var/lib/vms/db/run/VMM.sock", Some("db")),
            ("/var/lib/vms/db/vm_config.json", Some("db")),
            ("/var/run/virtink/ch.sock", None),
            (
                "/nix/store/0cg1v9wz3nq5y8b7l2k4j6h8g0f1d3s5-firecracker-web.json",
                Some("firecracker-web"),
            ),
            ("/nix/store/0cg1v9wz3nq5y8b7l2k4j6h8g0f1d3s5-vm.json", None),
            ("/nix/store/web.json", Some("web")),
            ("@web", Some("web")),
            ("@cloud-hypervisor", None),
            ("/tmp/cloud-hypervisor.sock", None),
            ("/run/firecracker.socket", None),
            ("/run/user/1000/api.sock", None),
            ("/home/alice/.firecracker.sock", None),
            ("/run/vms/sockets/ctl.sock", None),
            ("ch.sock", None),
            ("", None),
            ("/", None),
        ];
        for (path, name) in cases {
            assert_eq!(find_name(path, None).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn relative_path_belongs_to_the_working_directory() {
        let cwd = Some("/var/lib/microvms/my-vm");
        assert_eq!(find_name("api.sock", cwd).as_deref(), Some("my-vm"));
        assert_eq!(find_name("./run/api.sock", cwd).as_deref(), Some("my-vm"));
        assert_eq!(find_name("web.sock", cwd).as_deref(), Some("web"));
        assert_eq!(find_name("/run/api.sock", cwd), None);
        assert_eq!(find_name("api.sock", Some("/")), None);
    }

    #[test]
    fn long_rows_of_words_end() {
        assert_eq!(
            find_name(&format!("/{}", "vmch".repeat(100_000)), None).map(|n| n.len()),
            Some(400_000)
        );
        assert_eq!(find_name(&"vmm".repeat(16), None), None);
    }

    proptest! {
        #[test]
        fn any_path_has_a_name_or_none(path in "\\PC{0,60}", cwd in prop::option::of("(/|[a-z./]{0,20})")) {
            let name = find_name(&path, cwd.as_deref());
            prop_assert!(name.is_none_or(|name| !name.is_empty()));
        }
    }
}
