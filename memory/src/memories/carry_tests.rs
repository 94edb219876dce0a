//! Tests of cubes and memories that travel: packing, unpacking, comparing, importing, exporting, changing the embedder.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::Clock;
use crate::cube::{CubeError, CubeName};
use crate::exchange::Strictness;
use crate::governance::audit::{AuditFilter, Finding};
use crate::governance::quota::{Quota, QuotaBook};
use crate::governance::retention::RetentionRules;
use crate::governance::{Actor, AuditKey, GovernanceError, Identity, PolicyEngine, Right, Role, Subject};
use crate::item::{NewItem, Source};
use crate::lifecycle::ItemState;
use crate::search::vectors::EmbedderId;
use crate::store::{Difference, ItemFilter};

fn actor(tenant: &str, role: Role) -> Actor {
    Actor::of_tenant(Identity { tenant: tenant.parse().expect("a tenant"), role })
}

fn name(text: &str) -> CubeName {
    text.parse().expect("a name")
}

/// A box with a key of its own.
fn open(folder: &Path, seed: u8, quota: Quota) -> Memories {
    for name in ["cubes", "heads"] {
        std::fs::create_dir_all(folder.join(name)).expect("a folder");
    }
    Memories::new(MemoriesParts {
        folder: folder.join("cubes"),
        heads_folder: folder.join("heads"),
        clock: Clock::system(),
        policy: PolicyEngine::builtin(),
        audit_key: AuditKey::from_seed(&[seed; 32]),
        quotas: QuotaBook::new(quota, std::collections::HashMap::new()),
        redactor: None,
        retention: RetentionRules::none(),
        embedder: None,
    })
}

struct Boxes {
    folder: tempfile::TempDir,
    here: Memories,
    there: Memories,
    ann: Actor,
}

impl Boxes {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let here = open(&folder.path().join("here"), 1, Quota::default());
        let there = open(&folder.path().join("there"), 2, Quota::default());
        Self { folder, here, there, ann: actor("acme", Role::Admin) }
    }

    /// A cube with two memories and a grant, packed.
    fn packed(&self) -> (Arc<MountedCube>, std::path::PathBuf) {
        let cube = self.here.create(&self.ann, name("notes")).expect("created");
        add(&cube, &self.ann, &["The lab code is 4417", "Velka likes teal"]);
        let subject: Subject = "evil".parse().expect("a subject");
        let share = Share { item: None, subject, right: Right::Read, expires_at: None };
        cube.share(&self.ann, share, None).expect("shared");
        cube.seal().expect("sealed");
        let file = self.folder.path().join("notes.memcube");
        cube.pack(&self.ann, &file).expect("packed");
        (cube, file)
    }
}

fn add(cube: &MountedCube, actor: &Actor, texts: &[&str]) -> Vec<crate::ItemId> {
    let items = texts.iter().map(|text| NewItem::fact(*text)).collect();
    let added = cube.add(actor, items, AddOptions::default()).expect("added");
    added.into_iter().map(|added| added.item.id).collect()
}

fn texts(cube: &MountedCube, actor: &Actor) -> Vec<String> {
    let listing = Listing { limit: 100, filter: ItemFilter::default(), ..Listing::default() };
    cube.list(actor, listing).expect("listed").items.into_iter().map(|item| item.text).collect()
}

#[test]
fn a_cube_from_another_box_brings_its_memories_and_none_of_its_grants() {
    let boxes = Boxes::new();
    let (_cube, file) = boxes.packed();
    let (bob, eve) = (actor("bobs", Role::Admin), actor("evil", Role::Admin));
    let how = Unpacking { name: Some(name("carried")), ..Unpacking::default() };
    let unpacked = boxes.there.unpack(&bob, &file, how).expect("unpacked");
    assert_eq!((unpacked.packed_by.as_str(), unpacked.num_grants_dropped), ("acme", 1));
    let cube = unpacked.cube;
    assert_eq!(texts(&cube, &bob), ["The lab code is 4417", "Velka likes teal"]);
    assert!(!cube.may_read(&eve).expect("asked") && !cube.may_read(&boxes.ann).expect("asked"));
    assert!(cube.grants(&bob, None, None, 10).expect("listed").is_empty(), "no row of a grant is left");
    let filter = AuditFilter { action: Some("cube.unpack".to_owned()), ..AuditFilter::default() };
    let entries = cube.audit(&bob, &filter, 10).expect("listed");
    assert_eq!(entries[0].details.as_ref().expect("details")["packed_by"], "acme");
}

