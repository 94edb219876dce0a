//! What is wrong is moved aside with its reason, and the quarantine has an end.

use std::fs;

use super::*;

#[test]
fn a_damaged_file_is_moved_aside_with_its_reason_and_the_rest_is_served() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), None).store;
    let (good, bad) = (Sample::new(1, 0, 2), Sample::new(2, 0, 2));
    let (kept, damaged) = (good.write_to(&store), bad.write_to(&store));
    drop(store);
    let path = path_of(folder.path(), &damaged);
    let mut bytes = fs::read(&path).expect("is read");
    bytes[40] ^= 1;
    fs::write(&path, &bytes).expect("is written");
    let opened = open(folder.path(), None);
    assert_eq!(opened.segments, std::slice::from_ref(&kept));
    assert_eq!(opened.store.total_bytes(), kept.file_bytes);
    good.assert_reads_from(&opened.store, &kept);
    let [refused] = opened.refused.as_slice() else { panic!("one is refused") };
    let Kept::Quarantined(aside) = &refused.kept else { panic!("is moved aside") };
    assert_eq!(fs::read(aside).expect("is read"), bytes);
    let reason = fs::read_to_string(folder.path().join(format!("quarantine/{}.reason", damaged.header.id)));
    let reason = reason.expect("has a reason");
    assert!(reason.contains(&refused.file_name) && reason.contains(&refused.fault.to_string()), "{reason}");
    drop(opened);
    assert!(open(folder.path(), None).refused.is_empty(), "it is refused once");
}

#[test]
fn a_segment_can_be_set_aside_while_running() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), None).store;
    let segment = Sample::new(1, 0, 2).write_to(&store);
    read_all(&store, &segment).expect("is read");
    assert!(matches!(store.quarantine(segment.header.id, &"block 1 is wrong"), Kept::Quarantined(_)));
    assert!(matches!(read_all(&store, &segment), Err(KvReadError::Unknown { .. })));
    assert_eq!((store.total_bytes(), store.segments()), (0, Vec::new()));
    assert_eq!(store.quarantine(segment.header.id, &"again"), Kept::Left, "there is nothing to move");
}

#[test]
fn the_quarantine_keeps_the_newest_and_not_many() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path(), None).store;
    let num_bad = REASONS_MAX + 3;
    let mut last = None;
    for _bad in 0..num_bad {
        let segment = Sample::new(1, 0, 1).write_to(&store);
        store.quarantine(segment.header.id, &"a test");
        last = Some(segment);
    }
    let names = names_in(&folder.path().join("quarantine"));
    let is_reason = |name: &&String| name.ends_with(".reason");
    assert_eq!(names.iter().filter(is_reason).count(), REASONS_MAX);
    assert_eq!(names.len() - REASONS_MAX, QUARANTINE_FILES_MAX);
    let newest = last.expect("there were some").header.id;
    assert!(names.contains(&newest.file_name()) && names.contains(&format!("{newest}.reason")));
}

#[test]
fn a_file_larger_than_the_quarantine_is_removed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    drop(open(folder.path(), None));
    let name = format!("{}{SEGMENT_SUFFIX}", "a".repeat(32));
    let file = fs::File::create(folder.path().join(&name)).expect("is made");
    file.set_len(QUARANTINE_BYTES_MAX + 1).expect("is long, and empty");
    let opened = open(folder.path(), None);
    assert_eq!(opened.refused[0].kept, Kept::Deleted);
    assert_eq!(names_in(folder.path()), ["quarantine"]);
    assert_eq!(names_in(&folder.path().join("quarantine")).len(), 1, "the reason stays");
}
