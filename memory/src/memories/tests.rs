//! Tests of the boundary: what callers see of it.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::cube::CubeName;
use crate::governance::audit::AuditFilter;
use crate::governance::quota::{Quota, QuotaBook};
use crate::governance::retention::RetentionRules;
use crate::governance::{Actor, AuditKey, GovernanceError, Identity, PolicyEngine, Right, Role, Subject};
use crate::item::{ItemPatch, NewItem, Scope};
use crate::lifecycle::ItemState;
use crate::store::ItemFilter;
use crate::{Clock, ItemId};

struct Place {
    folder: tempfile::TempDir,
    memories: Memories,
}

fn actor(tenant: &str, role: Role) -> Actor {
    Actor::of_tenant(Identity { tenant: tenant.parse().expect("a tenant"), role })
}

fn open(folder: &Path, quota: Quota) -> Memories {
    open_retaining(folder, quota, RetentionRules::none())
}

fn open_retaining(folder: &Path, quota: Quota, retention: RetentionRules) -> Memories {
    open_with(folder, quota, retention, Clock::system())
}

/// With a clock that goes on by a millisecond whenever it is looked at.
fn open_at(folder: &Path, now: Arc<std::sync::atomic::AtomicI64>, retention: RetentionRules) -> Memories {
    let moment = move || now.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let clock = Clock::from_fn(move || crate::Timestamp::from_unix_ms(moment()).expect("a moment"));
    open_with(folder, Quota::default(), retention, clock)
}

fn open_with(folder: &Path, quota: Quota, retention: RetentionRules, clock: Clock) -> Memories {
    for name in ["cubes", "heads"] {
        std::fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    Memories::new(MemoriesParts {
        folder: folder.join("cubes"),
        heads_folder: folder.join("heads"),
        clock,
        policy: PolicyEngine::builtin(),
        audit_key: AuditKey::from_seed(&[7; 32]),
        quotas: QuotaBook::new(quota, std::collections::HashMap::new()),
        redactor: None,
        retention,
        embedder: None,
    })
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let memories = open(folder.path(), Quota::default());
        Self { folder, memories }
    }

    fn cube(&self, actor: &Actor, name: &str) -> Arc<MountedCube> {
        self.memories.create(actor, name.parse::<CubeName>().expect("a name")).expect("created")
    }
}

fn add(cube: &MountedCube, actor: &Actor, texts: &[&str]) -> Vec<ItemId> {
    let items = texts.iter().map(|text| NewItem::fact(*text)).collect();
    let added = cube.add(actor, items, AddOptions::default()).expect("added");
    added.into_iter().map(|added| added.item.id).collect()
}

fn found(cube: &MountedCube, actor: &Actor, query: &str) -> Vec<String> {
    let answer = cube.search(actor, &SearchRequest::new(query, 10)).expect("searched");
    answer.results.into_iter().map(|found| found.item.text).collect()
}

#[test]
fn what_was_added_is_found_and_survives_unmounting() {
    let place = Place::new();
    let ann = actor("acme", Role::Admin);
    let cube = place.cube(&ann, "notes");
    add(&cube, &ann, &["Zorvan lives in Oslo", "Velka likes teal", "The lab code is 4417"]);
    assert_eq!(found(&cube, &ann, "Where does Zorvan live?")[0], "Zorvan lives in Oslo");
    drop(cube);
    let name = "notes".parse().expect("a name");
    place.memories.unmount(&ann, &name).expect("unmounted");
    assert!(matches!(place.memories.cube(&name), Err(MemoriesError::NotFound { .. })));
    let cube = place.memories.mount(&ann, &name).expect("mounted");
    assert_eq!(found(&cube, &ann, "4417"), ["The lab code is 4417"]);
    assert!(cube.verify(&ann).expect("verified").findings.is_empty());
    assert!(cube.verify_audit(&ann).expect("verified").is_intact());
}

