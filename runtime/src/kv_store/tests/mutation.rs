//! Whatever is done to a file: no panic, and never bytes under a key that they do not belong to.

use std::collections::HashMap;
use std::fs;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[derive(Clone, Debug)]
enum Mutation {
    Flip { at: Index, bit: u8 },
    Overwrite { at: Index, bytes: Vec<u8> },
    Copy { from: Index, to: Index, len: usize },
    Cut { at: Index },
    Append { bytes: Vec<u8> },
    Insert { at: Index, bytes: Vec<u8> },
    HeaderLength { length: u64 },
    Digit { at: Index, digit: u8 },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<Index>;
    prop_oneof![
        (index(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        (index(), vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Mutation::Overwrite { at, bytes }),
        (index(), index(), 1usize..200).prop_map(|(from, to, len)| Mutation::Copy { from, to, len }),
        index().prop_map(|at| Mutation::Cut { at }),
        vec(any::<u8>(), 1..200).prop_map(|bytes| Mutation::Append { bytes }),
        (index(), vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        prop_oneof![any::<u64>(), 0u64..4096].prop_map(|length| Mutation::HeaderLength { length }),
        (index(), b'0'..=b'9').prop_map(|(at, digit)| Mutation::Digit { at, digit }),
    ]
}

impl Mutation {
    fn apply(&self, file: &mut Vec<u8>) {
        if file.len() < 8 {
            return;
        }
        match self {
            Self::Flip { at, bit } => *at.get_mut(file) ^= 1 << bit,
            Self::Overwrite { at, bytes } => {
                let start = at.index(file.len());
                let len = bytes.len().min(file.len() - start);
                file[start..start + len].copy_from_slice(&bytes[..len]);
            }
            Self::Copy { from, to, len } => {
                let (from, to) = (from.index(file.len()), to.index(file.len()));
                let len = (*len).min(file.len() - from.max(to));
                file.copy_within(from..from + len, to);
            }
            Self::Cut { at } => file.truncate(at.index(file.len())),
            Self::Append { bytes } => file.extend_from_slice(bytes),
            Self::Insert { at, bytes } => {
                let at = at.index(file.len());
                file.splice(at..at, bytes.iter().copied());
            }
            Self::HeaderLength { length } => file[..8].copy_from_slice(&length.to_le_bytes()),
            Self::Digit { at, digit } => {
                // Numbers of the header are where a change is likeliest to be taken for another valid file.
                let digits: Vec<usize> = (8..file.len().min(1600)).filter(|at| file[*at].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    file[digits[at.index(digits.len())]] = *digit;
                }
            }
        }
    }
}

/// Two segments of one chain, as files.
struct Files {
    samples: [Sample; 2],
    segments: [SegmentFile; 2],
    bytes: [Vec<u8>; 2],
}

impl Files {
    fn new(key: Option<[u8; 32]>) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let samples = [Sample::new(1, 0, 3), Sample::new(1, 3, 2)];
        let store = open(folder.path(), key).store;
        let segments = samples.each_ref().map(|sample| sample.write_to(&store));
        let bytes = segments.each_ref().map(|segment| fs::read(path_of(folder.path(), segment)).expect("is read"));
        Self { samples, segments, bytes }
    }
}

/// Written once: that they are durable is not what is tested here.
static FILES: [LazyLock<Files>; 2] = [LazyLock::new(|| Files::new(KEYS[0])), LazyLock::new(|| Files::new(KEYS[1]))];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_file_gives_right_bytes_or_a_fault(mutations in vec(mutation(), 1..4), is_encrypted: bool) {
        let key = KEYS[usize::from(is_encrypted)];
        let Files { samples, segments, bytes: [mutated, other] } = &*FILES[usize::from(is_encrypted)];
        let mut mutated = mutated.clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut mutated));
        let folder = tempfile::tempdir().expect("temporary folder");
        for (segment, bytes) in segments.iter().zip([&mutated, other]) {
            fs::write(path_of(folder.path(), segment), bytes).expect("is written");
        }
        let right: HashMap<[u8; 32], &Vec<u8>> = samples
            .iter()
            .flat_map(|sample| sample.keys().into_iter().map(|key| *key.as_bytes()).zip(&sample.blocks))
            .collect();
        let opened = open(folder.path(), key);
        prop_assert_eq!(opened.segments.len() + opened.refused.len(), 2);
        samples[1].assert_reads_from(&opened.store, &segments[1]);
        for segment in &opened.segments {
            let keys = segment.header.keys.as_ref().expect("has keys");
            for (block, key) in (0..).zip(&keys.blocks) {
                let mut buffer = [vec![0; segment.header.identity.block_bytes]];
                if opened.store.read_blocks(segment.header.id, block..block + 1, &mut buffer).is_ok() {
                    prop_assert_eq!(Some(&&buffer[0]), right.get(key.as_bytes()));
                }
            }
        }
    }
}
