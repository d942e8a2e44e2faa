use proptest::prelude::*;

use super::*;

/// PMU type of the PT event, as on the machine of the recorded traces.
const PMU: u32 = 6;

/// Builds a `perf.data` file from records.
#[derive(Debug, Clone, Default)]
struct Recording(Vec<u8>);

/// Sample types: TID, TIME, CPU and IDENTIFIER, as perf asks for Intel PT.
const SAMPLE_TYPE: u64 = 0x1_0086;

impl Recording {
    /// Starts with an `AUXTRACE_INFO` whose TSC runs at 1.2 GHz, 12 times the bus clock.
    fn new() -> Self {
        Self::with_info(false)
    }

    fn with_info(snapshot: bool) -> Self {
        let mut fields = [0u64; 16];
        fields[0] = u64::from(PMU);
        fields[1] = 31;
        fields[2] = 1_789_569_706;
        fields[8] = u64::from(snapshot);
        fields[15] = 12;
        let fields = fields.iter().flat_map(|field| field.to_le_bytes());
        let body: Vec<u8> = [1, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(fields).collect();
        Self::default().record(70, &body)
    }

    fn record(mut self, kind: u32, body: &[u8]) -> Self {
        self.0.extend(kind.to_le_bytes());
        self.0.extend([0, 0]);
        self.0.extend((8 + body.len() as u16).to_le_bytes());
        self.0.extend(body);
        self
    }

    /// Adds an `AUXTRACE`: a part of a trace at a position of the buffer of a CPU or thread.
    fn part(self, owner: Owner, position: u64, bytes: &[u8]) -> Self {
        let (tid, cpu) = match owner {
            Owner::Cpu(cpu) => (77, cpu),
            Owner::Thread(tid) => (tid, u32::MAX),
        };
        let mut body = Vec::new();
        for field in [bytes.len() as u64, position, 0] {
            body.extend(field.to_le_bytes());
        }
        for field in [0, tid, cpu, 0] {
            body.extend(field.to_le_bytes());
        }
        let mut all = self.record(71, &body);
        all.0.extend(bytes);
        all
    }

    /// Adds an `AUX` with the sample id of [`SAMPLE_TYPE`].
    fn start(self, cpu: u32, tid: u32, position: u64, flags: u64) -> Self {
        let mut body = Vec::new();
        for field in [position, 16, flags] {
            body.extend(field.to_le_bytes());
        }
        body.extend(1u32.to_le_bytes());
        body.extend(tid.to_le_bytes());
        body.extend(123_456u64.to_le_bytes());
        body.extend(u64::from(cpu).to_le_bytes());
        body.extend(9u64.to_le_bytes());
        self.record(11, &body)
    }

    /// Attributes of an event.
    fn attr(kind: u32, sample_type: u64) -> Vec<u8> {
        let mut attr = vec![0; 112];
        attr[..4].copy_from_slice(&kind.to_le_bytes());
        attr[24..32].copy_from_slice(&sample_type.to_le_bytes());
        attr[40..48].copy_from_slice(&(1u64 << 18).to_le_bytes());
        attr
    }

    /// The file of `perf record -o FILE`, with a second event that is not PT.
    fn file(&self) -> Vec<u8> {
        let mut attrs = Self::attr(1, 1 << 6);
        attrs.extend([0; 16]);
        attrs.extend(Self::attr(PMU, SAMPLE_TYPE));
        attrs.extend([0; 16]);
        let (start, data) = (104 + attrs.len() as u64, self.0.len() as u64);
        let mut file = b"PERFILE2".to_vec();
        for field in [104, 128, 104, attrs.len() as u64, start, data] {
            file.extend(field.to_le_bytes());
        }
        file.resize(104, 0);
        file.extend(attrs);
        file.extend(&self.0);
        file
    }

    /// The file of `perf record -o -`.
    fn piped(&self) -> Vec<u8> {
        let events = Self::default()
            .record(64, &Self::attr(1, 1 << 6))
            .record(64, &Self::attr(PMU, SAMPLE_TYPE));
        let header = b"PERFILE2".iter().copied().chain(16u64.to_le_bytes());
        header.chain(events.0).chain(self.0.clone()).collect()
    }
}

fn parsed(file: &[u8]) -> PerfData<'_> {
    PerfData::parse(file).unwrap()
}

fn problem(file: &[u8]) -> (usize, Problem) {
    let error = PerfData::parse(file).unwrap_err();
    (error.offset, error.problem)
}

const CPU: Owner = Owner::Cpu(3);