#[test]
fn a_contradicted_fact_ceases_to_be_found_and_stays_in_the_past() {
    let place = Place::new();
    let ann = actor("acme", Role::User);
    let cube = place.cube(&actor("acme", Role::Admin), "notes");
    let options = AddOptions { contradictions: Contradictions::Supersede, ..AddOptions::default() };
    let first = cube.add(&ann, vec![NewItem::fact("Zorvan lives in Oslo")], options).expect("added")[0].item.clone();
    let second = cube.add(&ann, vec![NewItem::fact("Zorvan lives in Bergen")], options).expect("added");
    assert_eq!(second[0].event, AddEvent::Superseded(vec![first.id]));
    assert_eq!(found(&cube, &ann, "Where does Zorvan live?"), ["Zorvan lives in Bergen"]);
    let past = SearchRequest { as_of: Some(first.recorded_at), ..SearchRequest::new("Where does Zorvan live?", 10) };
    let answer = cube.search(&ann, &past).expect("searched");
    assert_eq!(answer.results[0].item.text, "Zorvan lives in Oslo");
}

#[test]
fn the_same_text_is_added_once_and_what_if_changes_nothing() {
    let place = Place::new();
    let ann = actor("acme", Role::Admin);
    let cube = place.cube(&ann, "notes");
    let ids = add(&cube, &ann, &["Velka likes teal", "Velka likes teal.", "Velka likes green"]);
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
    let without = SearchRequest { without: vec![ids[0]], ..SearchRequest::new("What does Velka like?", 10) };
    assert_eq!(cube.search(&ann, &without).expect("searched").results.len(), 1);
    let instead = vec![(ids[0], "Velka likes crimson".to_owned())];
    let instead = SearchRequest { instead, ..SearchRequest::new("crimson", 10) };
    assert_eq!(cube.search(&ann, &instead).expect("searched").results[0].item.id, ids[0]);
    assert!(found(&cube, &ann, "crimson").is_empty());
}

#[test]
fn other_tenants_see_nothing_until_it_is_shared_and_unknown_is_like_foreign() {
    let place = Place::new();
    let (ann, eve) = (actor("acme", Role::Admin), actor("evil", Role::Admin));
    let cube = place.cube(&ann, "notes");
    let ids = add(&cube, &ann, &["The lab code is 4417", "Velka likes teal"]);
    let message = |result: Result<crate::item::Item, MemoriesError>| result.expect_err("refused").to_string();
    let unknown = ItemId::new();
    assert_eq!(
        message(cube.get(&eve, ids[0], None)).replace(&ids[0].to_string(), "ID"),
        message(cube.get(&eve, unknown, None)).replace(&unknown.to_string(), "ID")
    );
    assert!(cube.search(&eve, &SearchRequest::new("code", 10)).is_err());
    assert!(place.memories.list(&eve).expect("listed").is_empty());
    let subject: Subject = "evil".parse().expect("a subject");
    let share = Share { item: Some(ids[1]), subject, right: Right::Read, expires_at: None };
    let grant = cube.share(&ann, share, None).expect("shared");
    assert_eq!(found(&cube, &eve, "code teal"), ["Velka likes teal"]);
    let listing = Listing { limit: 10, filter: ItemFilter::default(), ..Listing::default() };
    assert_eq!(cube.list(&eve, listing).expect("listed").items.len(), 1);
    assert!(cube.update(&eve, ids[1], None, ItemPatch { salience: Some(1.0), ..ItemPatch::default() }, None).is_err());
    cube.unshare(&ann, grant.id, None).expect("taken back");
    assert!(cube.search(&eve, &SearchRequest::new("teal", 10)).is_err());
}

