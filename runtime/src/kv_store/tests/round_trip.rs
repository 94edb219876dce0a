//! What is written is read back, stays private, and keeps its budget.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::{Dtype, SafeTensors};

use super::*;

#[test]
fn a_segment_reads_back_before_and_after_a_restart() {
    for key in KEYS {
        let folder = tempfile::tempdir().expect("temporary folder");
        let samples = [Sample::new(1, 0, 5), Sample::new(1, 5, 3), Sample::new(2, 0, BLOCKS_MAX as u32)];
        let store = open(folder.path(), key).store;
        let written: Vec<SegmentFile> = samples.iter().map(|sample| sample.write_to(&store)).collect();
        for (sample, segment) in samples.iter().zip(&written) {
            sample.assert_reads_from(&store, segment);
        }
        let total_bytes = store.total_bytes();
        drop(store);
        let opened = open(folder.path(), key);
        assert!(opened.refused.is_empty(), "{:?}", opened.refused);
        assert_eq!(opened.store.total_bytes(), total_bytes);
        assert_eq!(opened.segments, opened.store.segments());
        assert_eq!(opened.segments.len(), samples.len());
        for (sample, segment) in samples.iter().zip(&written) {
            assert!(opened.segments.contains(segment));
            sample.assert_reads_from(&opened.store, segment);
        }
    }
}

#[test]
fn the_header_keeps_every_field() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let unknown = Sample { lineage: Lineage::Unknown, ..Sample::new(1, 2, 2) };
    let plain_identity = KvIdentity { adapter: None, kv_dtype: "f\"32\\".to_owned(), ..identity() };
    let no_adapter = Sample { identity: plain_identity, lineage: Lineage::Known(Vec::new()), ..Sample::new(2, 0, 1) };
    let store = open(folder.path(), None).store;
    let written = [unknown.write_to(&store), no_adapter.write_to(&store)];
    drop(store);
    let found = open(folder.path(), None).segments;
    for (sample, segment) in [unknown, no_adapter].iter().zip(&written) {
        let header = &found.iter().find(|found| found.header.id == segment.header.id).expect("is listed").header;
        assert_eq!(header.identity, sample.identity);
        assert_eq!(header.lineage, sample.lineage);
        assert_eq!(header.tenant, TenantTag::of_salt(&sample.salt));
        assert_eq!(header.created_ms, CREATED_MS);
        assert_eq!((header.first_block, header.num_blocks as usize), (sample.first_block, sample.blocks.len()));
        assert_eq!(header.keys.as_ref().map(|keys| keys.root), Some(sample.root()));
    }
}

#[test]
fn part_of_a_segment_can_be_read() {
    for key in KEYS {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = open(folder.path(), key).store;
        let sample = Sample::new(1, 0, 6);
        let id = sample.write_to(&store).header.id;
        let mut buffers = vec![vec![0; 96]; 2];
        store.read_blocks(id, 3..5, &mut buffers).expect("is read");
        assert_eq!(buffers, sample.blocks[3..5]);
        store.read_blocks::<Vec<u8>>(id, 6..6, &mut []).expect("nothing is read");
    }
}

#[test]
fn a_call_that_does_not_fit_the_segment_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), None).store;
    let id = Sample::new(1, 0, 3).write_to(&store).header.id;
    let mut three = vec![vec![0; 96]; 3];
    let read = |range, buffers: &mut [Vec<u8>]| store.read_blocks(id, range, buffers).expect_err("is refused");
    assert!(matches!(read(1..4, &mut three), KvReadError::Range { end: 4, num_blocks: 3, .. }));
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    let reversed = 2..1;
    assert!(matches!(read(reversed, &mut []), KvReadError::Range { start: 2, end: 1, .. }));
    assert!(matches!(read(0..2, &mut three), KvReadError::NumBuffers { expected: 2, found: 3, .. }));
    three[1].pop();
    assert!(matches!(read(0..3, &mut three), KvReadError::BufferBytes { block: 1, expected: 96, found: 95, .. }));
    let other = Sample::new(2, 0, 1).write_to(&store).header.id;
    store.remove(&[other]).expect("is removed");
    let unknown = store.read_blocks::<Vec<u8>>(other, 0..0, &mut []).expect_err("is refused");
    assert!(matches!(unknown, KvReadError::Unknown { id } if id == other));
}