#[test]
fn grants_are_kept_when_that_is_asked_for() {
    let boxes = Boxes::new();
    let (_cube, file) = boxes.packed();
    let how = Unpacking { grants: CarriedGrants::Keep, ..Unpacking::default() };
    let cube = boxes.there.unpack(&actor("bobs", Role::Admin), &file, how).expect("unpacked").cube;
    assert!(cube.may_read(&actor("evil", Role::Admin)).expect("asked"));
}

#[test]
fn a_foreign_audit_log_is_told_by_whose_key_it_is_signed_and_verifies_once_that_is_trusted() {
    let boxes = Boxes::new();
    let (_cube, file) = boxes.packed();
    let bob = actor("bobs", Role::Admin);
    let cube = boxes.there.unpack(&bob, &file, Unpacking::default()).expect("unpacked").cube;
    cube.seal().expect("sealed");
    let foreign = boxes.here.audit_key();
    let report = cube.verify_audit(&bob).expect("verified");
    assert!(!report.is_intact());
    let is_foreign = |finding: &Finding| matches!(finding, Finding::HeadByUnknownKey { key, .. } if *key == foreign);
    assert!(report.findings.iter().all(is_foreign), "{:?}", report.findings);
    let report = cube.verify_audit_trusting(&bob, &[foreign]).expect("verified");
    assert!(report.is_intact() && report.witnessed_size == report.size, "{report:?}");
}

#[test]
fn the_same_cube_twice_an_older_one_and_a_damaged_one_are_refused_and_leave_nothing() {
    let boxes = Boxes::new();
    let (cube, file) = boxes.packed();
    let twice = boxes.here.unpack(&boxes.ann, &file, Unpacking { name: Some(name("copy")), ..Unpacking::default() });
    assert!(matches!(twice, Err(MemoriesError::Cube(CubeError::SameCube { .. }))));
    add(&cube, &boxes.ann, &["One more"]);
    cube.seal().expect("sealed");
    let folder = cube.folder().to_owned();
    drop(cube);
    boxes.here.unmount(&boxes.ann, &name("notes")).expect("unmounted");
    std::fs::remove_dir_all(&folder).expect("removed");
    let older = boxes.here.unpack(&boxes.ann, &file, Unpacking::default());
    assert!(matches!(older, Err(MemoriesError::OlderThanHeads { .. })));
    let mut bytes = std::fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    assert!(matches!(
        boxes.there.unpack(&boxes.ann, &file, Unpacking::default()),
        Err(MemoriesError::Cube(CubeError::Damaged { .. }))
    ));
    for memories in [&boxes.here, &boxes.there] {
        assert_eq!(std::fs::read_dir(memories.folder()).expect("listed").count(), 0, "no folder is left");
    }
}

#[test]
fn what_does_not_fit_the_quota_is_not_unpacked() {
    let boxes = Boxes::new();
    let (_cube, file) = boxes.packed();
    let quota = Quota { num_items_max: Some(1), bytes_max: None };
    let small = open(&boxes.folder.path().join("small"), 3, quota);
    let refused = small.unpack(&boxes.ann, &file, Unpacking::default());
    assert!(matches!(refused, Err(MemoriesError::Governance(GovernanceError::QuotaExceeded { .. }))));
    let reader = boxes.there.unpack(&actor("acme", Role::Reader), &file, Unpacking::default());
    assert!(matches!(reader, Err(MemoriesError::Governance(_))));
}

#[test]
fn two_cubes_are_compared_memory_by_memory() {
    let boxes = Boxes::new();
    let (cube, file) = boxes.packed();
    let ids = add(&cube, &boxes.ann, &["One more"]);
    let earlier = boxes.there.unpack(&boxes.ann, &file, Unpacking::default()).expect("unpacked").cube;
    let entries = earlier.diff_with(&boxes.ann, &cube).expect("compared");
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].id, entries[0].difference), (ids[0], Difference::Added { version: 1 }));
    assert!(earlier.diff_with(&actor("evil", Role::Admin), &cube).is_err());
}