#[test]
fn an_erased_memory_is_in_no_byte_of_the_cube_or_its_snapshots() {
    let place = Place::new();
    let ann = actor("acme", Role::Admin);
    let cube = place.cube(&ann, "notes");
    let ids = add(&cube, &ann, &["The canary xylophonequagmire sings", "Velka likes teal"]);
    cube.snapshot(&ann, &"before".parse().expect("a name")).expect("kept");
    let patch =
        ItemPatch { text: Some("The canary xylophonequagmire sings loudly".to_owned()), ..ItemPatch::default() };
    cube.update(&ann, ids[0], Some(1), patch, Some("it got louder")).expect("edited");
    let erasure = cube.erase(&ann, &[ids[0]], Some("asked for")).expect("erased");
    assert!(erasure.is_final);
    assert_eq!(erasure.num_in_snapshots, 1);
    assert!(found(&cube, &ann, "xylophonequagmire").is_empty());
    assert!(matches!(cube.get(&ann, ids[0], None), Err(MemoriesError::NotFound { .. })));
    assert_eq!(files_with(place.folder.path(), "xylophonequagmire"), Vec::<std::path::PathBuf>::new());
    assert!(cube.verify_audit(&ann).expect("verified").is_intact());
}

#[test]
fn a_legal_hold_refuses_erasure_and_a_full_quota_refuses_additions() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let memories = open(folder.path(), Quota { num_items_max: Some(2), bytes_max: None });
    let ann = actor("acme", Role::Admin);
    let cube = memories.create(&ann, "notes".parse().expect("a name")).expect("created");
    let ids = add(&cube, &ann, &["one", "two"]);
    let full = cube.add(&ann, vec![NewItem::fact("three")], AddOptions::default());
    assert!(matches!(full, Err(MemoriesError::Governance(GovernanceError::QuotaExceeded { .. }))));
    cube.hold(&ann, ids[0], Hold::Set, Some("a trial")).expect("held");
    assert!(cube.erase(&ann, &[ids[0]], None).is_err());
    cube.erase(&ann, &[ids[1]], None).expect("erased");
    add(&cube, &ann, &["three"]);
}

#[test]
fn a_memory_that_two_reasons_archive_is_archived_once() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let rules = r#"{"rules": [{"name": "all", "after_days": 0, "action": "archive"}], "at_expiry": "archive"}"#;
    let memories =
        open_retaining(folder.path(), Quota::default(), serde_json::from_str(rules).expect("rules that are checked"));
    let ann = actor("acme", Role::Admin);
    let cube = memories.create(&ann, "notes".parse().expect("a name")).expect("created");
    let expires_at = Some(Clock::system().now());
    let new = NewItem { expires_at, ..NewItem::fact("Zorvan lives in Oslo") };
    let id = cube.add(&ann, vec![new], AddOptions::default()).expect("added")[0].item.id;
    assert_eq!(cube.housekeep().expect("kept").num_archived, 1);
    assert_eq!(cube.get(&ann, id, None).expect("there").state, ItemState::Archived);
    assert_eq!(cube.housekeep().expect("kept"), Housekept::default());
}

#[test]
fn recalled_memories_become_active() {
    let place = Place::new();
    let ann = actor("acme", Role::Admin);
    let cube = place.cube(&ann, "notes");
    let new = NewItem { state: ItemState::Generated, ..NewItem::fact("Zorvan lives in Oslo") };
    let id = cube.add(&ann, vec![new], AddOptions::default()).expect("added")[0].item.id;
    cube.note_recalled([id]);
    assert_eq!(cube.housekeep().expect("kept").num_activated, 1);
    assert_eq!(cube.get(&ann, id, None).expect("there").state, ItemState::Activated);
    assert_eq!(cube.housekeep().expect("kept"), Housekept::default());
}

#[test]
fn a_receipt_is_signed_and_counts_what_was_erased_elsewhere() {
    use crate::governance::receipt::{ErasurePlace, ErasureStatus, PlaceCount};
    let place = Place::new();
    let ann = actor("acme", Role::Admin);
    let cube = place.cube(&ann, "notes");
    let ids = add(&cube, &ann, &["The lab code is 4417", "Velka likes teal"]);
    let erasure = cube.erase(&ann, &[ids[0]], Some("asked for")).expect("erased");
    let blocks = PlaceCount { erased: 7, ..PlaceCount::default() };
    let receipt = cube.receipt(&erasure, &[(ErasurePlace::KvDevice, blocks)]).expect("signed");
    receipt.verify(&AuditKey::from_seed(&[7; 32]).public()).expect("by the server's key");
    assert_eq!(receipt.receipt.items, [ids[0]]);
    assert_eq!(receipt.receipt.places[&ErasurePlace::KvDevice].erased, 7);
    assert!(matches!(receipt.receipt.status, ErasureStatus::Final { .. }));
    let entries = cube.audit(&ann, &AuditFilter::default(), 100).expect("read");
    let entry = &entries[usize::try_from(receipt.receipt.audit_seq).expect("small")];
    assert_eq!((entry.action.as_str(), entry.reason.as_deref()), ("item.erase", Some("asked for")));
}

