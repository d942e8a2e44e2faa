//! Identifies the program of a process by independent evidence.
//!
//! - `/proc/PID/exe`: the file that runs. A wrapper cannot change it; reading it requires the
//!   rights of a debugger.
//! - `argv[0]`: chosen by the caller of execve(2). microvm.nix starts every VMM with `exec -a
//!   microvm@NAME`.
//! - The name of the first thread: set by the kernel from the file at execve(2), cut at 15 bytes;
//!   the program can change it (QEMU's `-name process=`).

use super::cmdline::{file_name, Cmdline};

/// Evidence of the program: file names without directories.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Program {
    /// From `/proc/PID/exe`; `None` if it cannot be read.
    pub(super) exe: Option<String>,
    /// From `argv[0]`.
    pub(super) called: String,
    /// Name of the first thread.
    pub(super) comm: String,
}

impl Program {
    /// `exe` is the target of `/proc/PID/exe`.
    pub(super) fn new(exe: Option<&str>, cmdline: &Cmdline, comm: &str) -> Self {
        let file = exe.map(|path| match executable(path) {
            loader if is_loader(loader) => loaded(cmdline).unwrap_or(loader).to_owned(),
            file => file.to_owned(),
        });
        Self {
            exe: file,
            called: unwrapped(cmdline.program()).to_owned(),
            comm: unwrapped(comm).to_owned(),
        }
    }
}

/// The file name in a target of `/proc/PID/exe`. A file replaced by an upgrade has ` (deleted)`
/// appended (fs/d_path.c); crun runs from a sealed copy in memory, `/memfd:crun_cloned:…`.
fn executable(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    if let Some(name) = path.strip_prefix("/memfd:") {
        let name = name.split(':').next().unwrap_or(name);
        return name.strip_suffix("_cloned").unwrap_or(name);
    }
    unwrapped(file_name(path))
}

/// Undoes the renaming of nixpkgs wrappers: `.qemu-system-x86_64-wrapped` (make-wrapper.sh), with
/// another `_` for each further wrapper.
fn unwrapped(name: &str) -> &str {
    let Some(hidden) = name.strip_prefix('.') else {
        return name;
    };
    let hidden = hidden.trim_end_matches('_');
    hidden.strip_suffix("-wrapped").unwrap_or(hidden)
}

/// Whether a program is the dynamic loader. Bundles with their own C library run
/// `ld-linux-x86-64.so.2 OPTIONS PROGRAM`.
fn is_loader(name: &str) -> bool {
    name.starts_with("ld-linux") || name.starts_with("ld-musl") || name == "ld.so"
}

/// The program that the dynamic loader runs (elf/rtld.c): the first argument after its options,
/// most of which have a value.
fn loaded(cmdline: &Cmdline) -> Option<&str> {
    let mut n = 1;
    loop {
        let arg = cmdline.arg(n);
        let Some(option) = arg.strip_prefix("--") else {
            return (!arg.is_empty()).then(|| unwrapped(file_name(arg)));
        };
        let alone = option.contains('=') || matches!(option, "list" | "verify" | "inhibit-cache");
        n += if alone { 1 } else { 2 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn executable_is_known_under_every_path() {
        let cases = [
            ("/usr/bin/qemu-system-x86_64", "qemu-system-x86_64"),
            ("/usr/libexec/qemu-kvm (deleted)", "qemu-kvm"),
            (
                "/nix/store/0cg-qemu-9.1.2/bin/.qemu-system-x86_64-wrapped",
                "qemu-system-x86_64",
            ),
            ("/nix/store/x/bin/.crosvm-wrapped_", "crosvm"),
            (
                "/snap/multipass/1/usr/bin/qemu-system-x86_64",
                "qemu-system-x86_64",
            ),
            ("/memfd:crun_cloned:/proc/self/exe (deleted)", "crun"),
            ("/firecracker", "firecracker"),
        ];
        for (path, name) in cases {
            assert_eq!(executable(path), name, "{path}");
        }
    }

    #[test]
    fn program_behind_the_dynamic_loader_is_the_one_that_runs() {
        let exe = |line: &[u8]| {
            let loader = Some("/opt/vm/lib/ld-linux-x86-64.so.2");
            Program::new(loader, &Cmdline::parse(line), "ld-linux-x86-64").exe
        };
        let line = b"ld.so\0--library-path\0/opt/vm/lib\0/opt/vm/bin/cloud-hypervisor\0--cpus\0";
        assert_eq!(exe(line).as_deref(), Some("cloud-hypervisor"));
        let line = b"ld.so\0--inhibit-cache\0--argv0=x\0./crosvm\0";
        assert_eq!(exe(line).as_deref(), Some("crosvm"));
        assert_eq!(exe(b"ld.so\0").as_deref(), Some("ld-linux-x86-64.so.2"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_program(path in "\\PC{0,60}", line in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Program::new(Some(&path), &Cmdline::parse(&line), &path);
            let _ = Program::new(Some("/lib/ld-linux.so.2"), &Cmdline::parse(&line), "");
        }
    }
}
