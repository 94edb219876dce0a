//! Every kind of damage to a file is found before wrong bytes are given out, and the right part is named.

use std::ffi::OsStr;
use std::fs;

use super::reader::SegmentReader;
use super::store::open_cached;
use super::*;

/// A folder with one segment whose bytes can be changed and put back.
struct Victim {
    folder: tempfile::TempDir,
    sample: Sample,
    segment: SegmentFile,
    bytes: Vec<u8>,
    key: Option<MasterKey>,
}

impl Victim {
    fn new(key: Option<[u8; 32]>) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let sample = Sample::new(1, 1, 3);
        let segment = sample.write_to(&open(folder.path(), key).store);
        let bytes = fs::read(path_of(folder.path(), &segment)).expect("is read");
        Self { folder, sample, segment, bytes, key: key.map(MasterKey::new) }
    }

    fn open_as(&self, bytes: &[u8]) -> Result<SegmentReader, SegmentFault> {
        let path = path_of(self.folder.path(), &self.segment);
        fs::write(&path, bytes).expect("is written");
        let name = path.file_name().expect("has a name");
        open_cached(&OsDisk, self.folder.path(), OsStr::new(name), self.key.as_ref())
    }

    /// Where blocks, tokens and what is before them begin.
    fn starts(&self) -> (usize, usize) {
        let blocks = self.bytes.len() - self.sample.blocks.len() * 96;
        (blocks - self.sample.tokens.len() * 4, blocks)
    }
}

