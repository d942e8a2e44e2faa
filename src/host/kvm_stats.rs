//! KVM's binary statistics of a VM or a vCPU: what `KVM_GET_STATS_FD` returns
//! (Documentation/virt/kvm/api.rst, "KVM_GET_STATS_FD"; struct `kvm_stats_header` and
//! `kvm_stats_desc` of linux/kvm.h).
//!
//! A file has a header, an identity, a block of descriptors and a block of 64-bit numbers. The
//! descriptors name each statistic and say where its numbers are, so a newer kernel's statistics
//! are read too. They are the same for all vCPUs of a kernel: a [`Schema`] is parsed once, and
//! compared with the bytes of every other file.

/// Size of the header in bytes.
const HEADER: usize = 24;

/// Size of a descriptor without its name, in bytes.
const DESCRIPTOR: usize = 16;

/// Most bytes of a name with its NUL: `KVM_STATS_NAME_SIZE` is 48.
const MOST_NAME: usize = 256;

/// Most statistics: Linux 6.18 has 45 of a vCPU on x86-64.
const MOST_STATS: usize = 512;

/// Most numbers of a histogram: `HALT_POLL_HIST_COUNT` is 32.
const MOST_BUCKETS: usize = 256;

/// Size of the largest file that is read, in bytes. On Linux 6.18 a vCPU has 4,056.
pub(crate) const MOST_BYTES: usize = 1 << 16;

/// The descriptors of a kind of file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    /// The parts that are equal in every file of the kind: the header and the descriptors.
    header: [u8; HEADER],
    descriptors: Box<[u8]>,
    at: usize,
    pub(crate) stats: Vec<Stat>,
}

/// One statistic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    /// ASCII letters, digits and `_`.
    pub(crate) name: String,
    pub(crate) kind: StatKind,
    /// Position of its first number in the file, in bytes.
    at: usize,
    /// How many numbers it has.
    pub(crate) numbers: usize,
}

/// `KVM_STATS_TYPE_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatKind {
    /// Only grows, unless root resets it.
    Cumulative,
    /// The value now.
    Instant,
    /// The largest value so far.
    Peak,
    /// Counts by value, in steps of equal width.
    LinearHistogram,
    /// Counts by power of two: number n counts values from 2^(n-1) to 2^n - 1, number 0 counts
    /// zeros, and the last also counts everything larger.
    LogHistogram,
}

/// Why a file is not one of statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("{0} bytes are too few")]
    Short(usize),
    #[error("it describes {0} statistics")]
    Count(usize),
    #[error("a name of {0} bytes")]
    Name(usize),
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A field of 32 bits, in the byte order of this machine.
fn field(bytes: &[u8], at: usize) -> Result<usize, FormatError> {
    let bytes = number(bytes, at).ok_or(FormatError::Short(bytes.len()))?;
    // No field is larger than usize on a machine with KVM.
    Ok(u32::from_ne_bytes(bytes) as usize)
}

impl Schema {
    /// Parses the start of a file. Statistics that are not understood are left out: those of
    /// unknown kinds, and those whose name or numbers are not in the file.
    ///
    /// # Errors
    /// If the file is not one of statistics.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, FormatError> {
        let header = number(file, 0).ok_or(FormatError::Short(file.len()))?;
        let (name, count) = (field(file, 4)?, field(file, 8)?);
        let (at, data) = (field(file, 16)?, field(file, 20)?);
        if !(1..=MOST_STATS).contains(&count) {
            return Err(FormatError::Count(count));
        }
        if !(2..=MOST_NAME).contains(&name) {
            return Err(FormatError::Name(name));
        }
        let each = DESCRIPTOR + name;
        let block = at
            .checked_add(each * count)
            .and_then(|end| file.get(at..end));
        let block = block.ok_or(FormatError::Short(file.len()))?;
        let mut stats: Vec<Stat> = Vec::new();
        for descriptor in block.chunks_exact(each) {
            let stat = Stat::parse(descriptor, data, file.len());
            let is_new = |stat: &Stat| stats.iter().all(|known| known.name != stat.name);
            stats.extend(stat.filter(is_new));
        }
        Ok(Self {
            header,
            descriptors: block.into(),
            at,
            stats,
        })
    }

    /// Whether the file has these descriptors.
    pub(crate) fn matches(&self, file: &[u8]) -> bool {
        let block = file.get(self.at..self.at + self.descriptors.len());
        file.starts_with(&self.header) && block == Some(&*self.descriptors)
    }
}

impl Stat {
    fn parse(descriptor: &[u8], data: usize, len: usize) -> Option<Self> {
        let kind = match field(descriptor, 0).ok()? & 0xf {
            0 => StatKind::Cumulative,
            1 => StatKind::Instant,
            2 => StatKind::Peak,
            3 => StatKind::LinearHistogram,
            4 => StatKind::LogHistogram,
            _ => return None,
        };
        let numbers = usize::from(u16::from_ne_bytes(number(descriptor, 6)?));
        let at = data.checked_add(field(descriptor, 8).ok()?)?;
        let name = descriptor.get(DESCRIPTOR..)?;
        let name = &name[..name.iter().position(|byte| *byte == 0)?];
        let is_named = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let is_scalar = !matches!(kind, StatKind::LinearHistogram | StatKind::LogHistogram);
        let is_sized = (1..=MOST_BUCKETS).contains(&numbers) && (numbers == 1 || !is_scalar);
        let fits = at.checked_add(numbers * 8)? <= len;
        let is_known = !name.is_empty() && name.iter().all(is_named) && is_sized && fits;
        is_known.then(|| Self {
            name: String::from_utf8_lossy(name).into_owned(),
            kind,
            at,
            numbers,
        })
    }

