//! /proc/PID/smaps: the mappings of a process, with the resident size and page size of each
//! (Documentation/filesystems/proc.rst, "smaps").

use super::{decimal, hexadecimal, kilobytes};

/// Kind of memory behind a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Backing {
    /// Private memory of the process, except its heap and stack.
    Anonymous,
    /// A file: memfd, hugetlbfs, tmpfs, shared anonymous memory, or a file on disk.
    File,
    /// Heap, stack, mappings of the kernel, and driver files without a path.
    #[default]
    Other,
}

/// One mapping; sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Readable and writable now.
    pub(crate) writable: bool,
    /// Shared with other mappings of the same file.
    pub shared: bool,
    /// Kind of memory.
    pub backing: Backing,
    /// Device and inode of the file, and the file offset of `start`.
    pub file: (Box<[u8]>, u64, u64),
    /// Size of its pages; larger than the machine's page size for hugetlbfs.
    pub page_size: u64,
    /// Resident, without hugetlbfs.
    pub resident: u64,
    /// Part of `resident` in transparent huge pages.
    pub(crate) transparent_huge: u64,
    /// Resident in hugetlbfs pages.
    pub hugetlb: u64,
    /// `dc`: not copied into child processes (`MADV_DONTFORK`).
    pub dont_fork: bool,
    /// `io` or `pf`: device memory.
    pub device: bool,
}

impl Mapping {
    /// Length in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.end - self.start
    }
}

/// Assembles mappings from the lines of smaps.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    mapping: Option<Mapping>,
    malformed: bool,
}

impl Parser {
    /// Takes the next line; returns the previous mapping if the line starts another one. Other
    /// fields are skipped.
    pub(crate) fn line(&mut self, line: &[u8]) -> Option<Mapping> {
        if let Some(next) = header(line) {
            let before = self.mapping.replace(next)?;
            return Some(self.checked(before));
        }
        let mapping = self.mapping.as_mut()?;
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = line.split_at(colon);
        self.malformed |= field(mapping, name, value.get(1..)?).is_none();
        None
    }

    /// The last mapping.
    pub(crate) fn finish(&mut self) -> Option<Mapping> {
        let last = self.mapping.take()?;
        Some(self.checked(last))
    }

    /// Whether a size was malformed or missing: sums of such mappings would be too small.
    pub(crate) fn is_malformed(&self) -> bool {
        self.malformed
    }

    fn checked(&mut self, mapping: Mapping) -> Mapping {
        // Without the page size, the kind of hugetlbfs pages is unknown.
        self.malformed |= mapping.hugetlb > 0 && mapping.page_size == 0;
        mapping
    }
}

/// `7f00-7f10 rw-s 00000000 00:01 1234    /memfd:x (deleted)`: address, permissions, offset,
/// device, inode, path.
fn header(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |b| *b == b' ');
    let mut range = fields.next()?.splitn(2, |b| *b == b'-');
    let (start, end) = (hexadecimal(range.next()?)?, hexadecimal(range.next()?)?);
    let permissions = fields.next()?;
    let offset = hexadecimal(fields.next()?)?;
    let device = fields.next()?;
    let inode = decimal(fields.next()?)?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    (start < end).then(|| Mapping {
        start,
        end,
        writable: permissions.starts_with(b"rw"),
        shared: permissions.ends_with(b"s"),
        backing: backing(path),
        file: (device.into(), inode, offset),
        ..Mapping::default()
    })
}

/// The kind of memory from the path. Anonymous memory can have a name: `[anon:name]`,
/// `[anon_shmem:name]` (PR_SET_VMA_ANON_NAME(2const)).
fn backing(path: &[u8]) -> Backing {
    match path {
        b"" => Backing::Anonymous,
        [b'/', ..] => Backing::File,
        _ if path.starts_with(b"[anon:") => Backing::Anonymous,
        _ if path.starts_with(b"[anon_shmem:") => Backing::File,
        _ => Backing::Other,
    }
}