#[test]
fn both_forms_give_the_same_streams() {
    let recording = Recording::new()
        .record(1, &[7; 40])
        .start(3, 77, 0, 0)
        .start(0, 77, 8, 0)
        .part(Owner::Cpu(0), 0, &[1; 24])
        .start(3, 77, 16, 1)
        .part(CPU, 0, &[2; 16])
        .part(CPU, 16, &[3; 8]);
    let (file, piped) = (recording.file(), recording.piped());
    let data = parsed(&file);
    assert_eq!(
        data.clocks,
        Clocks {
            bus: 100_000_000,
            tsc: Some(1_200_000_000)
        }
    );
    let [first, second] = &data.streams[..] else {
        panic!("{data:?}");
    };
    assert_eq!((first.owner, second.owner), (Owner::Cpu(0), CPU));
    assert_eq!(first.bytes(), vec![1; 24]);
    assert!(matches!(first.bytes(), Cow::Borrowed(_)));
    assert_eq!(first.cuts, [8]);
    assert_eq!(second.bytes(), [vec![2; 16], vec![3; 8]].concat());
    assert_eq!(second.len(), 24);
    assert_eq!(second.cuts, [16]);
    assert_eq!(second.losses.truncated, 1);
    assert_eq!(first.losses, Losses::default());
    assert_eq!(parsed(&piped), data);
}

#[test]
fn a_stream_of_a_thread_takes_the_starts_of_that_thread() {
    let thread = Owner::Thread(42);
    let file = Recording::new()
        .start(0, 42, 0, 0)
        .start(1, 42, 16, 4)
        .start(1, 43, 8, 8)
        .part(thread, 0, &[0; 32])
        .file();
    let data = parsed(&file);
    assert_eq!(data.streams.len(), 1);
    assert_eq!(data.streams[0].owner.to_string(), "tid 42");
    assert_eq!(data.streams[0].cuts, [16]);
    let losses = data.streams[0].losses;
    assert_eq!((losses.partial, losses.collision), (1, 0));
}

#[test]
fn parts_are_put_in_the_order_of_their_positions_and_gaps_are_cuts() {
    let file = Recording::new()
        .part(CPU, 64, &[3; 8])
        .part(CPU, 8, &[2; 8])
        .part(CPU, 0, &[1; 8])
        .file();
    let data = parsed(&file);
    let expected = [[1; 8], [2; 8], [3; 8]].concat();
    assert_eq!(data.streams[0].bytes(), expected);
    assert_eq!(data.streams[0].cuts, [16]);
}

#[test]
fn the_filling_of_a_part_goes_and_an_overlap_is_refused() {
    let filled = Recording::new()
        .part(CPU, 0, &[1, 1, 1, 1, 1, 0, 0, 0])
        .part(CPU, 5, &[2; 8]);
    let file = filled.file();
    let data = parsed(&file);
    assert_eq!(
        data.streams[0].bytes(),
        [vec![1; 5], vec![2; 8]].concat(),
        "{data:?}"
    );
    assert!(data.streams[0].cuts.is_empty(), "{data:?}");
    for (position, bytes) in [(5, [1; 8]), (0, [0; 8])] {
        let file = Recording::new()
            .part(CPU, 0, &bytes)
            .part(CPU, position, &[2; 8])
            .file();
        assert_eq!(problem(&file).1, Problem::Overlap(CPU), "{position}");
    }
}

#[test]
fn a_part_without_bytes_is_no_cut() {
    let file = Recording::new()
        .part(CPU, 0, &[])
        .part(CPU, 64, &[3; 8])
        .part(CPU, 96, &[])
        .file();
    assert_eq!(parsed(&file).streams[0].cuts, Vec::<usize>::new());
}

/// In snapshot mode the hardware's position wraps, and each snapshot is independent.
#[test]
fn snapshots_stay_in_the_order_of_the_file() {
    let file = Recording::with_info(true)
        .part(CPU, 96, &[1; 8])
        .start(3, 77, 4, 2)
        .part(CPU, 0, &[2; 8])
        .file();
    let data = parsed(&file);
    assert_eq!(data.streams[0].bytes(), [[1; 8], [2; 8]].concat());
    assert_eq!(data.streams[0].cuts, [8]);
}

#[test]
fn without_the_pt_event_there_are_streams_and_no_cuts() {
    let recording = Recording::new().start(3, 77, 8, 1).part(CPU, 0, &[1; 16]);
    let mut piped = b"PERFILE2".to_vec();
    piped.extend(16u64.to_le_bytes());
    piped.extend(&recording.0);
    let data = parsed(&piped);
    assert!(data.streams[0].cuts.is_empty(), "{data:?}");
    assert_eq!(data.streams[0].losses, Losses::default());
}

#[test]
fn a_file_perf_could_not_finish_has_records_up_to_its_end() {
    let mut file = Recording::new().part(CPU, 0, &[1; 16]).file();
    file[48..56].fill(0);
    assert_eq!(parsed(&file).streams[0].len(), 16);
}