#[test]
fn an_export_gives_everything_to_admins_and_a_subject_gets_what_is_about_it() {
    let place = Place::new();
    let ann = actor("acme", Role::Admin);
    let cube = place.cube(&ann, "notes");
    let scope = Scope { user: Some("velka".to_owned()), ..Scope::default() };
    let own = NewItem { scope: scope.clone(), ..NewItem::fact("Velka likes teal") };
    let own = cube.add(&ann, vec![own], AddOptions::default()).expect("added")[0].item.id;
    let texts: Vec<String> = (0..NUM_EXPORTED_PER_PAGE).map(|number| format!("The code is {number}")).collect();
    add(&cube, &ann, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut export = cube.begin_export(&ann).expect("begun");
    let mut records = Vec::new();
    while let Some(page) = cube.export_page(&mut export).expect("read") {
        records.extend(page);
    }
    assert_eq!(records.len(), NUM_EXPORTED_PER_PAGE + 1);
    assert!(records.iter().all(|record| record.versions.len() == 1));
    assert!(cube.begin_export(&actor("acme", Role::User)).is_err());
    let about = cube.export_subject(&ann, &scope, Some("asked for")).expect("exported");
    assert_eq!(about.records.iter().map(|record| record.item.id).collect::<Vec<_>>(), [own]);
    assert!(about.audit.iter().any(|entry| entry.action == "item.add"));
    assert!(cube.export_subject(&actor("acme", Role::User), &scope, None).is_err());
}

fn files_with(folder: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).expect("a file").windows(text.len()).any(|bytes| bytes == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[test]
fn receipts_are_kept_and_final_only_when_no_reader_holds_the_old_text() {
    use crate::governance::receipt::ErasureStatus;
    use crate::governance::receipt_rows::Wanted;
    let folder = tempfile::tempdir().expect("temporary folder");
    let now = Arc::new(std::sync::atomic::AtomicI64::new(1_800_000_000_000));
    let ann = actor("acme", Role::Admin);
    let seq = {
        let memories = open_at(folder.path(), Arc::clone(&now), RetentionRules::none());
        let cube = memories.create(&ann, "notes".parse().expect("a name")).expect("created");
        let ids = add(&cube, &ann, &["The canary xylophonequagmire sings", "Velka likes teal"]);
        // A reader that began before the erasure keeps the old pages until it ends.
        let erasure = cube
            .read(|reader| {
                reader.get(ids[1])?;
                let erasure = cube.erase(&ann, &[ids[0]], None)?;
                assert!(!erasure.is_final, "the reader holds the old view");
                let receipt = cube.receipt(&erasure, &[])?;
                assert_eq!(receipt.receipt.status, ErasureStatus::Pending);
                Ok(erasure)
            })
            .expect("erased");
        let pending = cube.kept_receipts(&ann, Wanted::Pending, 0, 10).expect("read");
        assert_eq!(pending.iter().map(|one| one.receipt.audit_seq).collect::<Vec<_>>(), [erasure.audit_seq]);
        // The file is purged at once, and the receipt completed when nobody has anything to add any more.
        assert_eq!(cube.housekeep().expect("kept").num_completed, 0);
        assert_eq!(files_with(folder.path(), "xylophonequagmire"), Vec::<std::path::PathBuf>::new());
        now.fetch_add(61_000, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(cube.housekeep().expect("kept").num_completed, 1);
        erasure.audit_seq
    };
    let memories = open_at(folder.path(), now, RetentionRules::none());
    assert!(memories.mount_all().expect("mounted").is_empty());
    let cube = memories.mounted().pop().expect("one");
    let kept = cube.kept_receipt(&ann, seq).expect("kept over the restart");
    kept.verify(&memories.audit_key()).expect("signed");
    assert!(matches!(kept.receipt.status, ErasureStatus::Final { .. }));
    assert!(cube.kept_receipts(&ann, Wanted::Pending, 0, 10).expect("read").is_empty());
    assert!(matches!(cube.kept_receipt(&ann, 9_999), Err(MemoriesError::NotFound { what: "erasure", .. })));
    assert!(cube.kept_receipt(&actor("evil", Role::Admin), seq).is_err());
}

#[test]
fn what_retention_erases_is_told_and_archived_memories_hide_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let now = Arc::new(std::sync::atomic::AtomicI64::new(1_800_000_000_000));
    let ann = actor("acme", Role::Admin);
    let expiring =
        |text: String| NewItem { expires_at: crate::Timestamp::from_unix_ms(1_800_000_000_000), ..NewItem::fact(text) };
    let memories = open_at(folder.path(), Arc::clone(&now), RetentionRules::none());
    let cube = memories.create(&ann, "erasing".parse().expect("a name")).expect("created");
    cube.add(&ann, vec![expiring("The lab code is 4417".to_owned())], AddOptions::default()).expect("added");
    assert_eq!(cube.housekeep().expect("kept").num_erased, 1);
    assert_eq!((cube.take_erased_by_retention(), cube.take_erased_by_retention()), (1, 0));
    drop((cube, memories));

    let archive = serde_json::from_str(r#"{"at_expiry": "archive"}"#).expect("rules");
    let other = tempfile::tempdir().expect("temporary folder");
    let memories = open_at(other.path(), now, archive);
    let cube = memories.create(&ann, "archiving".parse().expect("a name")).expect("created");
    for batch in 0..2 {
        let items = (0..300).map(|number| expiring(format!("Locker {batch}-{number} is empty"))).collect();
        cube.add(&ann, items, AddOptions::default()).expect("added");
    }
    let archived: usize = (0..4).map(|_| cube.housekeep().expect("kept").num_archived).sum();
    assert_eq!(archived, 600, "no round looks again at what is archived");
}

#[test]
fn a_grant_holder_is_told_of_its_own_memories_alone() {
    let place = Place::new();
    let (ann, eve) = (actor("acme", Role::Admin), actor("evil", Role::Admin));
    let cube = place.cube(&ann, "notes");
    let ids = add(&cube, &ann, &["The lab code is 4417", "Velka likes teal", "Zorvan lives in Oslo"]);
    cube.snapshot(&ann, &"secret-name".parse().expect("a name")).expect("kept");
    let subject: Subject = "evil".parse().expect("a subject");
    cube.share(&ann, Share { item: Some(ids[1]), subject, right: Right::Read, expires_at: None }, None)
        .expect("shared");
    let (all, seen) = (cube.inspect(&ann).expect("facts"), cube.inspect(&eve).expect("facts"));
    assert_eq!((all.counts.usage.num_items, all.snapshots.len()), (3, 1));
    assert!(all.num_audit_entries > 0 && all.num_terms > 0);
    assert_eq!((seen.counts.usage.num_items, seen.num_audit_entries, seen.num_terms), (1, 0, 0));
    assert!(seen.snapshots.is_empty() && seen.counts.file_bytes == 0);
}

#[test]
fn what_a_crash_left_of_an_unpacking_is_removed_at_start() {
    let place = Place::new();
    let leftover = place.folder.path().join("cubes").join(".memcube-x");
    std::fs::create_dir(&leftover).expect("made");
    std::fs::write(leftover.join("store.db"), "xylophonequagmire").expect("written");
    place.memories.mount_all().expect("mounted");
    assert!(!leftover.exists());
}