/// `None` if a size is malformed.
fn field(mapping: &mut Mapping, name: &[u8], value: &[u8]) -> Option<()> {
    let sum = match name {
        b"Rss" => &mut mapping.resident,
        b"KernelPageSize" => &mut mapping.page_size,
        b"AnonHugePages" | b"ShmemPmdMapped" | b"FilePmdMapped" => &mut mapping.transparent_huge,
        b"Shared_Hugetlb" | b"Private_Hugetlb" => &mut mapping.hugetlb,
        b"VmFlags" => {
            for flag in value.split(|b| *b == b' ') {
                mapping.dont_fork |= flag == b"dc";
                mapping.device |= flag == b"io" || flag == b"pf";
            }
            return Some(());
        }
        _ => return Some(()),
    };
    *sum = sum.saturating_add(kilobytes(value)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &[u8]) -> Vec<Mapping> {
        let mut parser = Parser::default();
        let mut found: Vec<_> = text
            .split(|b| *b == b'\n')
            .filter_map(|line| parser.line(line))
            .collect();
        found.extend(parser.finish());
        found
    }

    /// QEMU 7.2 on Linux 6.18: private guest RAM, guest RAM in a memfd, a thread's stack.
    const SMAPS: &[u8] = b"\
7fc037e00000-7fc03be00000 rw-p 00000000 00:00 0 
Size:              65536 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                8192 kB
Pss:                8192 kB
AnonHugePages:      6144 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
THPeligible:           1
VmFlags: rd wr mr mw me dc ac hg mg 
7fb2440fd000-7fb2480fd000 rw-s 00001000 00:01 6610                       /memfd:memory-backend-memfd (deleted)
KernelPageSize:     2048 kB
Rss:                   0 kB
Shared_Hugetlb:     2048 kB
Private_Hugetlb:    4096 kB
VmFlags: rd wr sh mr mw me ms dc hg 
7fb248200000-7fb248a00000 rw-p 00000000 00:00 0 
Rss:                   8 kB
VmFlags: rd wr mr mw me ac nh 
";

    #[test]
    fn guest_memory_is_found_with_its_pages_and_flags() {
        let found = parse(SMAPS);
        let [own, memfd, stack] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((own.start, own.size()), (0x7fc0_37e0_0000, 64 << 20));
        assert_eq!(
            (own.resident, own.transparent_huge, own.page_size),
            (8 << 20, 6 << 20, 4096)
        );
        assert!(own.writable && own.dont_fork && !own.shared && !own.device);
        assert_eq!(own.backing, Backing::Anonymous);
        assert_eq!((memfd.hugetlb, memfd.page_size), (6 << 20, 2 << 20));
        assert_eq!(memfd.file, (b"00:01"[..].into(), 6610, 4096));
        assert!(memfd.shared && memfd.dont_fork);
        assert_eq!((stack.resident, stack.dont_fork), (8192, false));
    }

    #[test]
    fn size_that_is_none_makes_the_text_malformed() {
        let is_malformed = |fields: &str| {
            let text = format!("1000-2000 rw-s 0 0:0 0\n{fields}3000-4000 rw-p 0 0:0 0\n");
            let mut parser = Parser::default();
            for line in text.as_bytes().split(|b| *b == b'\n') {
                parser.line(line);
            }
            parser.finish();
            parser.is_malformed()
        };
        for fields in [
            "Rss: 8 pages\n",
            "Rss:\n",
            "AnonHugePages: -4 kB\n",
            "KernelPageSize: 4 kB\nRss: 99999999999999999999 kB\n",
            "Shared_Hugetlb: 2048 kB\n",
        ] {
            assert!(is_malformed(fields), "{fields}");
        }
        let hugetlb = "KernelPageSize: 2048 kB\nShared_Hugetlb: 2048 kB\n";
        for fields in ["", "Rss: 0 kB\n", "SwapPss: what\n", hugetlb] {
            assert!(!is_malformed(fields), "{fields}");
        }
    }

    #[test]
    fn a_path_tells_memory_from_the_rest() {
        let of =
            |path: &str| parse(format!("1000-2000 rw-p 0 0:0 0 {path}\n").as_bytes())[0].backing;
        assert_eq!(of(" [anon:guest ram]"), Backing::Anonymous);
        assert_eq!(of("   /dev/hugepages/a b"), Backing::File);
        for other in ["[heap]", "[stack]", "[vvar]", "anon_inode:kvm-vcpu:0"] {
            assert_eq!(of(other), Backing::Other, "{other}");
        }
    }

    #[test]
    fn own_smaps_are_understood() {
        let text = std::fs::read("/proc/self/smaps").unwrap_or_default();
        if text.is_empty() {
            println!("skipped: this kernel has no smaps");
            return;
        }
        let found = parse(&text);
        assert!(found.len() > 5);
        assert!(found.iter().any(|m| m.resident > 0 && m.page_size >= 4096));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
            for mapping in parse(&text) {
                prop_assert!(mapping.size() > 0);
            }
        }

        #[test]
        fn sums_never_overflow(kb in any::<u64>()) {
            let text = format!("1-2 rw-p 0 0:0 0\nAnonHugePages: {kb} kB\nFilePmdMapped: {kb} kB\n");
            prop_assert_eq!(parse(text.as_bytes()).len(), 1);
        }
    }
}
