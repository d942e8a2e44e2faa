//! Bit fields of a PMU's `format` directory: `config:0-7,32-35` is the word of perf_event_attr and
//! the bits for a term's value (Documentation/ABI/testing/sysfs-bus-event_source-devices-format).

/// Words of an event: `config`, `config1`, `config2`, `config3`.
pub(crate) type Words = [u64; 4];

/// Location of a term's value: a word, and bit ranges from the value's lowest bit up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    word: usize,
    ranges: Vec<(u8, u8)>,
}

impl Field {
    /// Parses a format file; `None` if it is malformed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (word, ranges) = text.trim().split_once(':')?;
        let word = word_number(word)?;
        let ranges = ranges
            .split(',')
            .map(range)
            .collect::<Option<Vec<(u8, u8)>>>()?;
        let width: u32 = ranges.iter().map(width).sum();
        (width <= 64).then_some(Self { word, ranges })
    }

    /// Bits of a value.
    pub(crate) fn width(&self) -> u32 {
        self.ranges.iter().map(width).sum()
    }

    /// Replaces the field's bits with a value; `None` if the value has more bits than the field.
    pub(crate) fn put(&self, value: u64, words: &mut Words) -> Option<()> {
        if self.width() < 64 && value >> self.width() != 0 {
            return None;
        }
        let mut rest = value;
        for range in &self.ranges {
            let mask = ones(width(range)) << range.0;
            let word = &mut words[self.word];
            *word = (*word & !mask) | ((rest << range.0) & mask);
            rest = rest.checked_shr(width(range)).unwrap_or(0);
        }
        Some(())
    }
}

/// Index of a word by its name.
pub(super) fn word_number(name: &str) -> Option<usize> {
    ["config", "config1", "config2", "config3"]
        .iter()
        .position(|word| *word == name)
}

fn range(text: &str) -> Option<(u8, u8)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < 64).then_some((first, last))
}

fn width(range: &(u8, u8)) -> u32 {
    u32::from(range.1 - range.0) + 1
}

fn ones(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(format: &str, value: u64) -> Option<Words> {
        let mut words = [0; 4];
        Field::parse(format)?.put(value, &mut words)?;
        Some(words)
    }

    #[test]
    fn a_value_goes_to_the_bits_of_its_field() {
        assert_eq!(put("config:0-7", 0xd3), Some([0xd3, 0, 0, 0]));
        assert_eq!(put("config:8-15\n", 2), Some([0x200, 0, 0, 0]));
        assert_eq!(put("config:18", 1), Some([1 << 18, 0, 0, 0]));
        assert_eq!(put("config1:0-63", u64::MAX), Some([0, u64::MAX, 0, 0]));
        assert_eq!(put("config3:0", 1), Some([0, 0, 0, 1]));
    }

    #[test]
    fn amd_splits_the_event_number() {
        // /sys/bus/event_source/devices/cpu/format/event on AMD.
        assert_eq!(
            put("config:0-7,32-35", 0x1d4),
            Some([0x1_0000_00d4, 0, 0, 0])
        );
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused() {
        assert_eq!(put("config:0-7", 0x100), None);
        assert_eq!(put("config:0-7,32-35", 0x1000), None);
    }

    #[test]
    fn what_is_not_a_format_is_refused() {
        for text in [
            "",
            "config",
            "config:",
            "config:7-0",
            "config:64",
            "config4:0",
            "config:0-63,0",
        ] {
            assert_eq!(Field::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(config[0-9]?:)?[0-9,:a-z-]{0,30}", value: u64) {
            let _ = put(&text, value);
        }

        #[test]
        fn bits_are_kept(first in 0u8..64, len in 0u8..64, value: u64) {
            let last = (first + len).min(63);
            let field = Field::parse(&format!("config2:{first}-{last}")).unwrap();
            let value = value & ones(field.width());
            let mut words = [0; 4];
            field.put(value, &mut words).unwrap();
            prop_assert_eq!(words[2] >> first, value);
        }
    }
}
