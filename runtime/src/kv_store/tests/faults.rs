//! A disk that fails: full, torn, short, slow to tell, gone. Never wrong bytes, and nothing half-written stays.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU8, Ordering};

use super::*;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// Half of a write is done, then there is no room.
    Full = 1,
    /// Half of a write is done, and from then on nothing works, not even cleaning up: what a crash leaves.
    Crash,
    /// Half of a write is done, and all seems well.
    Torn,
    /// A read gives half of its bytes.
    Short,
    /// A read fails.
    ReadError,
    /// A read gives a wrong byte.
    WrongByte,
    /// The call that is to wait for the medium, or to rename, fails.
    SyncError,
}

/// Works for so many calls, then shows its fault: once, or for good if it crashed.
#[derive(Clone)]
struct FaultyDisk {
    fault: Arc<AtomicU8>,
    calls_left: Arc<AtomicIsize>,
}

impl FaultyDisk {
    fn new() -> Self {
        Self { fault: Arc::new(AtomicU8::new(0)), calls_left: Arc::new(AtomicIsize::new(isize::MAX)) }
    }

    /// After so many more calls of the kind that the fault is about.
    fn fail_after(&self, num_calls: isize, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
        self.calls_left.store(num_calls, Ordering::SeqCst);
    }

    /// Whether the fault shows now.
    fn is_due(&self, faults: &[Fault]) -> Option<Fault> {
        let set = self.fault.load(Ordering::SeqCst);
        let fault = faults.iter().copied().find(|fault| *fault as u8 == set)?;
        let before = self.calls_left.fetch_sub(1, Ordering::SeqCst);
        (before == 0 || (before < 0 && fault == Fault::Crash)).then_some(fault)
    }