#[test]
fn a_flip_of_any_bit_is_found_and_its_part_is_named() {
    for key in KEYS {
        let victim = Victim::new(key);
        let (tokens_start, blocks_start) = victim.starts();
        for at in 0..victim.bytes.len() {
            let mut bytes = victim.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let opened = victim.open_as(&bytes);
            if at < tokens_start {
                assert!(opened.is_err(), "byte {at}");
                continue;
            }
            let reader = opened.expect("the head is good");
            let tokens = reader.read_tokens(&OsDisk);
            if at < blocks_start {
                let is_named = matches!(tokens, Err(SegmentFault::Checksum { part: SegmentPart::Tokens }));
                assert!(is_named, "byte {at}: {tokens:?}");
                continue;
            }
            assert_eq!(tokens.expect("tokens are good"), victim.sample.tokens);
            let damaged = ((at - blocks_start) / 96) as u32;
            for (block, expected) in (0..).zip(&victim.sample.blocks) {
                let mut buffer = vec![0; 96];
                match reader.read_block(&OsDisk, block, &mut buffer) {
                    Ok(()) => assert!(block != damaged && buffer == *expected, "byte {at}"),
                    Err(SegmentFault::Checksum { part }) => {
                        assert_eq!((part, block), (SegmentPart::Block(damaged), damaged), "byte {at}");
                    }
                    Err(other) => panic!("byte {at}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_file_cut_at_any_place_or_made_longer_is_refused_at_the_start() {
    for key in KEYS {
        let victim = Victim::new(key);
        for len in 0..victim.bytes.len() {
            let fault = victim.open_as(&victim.bytes[..len]).map(|_reader| ()).expect_err("is refused");
            let is_size = matches!(fault, SegmentFault::TooShort { .. } | SegmentFault::FileBytes { .. });
            assert!(is_size, "cut to {len}: {fault:?}");
        }
        let longer = [&victim.bytes[..], &[0]].concat();
        assert!(matches!(victim.open_as(&longer), Err(SegmentFault::FileBytes { .. })));
        victim.open_as(&victim.bytes).expect("unchanged it is good");
    }
}

#[test]
fn a_file_cut_while_it_is_open_is_a_short_read() {
    for key in KEYS {
        let victim = Victim::new(key);
        let store = open(victim.folder.path(), key).store;
        victim.sample.assert_reads_from(&store, &victim.segment);
        let path = path_of(victim.folder.path(), &victim.segment);
        let file = fs::OpenOptions::new().write(true).open(&path).expect("opens");
        file.set_len(victim.bytes.len() as u64 - 97).expect("is cut");
        let fault = fault_of(read_all(&store, &victim.segment).expect_err("is found"));
        assert!(matches!(fault, SegmentFault::ShortRead { part: SegmentPart::Block(1) }), "{fault:?}");
        // The next read opens it anew, and finds that it is not the file that was written.
        let fault = fault_of(read_all(&store, &victim.segment).expect_err("is found"));
        assert!(matches!(fault, SegmentFault::FileBytes { .. }), "{fault:?}");
        assert!(fault.is_damage());
    }
}

#[test]
fn a_block_overwritten_while_its_file_is_open_is_named() {
    for key in KEYS {
        let victim = Victim::new(key);
        let store = open(victim.folder.path(), key).store;
        victim.sample.assert_reads_from(&store, &victim.segment);
        let (_tokens, blocks_start) = victim.starts();
        let mut bytes = victim.bytes.clone();
        bytes.copy_within(blocks_start + 96..blocks_start + 192, blocks_start);
        fs::write(path_of(victim.folder.path(), &victim.segment), &bytes).expect("is written");
        let fault = fault_of(read_all(&store, &victim.segment).expect_err("is found"));
        assert!(matches!(fault, SegmentFault::Checksum { part: SegmentPart::Block(0) }), "{fault:?}");
    }
}

#[test]
fn swapped_files_are_found_while_running_and_at_the_next_start() {
    for key in KEYS {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = open(folder.path(), key).store;
        let segments = [1, 2].map(|seed| Sample::new(seed, 0, 3).write_to(&store));
        let [first, second] = segments.each_ref().map(|segment| path_of(folder.path(), segment));
        let aside = folder.path().join("aside");
        for (from, to) in [(&first, &aside), (&second, &first), (&aside, &second)] {
            fs::rename(from, to).expect("is renamed");
        }
        for segment in &segments {
            let fault = fault_of(read_all(&store, segment).expect_err("is found"));
            assert!(matches!(fault, SegmentFault::Name), "{fault:?}");
        }
        drop(store);
        let opened = open(folder.path(), key);
        assert!(opened.segments.is_empty());
        assert!(opened.refused.iter().all(|refused| matches!(refused.fault, SegmentFault::Name)));
        assert_eq!(opened.refused.len(), 2);
    }
}

#[test]
fn a_file_of_another_model_under_the_same_name_is_told_as_such() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), None).store;
    let sample = Sample::new(1, 0, 2);
    let segment = sample.write_to(&store);
    let replace = |identity: KvIdentity| {
        // What a copy of the directory of a server with another model would hold.
        let header = SegmentHeader { identity, ..(*segment.header).clone() };
        let bytes = hostile::plain_file(&header_json::encode(&header, layout::Form::Cache), &sample);
        fs::write(path_of(folder.path(), &segment), bytes).expect("is written");
        fault_of(read_all(&store, &segment).expect_err("is found"))
    };
    let other_model = replace(KvIdentity { model_fingerprint: [9; 32], ..identity() });
    assert!(matches!(&other_model, SegmentFault::Identity(mismatch) if mismatch.field == "model fingerprint"));
    assert!(other_model.is_damage());
    let other_numerics = replace(KvIdentity { numerics_id: "cpu-fma-2".to_owned(), ..identity() });
    assert!(matches!(other_numerics, SegmentFault::Changed), "{other_numerics:?}");
}

#[test]
fn a_file_of_another_key_or_of_none_is_not_read() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let sample = Sample::new(1, 0, 2);
    let segment = sample.write_to(&open(folder.path(), Some([1; 32])).store);
    let name = segment.header.id.file_name();
    let open_with = |key: Option<[u8; 32]>| {
        let key = key.map(MasterKey::new);
        open_cached(&OsDisk, folder.path(), OsStr::new(&name), key.as_ref()).map(|_reader| ())
    };
    assert!(open_with(Some([1; 32])).is_ok());
    assert!(matches!(open_with(Some([2; 32])), Err(SegmentFault::OtherKey)));
    assert!(matches!(open_with(None), Err(SegmentFault::NoKey)));
    assert!(matches!(open(folder.path(), Some([2; 32])).refused[0].kept, Kept::Quarantined(_)));
}

#[test]
fn a_readable_file_is_removed_once_a_key_is_configured() {
    let folder = tempfile::tempdir().expect("temporary folder");
    Sample::new(1, 0, 2).write_to(&open(folder.path(), None).store);
    let opened = open(folder.path(), KEYS[1]);
    assert!(opened.segments.is_empty());
    assert!(matches!(opened.refused[0].fault, SegmentFault::NotEncrypted));
    assert_eq!(opened.refused[0].kept, Kept::Deleted);
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
}

#[test]
fn each_constant_that_differs_is_named_with_both_values() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let header = Sample::new(1, 0, 1).write_to(&open(folder.path(), None).store).header;
    let check = |identity: KvIdentity| check_identity(&header, &identity);
    assert_eq!(check(identity()), Ok(Exactness::Exact));
    assert_eq!(check(KvIdentity { numerics_id: "cuda-1".to_owned(), ..identity() }), Ok(Exactness::Imported));
    let cases = [
        (KvIdentity { model_fingerprint: [9; 32], ..identity() }, "model fingerprint", "09"),
        (KvIdentity { kv_dtype: "f32".to_owned(), ..identity() }, "kv dtype", "f32"),
        (KvIdentity { kv_layout: "other".to_owned(), ..identity() }, "kv layout", "other"),
        (KvIdentity { block_size: 8, ..identity() }, "block size", "8"),
        (KvIdentity { block_bytes: 97, ..identity() }, "block bytes", "97"),
        (KvIdentity { rope_fingerprint: [8; 32], ..identity() }, "rope fingerprint", "08"),
        (KvIdentity { adapter: None, ..identity() }, "adapter", "none"),
        (KvIdentity { adapter: Some([7; 32]), ..identity() }, "adapter", "07"),
    ];
    for (expected, field, value) in cases {
        // Other numerics beside it change nothing.
        let mismatch = check(KvIdentity { numerics_id: "cuda-1".to_owned(), ..expected }).expect_err("is refused");
        assert_eq!(mismatch.field, field);
        assert!(mismatch.expected.contains(value) && !mismatch.found.contains(value), "{mismatch}");
    }
}