#[test]
fn an_export_is_imported_once_with_its_fields() {
    let boxes = Boxes::new();
    let (cube, _file) = boxes.packed();
    let mut lines = Vec::new();
    assert_eq!(cube.export(&boxes.ann, &mut lines, ExportedHistory::Included).expect("exported"), 2);
    assert!(cube.export(&actor("evil", Role::Admin), Vec::new(), ExportedHistory::LeftOut).is_err());
    lines.extend_from_slice(b"{broken\n{\"text\": \"by hand\", \"tags\": [\"x\"]}\n");
    let other = boxes.there.create(&boxes.ann, name("other")).expect("created");
    let options = ImportOptions::new(ImportFormat::JsonLines);
    let report = other.import(&boxes.ann, &mut lines.as_slice(), options).expect("imported");
    assert_eq!((report.num_added, report.num_duplicates, report.num_problems), (3, 0, 1));
    assert_eq!(texts(&other, &boxes.ann), ["The lab code is 4417", "Velka likes teal", "by hand"]);
    let again = other.import(&boxes.ann, &mut lines.as_slice(), options).expect("imported");
    assert_eq!((again.num_added, again.num_duplicates), (0, 3));
    let strict = ImportOptions { strictness: Strictness::Strict, ..options };
    assert!(matches!(other.import(&boxes.ann, &mut lines.as_slice(), strict), Err(MemoriesError::Exchange(_))));
    let page = other.list(&boxes.ann, Listing { limit: 1, ..Listing::default() }).expect("listed");
    assert!(matches!(&page.items[0].source, Source::Import { format, .. } if format == "jsonl"));
    let filter = AuditFilter { action: Some("item.import".to_owned()), ..AuditFilter::default() };
    assert_eq!(other.audit(&boxes.ann, &filter, 10).expect("listed").len(), 2);
}

#[test]
fn memories_of_other_systems_come_in_and_readers_bring_none() {
    let boxes = Boxes::new();
    let cube = boxes.here.create(&boxes.ann, name("notes")).expect("created");
    let mem0 = br#"{"results": [{"id": "a1", "memory": "Likes tea", "user_id": "anna"}]}"#;
    let memos = br#"[{"memory": "Moved to Oslo", "metadata": {"status": "archived"}}]"#;
    for (format, bytes) in [(ImportFormat::Mem0, mem0.as_slice()), (ImportFormat::Memos, memos.as_slice())] {
        let report = cube.import(&boxes.ann, &mut &*bytes, ImportOptions::new(format)).expect("imported");
        assert_eq!(report.num_added, 1);
    }
    let page = cube.list(&boxes.ann, Listing { limit: 9, ..Listing::default() }).expect("listed");
    assert_eq!(page.items[0].scope.user.as_deref(), Some("anna"));
    assert_eq!(page.items[1].state, ItemState::Archived);
    let reader = actor("acme", Role::Reader);
    assert!(cube.import(&reader, &mut mem0.as_slice(), ImportOptions::new(ImportFormat::Mem0)).is_err());
}

/// Says how often each letter is there, in a space of its own.
struct Letters(EmbedderId);

impl Embedder for Letters {
    fn id(&self) -> &EmbedderId {
        &self.0
    }

    fn dim(&self) -> usize {
        26
    }

    fn embed(&self, texts: &[&str], _purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        let count = |text: &str, letter: u8| 0.01 + text.bytes().filter(|byte| *byte == letter).count() as f32;
        Ok(texts.iter().map(|text| (b'a'..=b'z').map(|letter| count(text, letter)).collect()).collect())
    }
}

#[test]
fn another_embedder_makes_all_vectors_anew_and_then_the_old_space_goes() {
    let boxes = Boxes::new();
    let cube = boxes.here.create(&boxes.ann, name("notes")).expect("created");
    let spaces = || -> Vec<(String, u64)> {
        let stored = cube.read(|reader| Ok(reader.embedders()?)).expect("read");
        stored.into_iter().map(|one| (one.name, one.num_vectors)).collect()
    };
    let set = |space: &str| {
        let letters = Letters(EmbedderId::new(space).expect("a name"));
        boxes.here.set_embedder(Some(Arc::new(letters))).expect("set");
    };
    set("one");
    add(&cube, &boxes.ann, &["tea", "coffee", "zebra"]);
    assert_eq!(spaces(), [("one".to_owned(), 3)]);
    set("two");
    assert_eq!(cube.num_without_vector(), 3);
    assert_eq!(cube.embed_missing(2).expect("embedded"), 2);
    assert_eq!(spaces(), [("one".to_owned(), 3), ("two".to_owned(), 2)]);
    assert_eq!(cube.housekeep().expect("kept").num_embedded, 1);
    assert_eq!(cube.num_without_vector(), 0);
    assert_eq!(cube.housekeep().expect("kept").num_embedded, 0);
    assert_eq!(spaces(), [("two".to_owned(), 3)]);
}