    fn step(&self) -> io::Result<()> {
        match self.is_due(&[Fault::Crash, Fault::SyncError]) {
            Some(_fault) => Err(io::Error::other("injected")),
            None => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn read_exact_at(&self, file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
        match self.is_due(&[Fault::Short, Fault::ReadError, Fault::WrongByte]) {
            Some(Fault::Short) => {
                let half = into.len() / 2;
                OsDisk.read_exact_at(file, &mut into[..half], offset)?;
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Some(Fault::ReadError) => Err(io::Error::other("injected")),
            Some(_wrong) => {
                OsDisk.read_exact_at(file, into, offset)?;
                into[into.len() / 2] ^= 0x10;
                Ok(())
            }
            None => OsDisk.read_exact_at(file, into, offset),
        }
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        OsDisk.create(path)
    }

    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let half = &bytes[..bytes.len() / 2];
        match self.is_due(&[Fault::Full, Fault::Torn, Fault::Crash]) {
            None => OsDisk.write_all_at(file, bytes, offset),
            Some(fault) => {
                OsDisk.write_all_at(file, half, offset)?;
                match fault {
                    Fault::Torn => Ok(()),
                    Fault::Full => Err(io::ErrorKind::StorageFull.into()),
                    _ => Err(io::Error::other("injected")),
                }
            }
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.step()?;
        OsDisk.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        OsDisk.rename(from, to)
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        OsDisk.sync_folder_of(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.is_due(&[Fault::Crash]) {
            Some(_fault) => Err(io::Error::other("injected")),
            None => OsDisk.remove(path),
        }
    }
}

fn open_faulty(folder: &Path, key: Option<[u8; 32]>) -> (KvStore, FaultyDisk) {
    let disk = FaultyDisk::new();
    let opened = KvStore::open_on(Box::new(disk.clone()), folder, options(key)).expect("opens");
    (opened.store, disk)
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    for key in KEYS {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (store, disk) = open_faulty(folder.path(), key);
        let sample = Sample::new(1, 0, 3);
        // Three blocks and what stands before them.
        for num_calls in 0..4 {
            disk.fail_after(num_calls, Fault::Full);
            let refused = store.write(&sample.as_new(), &sample.blocks);
            assert!(matches!(refused, Err(KvStoreError::DiskFull { .. })), "{refused:?}");
            assert_eq!(names_in(folder.path()), Vec::<String>::new());
            assert_eq!(store.total_bytes(), 0);
        }
        let segment = sample.write_to(&store);
        sample.assert_reads_from(&store, &segment);
        assert_eq!(store.total_bytes(), segment.file_bytes);
    }
}

#[test]
fn a_failed_sync_or_rename_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (store, disk) = open_faulty(folder.path(), None);
    let sample = Sample::new(1, 0, 3);
    let actions = ["create", "sync", "rename", "sync the folder of"];
    for (num_calls, expected) in (0..).zip(actions) {
        disk.fail_after(num_calls, Fault::SyncError);
        let refused = store.write(&sample.as_new(), &sample.blocks);
        assert!(matches!(&refused, Err(KvStoreError::Io { action, .. }) if *action == expected), "{refused:?}");
        assert_eq!(names_in(folder.path()), Vec::<String>::new());
        assert_eq!(store.segments(), []);
    }
    sample.write_to(&store);
}

#[test]
fn a_crash_at_any_step_leaves_the_whole_segment_or_nothing() {
    let sample = Sample::new(1, 0, 3);
    let (mut num_leftovers, mut num_whole) = (0, 0);
    // create, three blocks, head, sync, rename, sync of the folder
    for num_calls in 0..8 {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (store, disk) = open_faulty(folder.path(), KEYS[1]);
        let earlier = Sample::new(2, 0, 2).write_to(&store);
        disk.fail_after(num_calls, Fault::Crash);
        store.write(&sample.as_new(), &sample.blocks).expect_err("it crashed");
        drop(store);
        let opened = open(folder.path(), KEYS[1]);
        assert!(opened.refused.is_empty(), "{:?}", opened.refused);
        num_leftovers += opened.num_leftovers;
        for segment in &opened.segments {
            match segment.header.id == earlier.header.id {
                true => Sample::new(2, 0, 2).assert_reads_from(&opened.store, segment),
                false => {
                    num_whole += 1;
                    sample.assert_reads_from(&opened.store, segment);
                }
            }
        }
        assert_eq!(names_in(folder.path()).len(), opened.segments.len(), "nothing else is left");
    }
    assert_eq!((num_leftovers, num_whole), (6, 1));
}

#[test]
fn leftovers_go_at_the_start_and_what_is_not_ours_stays() {
    let folder = tempfile::tempdir().expect("temporary folder");
    drop(open(folder.path(), None));
    fs::write(folder.path().join(format!("{}.tmp", "5".repeat(32))), "half").expect("is written");
    fs::write(folder.path().join("notes.tmp"), "mine").expect("is written");
    assert_eq!(open(folder.path(), None).num_leftovers, 1);
    assert_eq!(names_in(folder.path()), ["notes.tmp"]);
}

#[test]
fn a_torn_write_is_found_when_it_is_read() {
    for key in KEYS {
        let sample = Sample::new(1, 0, 3);
        for num_calls in 0..4 {
            let folder = tempfile::tempdir().expect("temporary folder");
            let (store, disk) = open_faulty(folder.path(), key);
            disk.fail_after(num_calls, Fault::Torn);
            let segment = sample.write_to(&store);
            let fault = fault_of(read_all(&store, &segment).expect_err("is found"));
            assert!(fault.is_damage(), "{fault:?}");
            drop(store);
            let opened = open(folder.path(), key);
            let is_found = match opened.segments.as_slice() {
                [] => opened.refused.len() == 1,
                [segment] => read_all(&opened.store, segment).is_err(),
                _more => false,
            };
            assert!(is_found, "write {num_calls}");
        }
    }
}

#[test]
fn a_failed_read_is_never_wrong_bytes_and_the_next_one_is_right() {
    for key in KEYS {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (store, disk) = open_faulty(folder.path(), key);
        let sample = Sample::new(1, 0, 3);
        let segment = sample.write_to(&store);
        for fault in [Fault::Short, Fault::ReadError, Fault::WrongByte] {
            // Head, tokens, three blocks: the file is opened anew after each fault.
            for num_calls in 0..5 {
                disk.fail_after(num_calls, fault);
                let found = fault_of(read_all(&store, &segment).expect_err("is found"));
                let part = match num_calls {
                    0 => SegmentPart::Header,
                    1 => SegmentPart::Tokens,
                    call => SegmentPart::Block(u32::try_from(call - 2).expect("a small number")),
                };
                let is_right = match (&found, fault) {
                    (SegmentFault::ShortRead { part: found }, Fault::Short)
                    | (SegmentFault::Io { part: found, .. }, Fault::ReadError)
                    | (SegmentFault::Checksum { part: found }, Fault::WrongByte) => *found == part,
                    // A wrong byte of the header may be one that the parser stumbles over.
                    (_, Fault::WrongByte) => part == SegmentPart::Header && found.is_damage(),
                    _ => false,
                };
                assert!(is_right, "call {num_calls}: {found:?}");
                disk.fail_after(isize::MAX, fault);
                sample.assert_reads_from(&store, &segment);
                // Closes the file, so that the next round begins with the header again.
                disk.fail_after(0, Fault::ReadError);
                read_all(&store, &segment).expect_err("is found");
            }
        }
    }
}

#[test]
fn a_directory_removed_while_open_is_made_anew() {
    for key in KEYS {
        let parent = tempfile::tempdir().expect("temporary folder");
        let folder = parent.path().join("kv");
        let store = open(&folder, key).store;
        let sample = Sample::new(1, 0, 3);
        let lost = sample.write_to(&store);
        fs::remove_dir_all(&folder).expect("is removed");
        let fault = fault_of(read_all(&store, &lost).expect_err("is gone"));
        assert!(matches!(fault, SegmentFault::Missing), "{fault:?}");
        assert!(!fault.is_damage());
        let segment = sample.write_to(&store);
        sample.assert_reads_from(&store, &segment);
        assert_eq!((store.segments(), store.total_bytes()), (vec![segment.clone()], segment.file_bytes));
        assert!(matches!(read_all(&store, &lost), Err(KvReadError::Unknown { .. })));
        assert!(matches!(KvStore::open(&folder, options(key)), Err(KvStoreError::Locked { .. })), "it is locked anew");
        drop(store);
        assert_eq!(open(&folder, key).segments, [segment]);
    }
}

#[test]
fn segments_of_a_removed_directory_can_be_removed() {
    let parent = tempfile::tempdir().expect("temporary folder");
    let folder = parent.path().join("kv");
    let store = open(&folder, None).store;
    let segment = Sample::new(1, 0, 3).write_to(&store);
    fs::remove_dir_all(&folder).expect("is removed");
    assert_eq!(store.remove_all_of(segment.header.tenant).expect("is removed").num_segments, 1);
    assert_eq!(store.total_bytes(), 0);
}

#[test]
fn a_file_in_place_of_the_directory_is_a_typed_error() {
    let parent = tempfile::tempdir().expect("temporary folder");
    let folder = parent.path().join("kv");
    let store = open(&folder, None).store;
    let sample = Sample::new(1, 0, 3);
    fs::remove_dir_all(&folder).expect("is removed");
    fs::write(&folder, "not a folder").expect("is written");
    let refused = store.write(&sample.as_new(), &sample.blocks);
    assert!(matches!(&refused, Err(KvStoreError::Io { action: "make", .. })), "{refused:?}");
    assert_eq!(store.total_bytes(), 0);
    drop(store);
    assert!(matches!(KvStore::open(&folder, options(None)), Err(KvStoreError::Io { .. })));
}

#[test]
fn a_file_that_cannot_be_removed_stays_listed_and_the_rest_goes() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (store, disk) = open_faulty(folder.path(), None);
    let segments = [1, 2, 3].map(|seed| Sample::new(seed, 0, 1).write_to(&store));
    let ids = segments.each_ref().map(|segment| segment.header.id);
    fs::remove_file(path_of(folder.path(), &segments[2])).expect("is removed by another");
    disk.fail_after(0, Fault::Crash);
    assert!(matches!(store.remove(&ids[..1]), Err(KvStoreError::Io { action: "remove", .. })));
    assert_eq!(store.segments().len(), 3);
    disk.fail_after(isize::MAX, Fault::Crash);
    assert_eq!(store.remove(&ids).expect("is removed").num_segments, 3, "one that is gone already counts");
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
}

#[test]
fn a_file_that_cannot_be_read_at_the_start_is_left_for_the_next() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let sample = Sample::new(1, 0, 1);
    let segment = sample.write_to(&open(folder.path(), None).store);
    let disk = FaultyDisk::new();
    disk.fail_after(0, Fault::ReadError);
    let opened = KvStore::open_on(Box::new(disk), folder.path(), options(None)).expect("opens");
    assert_eq!(opened.segments, []);
    assert_eq!(opened.refused[0].kept, Kept::Left);
    drop(opened);
    assert_eq!(open(folder.path(), None).segments, [segment]);
}

#[test]
fn an_erasure_takes_a_file_that_could_not_be_read_at_the_start() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let segment = Sample::new(1, 0, 1).write_to(&open(folder.path(), None).store);
    let disk = FaultyDisk::new();
    disk.fail_after(0, Fault::ReadError);
    let store = KvStore::open_on(Box::new(disk), folder.path(), options(None)).expect("opens").store;
    let removed = store.remove_all_of(segment.header.tenant).expect("is removed");
    assert_eq!(removed, Removed { num_segments: 0, num_bytes: 0, num_quarantined: 1 });
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
}