#[test]
fn what_cannot_be_a_segment_is_not_written() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), None).store;
    let problem = |change: fn(&mut Sample)| {
        let mut sample = Sample::new(1, 1, 2);
        change(&mut sample);
        match store.write(&sample.as_new(), &sample.blocks) {
            Err(KvStoreError::Segment(problem)) => problem,
            other => panic!("expected a problem of the segment, got {other:?}"),
        }
    };
    let sources = |num: usize, len: usize| Lineage::Known(vec!["s".repeat(len); num]);
    let many = sources(SOURCES_MAX + 1, 1);
    assert_eq!(problem(|s| s.blocks.clear()), SegmentProblem::NumBlocks { found: 0, max: BLOCKS_MAX });
    assert_eq!(
        problem(|s| s.blocks = vec![vec![0; 96]; BLOCKS_MAX + 1]),
        SegmentProblem::NumBlocks { found: BLOCKS_MAX + 1, max: BLOCKS_MAX }
    );
    assert_eq!(problem(|s| s.blocks[1] = vec![0; 97]), SegmentProblem::BlockLen { block: 1, expected: 96, found: 97 });
    assert_eq!(problem(|s| s.tokens.truncate(11)), SegmentProblem::NumTokens { expected: 12, found: 11 });
    assert_eq!(problem(|s| s.first_block = 0), SegmentProblem::NumTokens { expected: 8, found: 12 });
    assert!(matches!(problem(|s| s.identity.block_size = 0), SegmentProblem::BlockSize { found: 0, .. }));
    assert!(matches!(problem(|s| s.identity.block_bytes = 0), SegmentProblem::BlockBytes { found: 0, .. }));
    assert!(matches!(problem(|s| s.first_block = u32::MAX), SegmentProblem::ChainTokens { .. }));
    assert!(matches!(
        problem(|s| s.identity.kv_layout = "x".repeat(IDENTITY_BYTES_MAX + 1)),
        SegmentProblem::IdentityBytes { field: "kv layout", .. }
    ));
    let too_many = Sample { lineage: many, ..Sample::new(1, 0, 1) };
    let refused = store.write(&too_many.as_new(), &too_many.blocks);
    assert!(matches!(refused, Err(KvStoreError::Segment(SegmentProblem::NumSources { .. }))));
    let too_long = Sample { lineage: sources(1, SOURCE_BYTES_MAX + 1), ..Sample::new(1, 0, 1) };
    let refused = store.write(&too_long.as_new(), &too_long.blocks);
    assert!(matches!(refused, Err(KvStoreError::Segment(SegmentProblem::SourceBytes { .. }))));
    let too_much = Sample { lineage: sources(SOURCES_MAX, SOURCE_BYTES_MAX), ..Sample::new(1, 0, 1) };
    let refused = store.write(&too_much.as_new(), &too_much.blocks);
    assert!(matches!(refused, Err(KvStoreError::Segment(SegmentProblem::HeaderBytes { .. }))));
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
    assert_eq!(store.total_bytes(), 0);
}

#[test]
fn files_and_folders_are_for_their_owner_only() {
    let parent = tempfile::tempdir().expect("temporary folder");
    let folder = parent.path().join("kv");
    let store = open(&folder, None).store;
    let segment = Sample::new(1, 0, 2).write_to(&store);
    let quarantined = Sample::new(2, 0, 2).write_to(&store);
    let Kept::Quarantined(aside) = store.quarantine(quarantined.header.id, &"a test") else { panic!("is moved") };
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path_of(&folder, &segment)), 0o600);
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&aside), 0o600);
    assert_eq!(mode(&folder.join("quarantine")), 0o700);
    assert_eq!(mode(&folder.join("lock")), 0o600);
}