#[test]
fn invalid_files_have_their_own_errors() {
    for (file, expected) in [
        (&b""[..], Problem::Magic),
        (b"PERFILE", Problem::Magic),
        (b"2ELIFREP", Problem::BigEndian),
        (b"PERFFILE", Problem::Old),
        (b"PERFILE2", Problem::Truncated("its header")),
    ] {
        assert_eq!(problem(file).1, expected);
        assert_eq!(is_perf_data(file), expected != Problem::Magic);
    }
    assert_eq!(problem(&Recording::default().file()).1, Problem::NoTrace);
    let bts = Recording::default().record(70, &[2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(problem(&bts.file()).1, Problem::OtherTrace(2));
    for kind in [81, 83] {
        let recording = Recording::new();
        let at = 104 + 256 + recording.0.len();
        let file = recording.record(kind, &[0; 8]).file();
        assert_eq!(problem(&file), (at, Problem::Compressed));
    }
}

#[test]
fn errors_are_where_the_record_begins() {
    let recording = Recording::new();
    let at = 16 + 2 * (8 + 112) + recording.0.len();
    let whole = recording.clone().part(CPU, 0, &[1; 16]).piped();
    assert_eq!(
        problem(&whole[..whole.len() - 1]),
        (at, Problem::Truncated("a part of the trace"))
    );
    assert_eq!(
        problem(&whole[..at + 4]),
        (at, Problem::Truncated("a record"))
    );
    let mut small = whole.clone();
    small[at + 6..at + 8].copy_from_slice(&7u16.to_le_bytes());
    assert_eq!(problem(&small), (at, Problem::Size("a record")));
    let short = recording.clone().record(71, &[0; 4]).piped();
    assert_eq!(problem(&short), (at, Problem::Size("an AUXTRACE record")));
    let huge = recording.record(71, &[0xff; 40]).piped();
    assert_eq!(
        problem(&huge),
        (at, Problem::Truncated("a part of the trace"))
    );
    let error = PerfData::parse(&huge).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("at offset {at:#x}: ")),
        "{error}"
    );
}

/// Tracepoints of a piped file (`perf record -e sched:sched_switch -e intel_pt// -o -`) have their
/// formats after a shorter record.
#[test]
fn tracing_data_is_stepped_over() {
    let mut recording = Recording::new().record(66, &24u32.to_le_bytes());
    recording.0.extend([0xff; 24]);
    let file = recording.part(CPU, 0, &[1; 16]).piped();
    assert_eq!(parsed(&file).streams[0].len(), 16);
}

#[test]
fn impossible_clocks_are_unknown() {
    let with = |shift: u64, mult: u64, ratio: u64| {
        let mut recording = Recording::new();
        for (field, value) in [(1, shift), (2, mult), (15, ratio)] {
            recording.0[16 + field * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        parsed(&recording.file()).clocks
    };
    let unknown = Clocks::default();
    assert_eq!(with(31, 0, 12), unknown);
    assert_eq!(with(64, 1, 12), unknown);
    assert_eq!(with(63, 1, 12), unknown);
    assert_eq!(with(0, u64::MAX, 12), unknown);
    let tsc = Some(1_200_000_000);
    assert_eq!(with(31, 1_789_569_706, 0), Clocks { tsc, ..unknown });
    assert_eq!(with(31, 1_789_569_706, u64::MAX), Clocks { tsc, ..unknown });
}

proptest! {
    /// Whatever byte of a valid file changes, and wherever the file ends, all offsets are inside.
    #[test]
    fn every_cut_is_inside_its_stream(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        whole in any::<bool>(),
        piped in any::<bool>(),
        snapshot in any::<bool>(),
    ) {
        let recording = Recording::with_info(snapshot)
            .start(3, 77, 0, 0)
            .start(3, 77, 24, 1)
            .part(CPU, 0, &[1; 16])
            .part(CPU, 16, &[2; 24])
            .part(Owner::Thread(9), u64::MAX - 8, &[3; 16]);
        let mut file = if piped { recording.piped() } else { recording.file() };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let end = if whole { file.len() } else { end.index(file.len()) };
        if let Ok(data) = PerfData::parse(&file[..end]) {
            for stream in data.streams {
                prop_assert_eq!(stream.bytes().len(), stream.len());
                prop_assert!(stream.cuts.is_sorted());
                prop_assert!(stream.cuts.iter().all(|cut| (1..stream.len()).contains(cut)));
            }
        }
    }

    #[test]
    fn any_bytes_after_the_magic_number_are_read_or_refused(
        size in prop::sample::select(vec![16u64, 104]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut file = b"PERFILE2".to_vec();
        file.extend(size.to_le_bytes());
        file.extend(bytes);
        let _ = PerfData::parse(&file);
    }
}