    /// Its numbers in a file that [`Schema::matches`].
    pub(crate) fn read<'a>(&self, file: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        let numbers = self.at..self.at + self.numbers * 8;
        let numbers = file.get(numbers).unwrap_or_default().chunks_exact(8);
        numbers.map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap_or_default()))
    }
}

/// A file with these statistics: name, kind number, numbers.
#[cfg(test)]
pub(crate) fn file(id: &str, stats: &[(&str, u32, &[u64])]) -> Vec<u8> {
    const NAME: usize = 48;
    let at = HEADER + NAME;
    let data = at + stats.len() * (DESCRIPTOR + NAME);
    let padded = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(NAME, 0);
        bytes
    };
    let fields = [0, NAME, stats.len(), HEADER, at, data];
    let mut file: Vec<u8> = fields
        .iter()
        .flat_map(|n| (*n as u32).to_ne_bytes())
        .collect();
    file.extend(padded(id));
    let mut offset = 0_u32;
    for (name, kind, numbers) in stats {
        file.extend(kind.to_ne_bytes());
        file.extend(0_i16.to_ne_bytes());
        file.extend((numbers.len() as u16).to_ne_bytes());
        file.extend(offset.to_ne_bytes());
        file.extend(0_u32.to_ne_bytes());
        file.extend(padded(name));
        offset += numbers.len() as u32 * 8;
    }
    file.extend(
        stats
            .iter()
            .flat_map(|(_, _, numbers)| numbers.iter().flat_map(|n| n.to_ne_bytes())),
    );
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Vec<u8> {
        let hist: Vec<u64> = (0..32).collect();
        file(
            "kvm-7/vcpu-3",
            &[
                ("exits", 0, &[9]),
                ("halt_wait_hist", 4, &hist),
                ("blocking", 1, &[1]),
            ],
        )
    }

    #[test]
    fn statistics_are_found_by_their_descriptors() {
        let file = example();
        let schema = Schema::parse(&file).unwrap();
        let shown: Vec<_> = schema
            .stats
            .iter()
            .map(|stat| (stat.name.as_str(), stat.kind, stat.numbers))
            .collect();
        assert_eq!(
            shown,
            [
                ("exits", StatKind::Cumulative, 1),
                ("halt_wait_hist", StatKind::LogHistogram, 32),
                ("blocking", StatKind::Instant, 1),
            ]
        );
        let read = |n: usize| schema.stats[n].read(&file).collect::<Vec<_>>();
        assert_eq!((read(0), read(2)), (vec![9], vec![1]));
        assert_eq!(read(1), (0..32).collect::<Vec<_>>());
    }

    #[test]
    fn only_the_identity_and_the_numbers_may_differ() {
        let mut other = example();
        let schema = Schema::parse(&other).unwrap();
        let last = other.len() - 1;
        (other[HEADER], other[last]) = (b'K', 1);
        assert!(schema.matches(&other));
        other[HEADER + 48 + DESCRIPTOR] ^= 1;
        assert!(!schema.matches(&other), "another name");
        assert!(!schema.matches(&example()[..100]));
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let two: &[u64] = &[1, 2];
        let odd = file(
            "",
            &[
                ("exits", 9, &[1]),
                ("two", 0, two),
                ("a b", 0, &[1]),
                ("", 0, &[1]),
                ("ok", 0, &[5]),
            ],
        );
        let names: Vec<_> = Schema::parse(&odd)
            .unwrap()
            .stats
            .into_iter()
            .map(|stat| stat.name)
            .collect();
        assert_eq!(names, ["ok"], "unknown kind, two numbers, no word, no name");
        let cut = &odd[..odd.len() - 1];
        assert_eq!(
            Schema::parse(cut).unwrap().stats,
            [],
            "its number is beyond the end"
        );
    }

    #[test]
    fn another_file_is_an_error() {
        assert_eq!(Schema::parse(&[]), Err(FormatError::Short(0)));
        assert_eq!(Schema::parse(&[0; 64]), Err(FormatError::Count(0)));
        assert_eq!(Schema::parse(&example()[..80]), Err(FormatError::Short(80)));
        let mut long = example();
        long[4..8].copy_from_slice(&300_u32.to_ne_bytes());
        assert_eq!(Schema::parse(&long), Err(FormatError::Name(300)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            mut file in prop::collection::vec(any::<u8>(), 0..600),
            changes in prop::collection::vec((0usize..300, any::<u8>()), 0..8),
            valid in any::<bool>(),
        ) {
            if valid {
                file = example();
                for (at, byte) in changes {
                    file[at] = byte;
                }
            }
            if let Ok(schema) = Schema::parse(&file) {
                prop_assert!(schema.matches(&file));
                for stat in &schema.stats {
                    prop_assert_eq!(stat.read(&file).count(), stat.numbers);
                }
            }
        }
    }
}