#[test]
fn a_file_is_what_safetensors_says_it_is() {
    for key in KEYS {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = open(folder.path(), key).store;
        let sample = Sample::new(1, 1, 3);
        let segment = sample.write_to(&store);
        let bytes = fs::read(path_of(folder.path(), &segment)).expect("is read");
        assert_eq!(bytes.len() as u64, segment.file_bytes);
        let (_length, metadata) = SafeTensors::read_metadata(&bytes).expect("is safetensors");
        let fields = metadata.metadata().as_ref().expect("has metadata");
        assert_eq!(fields["format"], "memos-kv");
        assert_eq!(fields["encryption"], if key.is_some() { "aes-256-gcm" } else { "none" });
        let tensors = SafeTensors::deserialize(&bytes).expect("is safetensors");
        let blocks = tensors.tensor("blocks").expect("is there");
        assert_eq!((blocks.dtype(), blocks.shape()), (Dtype::U8, [3, 96].as_slice()));
        let tokens = tensors.tensor("tokens").expect("is there");
        assert_eq!((tokens.dtype(), tokens.shape()), (Dtype::U32, [16].as_slice()));
        assert_eq!(blocks.data() == sample.blocks.concat(), key.is_none());
        let checks = tensors.tensor("checks").expect("is there");
        assert_eq!(checks.shape()[0], 5);
        if key.is_none() {
            assert_eq!(checks.data()[64..96], *blake3::hash(&sample.blocks[0]).as_bytes());
        }
    }
}

#[test]
fn an_encrypted_file_shows_neither_tokens_nor_blocks_nor_keys() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (plain, hidden) = (folder.path().join("plain"), folder.path().join("hidden"));
    let sample = Sample::new(1, 2, 4);
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    secrets.extend(sample.tokens.windows(2).map(|run| run.iter().flat_map(|token| token.to_le_bytes()).collect()));
    secrets.extend(sample.blocks.iter().flat_map(|block| block.chunks(16)).map(<[u8]>::to_vec));
    secrets.extend(sample.blocks.iter().map(|block| blake3::hash(block).as_bytes().to_vec()));
    secrets.extend(sample.keys().iter().map(|key| key.as_bytes().to_vec()));
    secrets.push(sample.root().as_bytes().to_vec());
    secrets.push(sample.salt.to_vec());
    let bytes_in = |folder: &Path, key| {
        let segment = sample.write_to(&open(folder, key).store);
        fs::read(path_of(folder, &segment)).expect("is read")
    };
    let readable = bytes_in(&plain, None);
    let num_readable = secrets.iter().filter(|secret| contains(&readable, secret)).count();
    assert_eq!(num_readable, secrets.len() - 1, "all but the salt are there when there is no key");
    let encrypted = bytes_in(&hidden, KEYS[1]);
    assert!(!secrets.iter().any(|secret| contains(&encrypted, secret)));
    let hex = |bytes: &[u8]| identity::hex(bytes).into_bytes();
    assert!(!secrets.iter().any(|secret| contains(&encrypted, &hex(secret))));
}

#[test]
fn equal_blocks_look_different_in_every_encrypted_file() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), KEYS[1]).store;
    let mut sample = Sample::new(1, 0, 2);
    sample.blocks[1] = sample.blocks[0].clone();
    let files = [sample.write_to(&store), sample.write_to(&store)];
    let files = files.map(|segment| fs::read(path_of(folder.path(), &segment)).expect("is read"));
    let stored: Vec<&[u8]> = files.iter().flat_map(|bytes| bytes[bytes.len() - 2 * 96..].chunks(96)).collect();
    assert_eq!(stored.len(), 4);
    for (place, block) in stored.iter().enumerate() {
        assert!(!stored[..place].contains(block));
        assert_ne!(*block, sample.blocks[0]);
    }
}

#[test]
fn a_budget_is_kept_and_given_back() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let sample = Sample::new(1, 0, 4);
    let store = open(folder.path(), None).store;
    let one = sample.write_to(&store).file_bytes;
    drop(store);
    let options = KvStoreOptions { max_bytes: 2 * one, master_key: None };
    let store = KvStore::open(folder.path(), options).expect("opens").store;
    let second = sample.write_to(&store);
    assert_eq!(store.total_bytes(), 2 * one);
    let refused = store.write(&sample.as_new(), &sample.blocks);
    assert!(
        matches!(refused, Err(KvStoreError::OverBudget { needed, used, max }) if (needed, used, max) == (one, 2 * one, 2 * one))
    );
    let removed = store.remove(&[second.header.id, second.header.id]).expect("is removed");
    assert_eq!(removed, Removed { num_segments: 1, num_bytes: one, num_quarantined: 0 });
    assert_eq!(store.total_bytes(), one);
    sample.write_to(&store);
    drop(store);
    // More than the budget is found: it is listed, and whoever owns the policy decides.
    let store = KvStore::open(folder.path(), KvStoreOptions { max_bytes: 0, master_key: None }).expect("opens").store;
    assert_eq!(store.segments().len(), 2);
    assert!(matches!(store.write(&sample.as_new(), &sample.blocks), Err(KvStoreError::OverBudget { max: 0, .. })));
}

#[test]
fn a_tenant_goes_with_all_of_its_segments_and_the_quarantine() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), None).store;
    let (mine, other) = (Sample::new(1, 0, 2), Sample { salt: [8; 32], ..Sample::new(1, 0, 2) });
    let segments = [mine.write_to(&store), mine.write_to(&store)];
    let aside = mine.write_to(&store);
    let kept = other.write_to(&store);
    store.quarantine(aside.header.id, &"a test");
    let removed = store.remove_all_of(segments[0].header.tenant).expect("is removed");
    assert_eq!(removed, Removed { num_segments: 2, num_bytes: 2 * segments[0].file_bytes, num_quarantined: 1 });
    assert_eq!(store.segments(), std::slice::from_ref(&kept));
    assert_eq!(names_in(folder.path()), [kept.header.id.file_name(), "quarantine".to_owned()]);
    assert_eq!(names_in(&folder.path().join("quarantine")), [format!("{}.reason", aside.header.id)]);
    drop(store);
    assert_eq!(open(folder.path(), None).segments, [kept]);
}

#[test]
fn a_second_store_on_the_directory_is_refused_while_the_first_is_open() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let first = open(folder.path(), None);
    assert!(matches!(KvStore::open(folder.path(), options(None)), Err(KvStoreError::Locked { .. })));
    drop(first);
    open(folder.path(), None);
}

/// Counts how often a file is opened.
struct CountingDisk(Arc<AtomicUsize>);

impl Disk for CountingDisk {
    fn open(&self, path: &Path) -> io::Result<File> {
        self.0.fetch_add(1, Ordering::Relaxed);
        OsDisk.open(path)
    }
}

#[test]
fn a_prefix_opens_each_of_its_segments_once() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let num_opened = Arc::new(AtomicUsize::new(0));
    let disk = Box::new(CountingDisk(Arc::clone(&num_opened)));
    let store = KvStore::open_on(disk, folder.path(), options(None)).expect("opens").store;
    let segments: Vec<SegmentFile> = (0..16).map(|part| Sample::new(1, part * 32, 32).write_to(&store)).collect();
    assert_eq!(num_opened.load(Ordering::Relaxed), 0);
    let mut buffer = [[0; 96]];
    for block in 0..32 {
        for (part, segment) in segments.iter().enumerate() {
            store.read_blocks(segment.header.id, block..block + 1, &mut buffer).expect("is read");
            assert_eq!(buffer[0][..], noise(1, part as u32 * 32 + block, 96));
        }
    }
    assert_eq!(num_opened.load(Ordering::Relaxed), 16);
}

#[test]
fn more_segments_than_stay_open_are_read_all_the_same() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), None).store;
    let samples: Vec<Sample> = (0..OPEN_SEGMENTS_MAX as u32 + 8).map(|part| Sample::new(1, part, 1)).collect();
    let segments: Vec<SegmentFile> = samples.iter().map(|sample| sample.write_to(&store)).collect();
    for _round in 0..2 {
        for (sample, segment) in samples.iter().zip(&segments) {
            sample.assert_reads_from(&store, segment);
        }
    }
}

#[test]
fn threads_share_a_store() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), KEYS[1]).store;
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for part in 0..8 {
                    let sample = Sample::new(seed, part * 3, 3);
                    let segment = sample.write_to(store);
                    sample.assert_reads_from(store, &segment);
                    if part % 2 == 0 {
                        store.remove(&[segment.header.id]).expect("is removed");
                    }
                }
            });
        }
    });
    let left = store.segments();
    assert_eq!(left.len(), 16);
    assert_eq!(store.total_bytes(), left.iter().map(|segment| segment.file_bytes).sum::<u64>());
    assert_eq!(names_in(folder.path()).len(), 16);
}

#[test]
fn a_master_key_is_not_printed() {
    let text = format!("{:?}", options(Some([0xAB; 32])));
    assert!(!text.to_lowercase().contains("ab") && !text.contains("171"), "{text}");
}
