//! Bad input through the boundary: hostile texts and names, clocks that go back, disks and folders that refuse, cubes that are
//! damaged, foreign, newer or in use. Each gives a typed error that names what is wrong, and nothing is lost.

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use memory::cube::{self, CubeError, CubeName, UnpackTarget};
use memory::governance::{Actor, Role};
use memory::item::{ItemKind, ItemPatch, NewItem, Scope};
use memory::memories::{
    AddOptions, Contradictions, Listing, Memories, MemoriesError, MountedCube, SearchFilter, SearchRequest,
};
use memory::store::{Cursor, ItemFilter, Start, StoreError};
use memory::{Clock, ItemId, Timestamp};
use support::{Random, actor, open};

struct Place {
    folder: tempfile::TempDir,
    memories: Memories,
    owner: Actor,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let memories = open(folder.path(), Clock::system());
        Self { folder, memories, owner: actor("acme", Role::Admin, None, None) }
    }

    fn cube(&self, name: &str) -> Arc<MountedCube> {
        self.memories.create(&self.owner, cube_name(name)).expect("a cube")
    }

    fn add(&self, cube: &MountedCube, text: impl Into<String>) -> Result<ItemId, MemoriesError> {
        let added = cube.add(&self.owner, vec![NewItem::fact(text)], AddOptions::default())?;
        Ok(added[0].item.id)
    }

    fn found(&self, cube: &MountedCube, query: &str) -> Vec<String> {
        let answer = cube.search(&self.owner, &SearchRequest::new(query, 10)).expect("searched");
        answer.results.into_iter().map(|found| found.item.text).collect()
    }

    fn count(&self, cube: &MountedCube) -> usize {
        cube.list(&self.owner, Listing { limit: 1_000, ..Listing::default() }).expect("listed").items.len()
    }

    fn is_sound(&self, cube: &MountedCube) {
        assert_eq!(cube.verify(&self.owner).expect("examined").findings, []);
        assert!(cube.verify_audit(&self.owner).expect("verified").is_intact());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("cubes").join(name)
    }
}

fn cube_name(name: &str) -> CubeName {
    name.parse().expect("a name")
}

#[test]
fn texts_that_are_too_long_empty_or_unprintable_are_refused_and_a_batch_with_one_is_not_added() {
    let place = Place::new();
    let cube = place.cube("notes");
    let id = place.add(&cube, "kept").expect("added");
    let huge = "ten megabytes ".repeat(10 << 20 >> 4);
    let bad = [huge.as_str(), "", "  \n ", "a\u{0}b", "a\u{1b}[31m", "a\u{7f}b", "\u{85}x\u{9b}"];
    for text in bad {
        let error = place.add(&cube, text).expect_err("a text that no memory can have");
        assert!(
            matches!(
                &error,
                MemoriesError::Store(
                    StoreError::TooLong { .. } | StoreError::Empty { .. } | StoreError::ControlCharacter { .. }
                )
            ),
            "{error}"
        );
        assert!(error.to_string().len() < 300, "an error does not repeat megabytes");
        let items = vec![NewItem::fact("good"), NewItem::fact(text), NewItem::fact("also good")];
        assert!(cube.add(&place.owner, items, AddOptions::default()).is_err());
        let patch = ItemPatch { text: Some(text.to_owned()), ..ItemPatch::default() };
        assert!(cube.update(&place.owner, id, None, patch, None).is_err());
        let merge = cube.merge(&place.owner, &[id, ItemId::new()], NewItem::fact(text), None);
        assert!(merge.is_err());
        let long_reason = "r".repeat(100_000);
        let reason = if text.is_empty() { long_reason.as_str() } else { text };
        let refused = cube.transition(&place.owner, id, None, memory::lifecycle::ItemState::Archived, Some(reason));
        assert!(refused.is_err() || reason.trim().is_empty(), "{reason:?}");
    }
    assert!(cube.search(&place.owner, &SearchRequest::new(huge, 10)).is_err());
    let too_many = (0..1_001).map(|number| NewItem::fact(format!("fact {number}"))).collect();
    let error = cube.add(&place.owner, too_many, AddOptions::default()).expect_err("too many");
    assert!(matches!(error, MemoriesError::TooMany { found: 1_001, .. }), "{error}");
    assert!(cube.search(&place.owner, &SearchRequest::new("kept", 1_001)).is_err());
    assert!(place.count(&cube) <= 1, "nothing of a refused batch is there");
    place.is_sound(&cube);
}

/// Texts that mean something to SQL, to full-text queries, to JSON, to file systems, or to nobody.
const SYNTAX: [&str; 16] = [
    "'; DROP TABLE items; --",
    "\" OR 1=1 --",
    "a AND NOT b* NEAR(c, 2)",
    "text:\"unclosed",
    "col : ^ - + * ( ) { } [ ]",
    "%_\\",
    "?1 ?2 :name @name $name",
    "../../etc/passwd",
    "{\"type\": \"derived\"}",
    "[\"]\",\"x\"]",
    "NULL",
    "x' UNION SELECT text FROM items",
    "\u{202e}gnirts\u{202c}",
    "日本語のテキスト",
    "e\u{301}\u{301}\u{301}\u{301}",
    "🦀🦀🦀",
];

#[test]
fn syntax_in_texts_tags_names_filters_and_ids_is_text() {
    let place = Place::new();
    let cube = place.cube("notes");
    for (number, syntax) in SYNTAX.into_iter().enumerate() {
        let scope = Scope { user: Some(syntax.into()), agent: None, session: Some(syntax.into()) };
        let tags = vec![syntax.to_owned(), "tag".to_owned()];
        let metadata = [(syntax.to_owned(), serde_json::json!(syntax))].into();
        let text = format!("marker{number} {syntax}");
        let new = NewItem { scope, tags, metadata, entities: vec![syntax.to_owned()], ..NewItem::fact(text.clone()) };
        let options = AddOptions { reason: Some(syntax), ..AddOptions::default() };
        let item = cube.add(&place.owner, vec![new], options).expect("it is only text")[0].item.clone();
        assert_eq!(item.text, text.trim());
        assert_eq!(cube.get(&place.owner, item.id, None).expect("there"), item);
        assert_eq!(place.found(&cube, &format!("marker{number}")), std::slice::from_ref(&item.text));
        place.found(&cube, syntax);
        let scope = Scope { user: Some(syntax.into()), ..Scope::default() };
        let filter = SearchFilter { tags_all: vec![syntax.into()], scope: scope.clone(), ..SearchFilter::default() };
        let request = SearchRequest { filter, ..SearchRequest::new(format!("marker{number}"), 10) };
        assert_eq!(cube.search(&place.owner, &request).expect("searched").results.len(), 1);
        let filters = [
            ItemFilter { tags_all: vec![syntax.into()], ..ItemFilter::default() },
            ItemFilter { tags_any: vec![syntax.into()], ..ItemFilter::default() },
            ItemFilter { entities_any: vec![syntax.into()], ..ItemFilter::default() },
            ItemFilter { scope, ..ItemFilter::default() },
            ItemFilter { text_contains: Some(syntax.into()), ..ItemFilter::default() },
        ];
        for filter in filters {
            let page = cube.list(&place.owner, Listing { filter: filter.clone(), limit: 10, ..Listing::default() });
            assert!(page.expect("listed").items.iter().any(|found| found.id == item.id), "{filter:?}");
        }
        let filter = ItemFilter { created_by: Some(syntax.into()), ..ItemFilter::default() };
        assert!(
            cube.list(&place.owner, Listing { filter, limit: 10, ..Listing::default() })
                .expect("listed")
                .items
                .is_empty()
        );
        let walk = cube.traverse(&place.owner, vec![Start::Entity(syntax.into())], (1, 10), None).expect("walked");
        assert_eq!(walk.reached.len(), 2, "{syntax}: the name and the memory");
        assert!(syntax.parse::<ItemId>().is_err() && syntax.parse::<Cursor>().is_err());
        assert!(syntax.parse::<CubeName>().is_err() && syntax.parse::<ItemKind>().is_err());
    }
    assert_eq!(place.count(&cube), SYNTAX.len());
    place.is_sound(&cube);
}

#[test]
fn the_clock_may_go_backwards_and_the_order_of_what_happened_stays() {
    let now_ms = Arc::new(AtomicI64::new(1_750_000_000_000));
    let clock = Arc::clone(&now_ms);
    let clock = Clock::from_fn(move || Timestamp::from_unix_ms(clock.load(Ordering::Relaxed)).expect("a moment"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place =
        Place { memories: open(folder.path(), clock.clone()), folder, owner: actor("acme", Role::Admin, None, None) };
    let cube = place.cube("notes");
    let options = AddOptions { contradictions: Contradictions::Supersede, ..AddOptions::default() };
    let mut moments = Vec::new();
    for (shift, city) in [(0, "Oslo"), (-86_400_000, "Bergen"), (-5, "Tromso"), (10, "Bodo")] {
        now_ms.fetch_add(shift, Ordering::Relaxed);
        let text = format!("Zorvan lives in {city}");
        let added = cube.add(&place.owner, vec![NewItem::fact(text)], options).expect("added");
        moments.push((added[0].item.recorded_at, city));
    }
    assert!(moments.is_sorted_by(|earlier, later| earlier.0 < later.0), "{moments:?}");
    for (moment, city) in &moments {
        let request = SearchRequest { as_of: Some(*moment), ..SearchRequest::new("Where does Zorvan live?", 10) };
        let answer = cube.search(&place.owner, &request).expect("searched");
        assert!(answer.results.iter().any(|found| found.item.text.ends_with(city)), "as of {moment}: {city}");
    }
    place.is_sound(&cube);
    drop(cube);
    drop(place.memories);
    now_ms.store(0, Ordering::Relaxed);
    let memories = open(place.folder.path(), clock);
    let place = Place { memories, ..place };
    let cube = place.memories.mount(&place.owner, &cube_name("notes")).expect("mounted in 1970");
    place.add(&cube, "written in 1970").expect("added");
    place.is_sound(&cube);
}

/// A folder that nobody can write, not even who may do everything: a read-only mount where that is possible.
#[test]
fn a_read_only_folder_is_told_and_the_other_cubes_go_on() {
    let place = Place::new();
    let (cube, other) = (place.cube("notes"), place.cube("other"));
    let id = place.add(&cube, "kept").expect("added");
    drop(cube);
    place.memories.unmount(&place.owner, &cube_name("notes")).expect("unmounted");
    let Some(_mount) = ReadOnly::make(&place.path("notes")) else {
        println!("skipped: no folder can be made read-only for this user");
        return;
    };
    let error = place.memories.mount(&place.owner, &cube_name("notes")).map(drop).expect_err("a read-only folder");
    let is_typed = matches!(
        &error,
        MemoriesError::Cube(CubeError::Io { .. } | CubeError::Store { source: StoreError::ReadOnly { .. }, .. })
    );
    assert!(is_typed, "{error:?}");
    place.add(&other, "the other goes on").expect("added");
    drop(_mount);
    let cube = place.memories.mount(&place.owner, &cube_name("notes")).expect("writable again");
    assert_eq!(cube.get(&place.owner, id, None).expect("there").text, "kept");
}

struct ReadOnly(PathBuf);

impl ReadOnly {
    fn make(folder: &Path) -> Option<Self> {
        let set = |mode: u32| fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("its mode");
        set(0o500);
        if OpenOptions::new().write(true).create_new(true).open(folder.join("probe")).is_err() {
            return Some(Self(folder.to_owned()));
        }
        // The superuser may write all the same, but not through a read-only mount.
        fs::remove_file(folder.join("probe")).expect("the probe");
        set(0o700);
        let mount = |arguments: &[&str]| Command::new("mount").args(arguments).arg(folder).output();
        let is_done =
            |output: std::io::Result<std::process::Output>| output.is_ok_and(|output| output.status.success());
        let path = folder.to_str().expect("UTF-8");
        if !is_done(mount(&["--bind", path])) {
            return None;
        }
        let mounted = Self(folder.to_owned());
        is_done(mount(&["-o", "remount,ro,bind"])).then_some(mounted)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).output().ok();
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700)).ok();
    }
}

#[test]
fn a_small_disk_that_fills_up_loses_nothing() {
    let disk = tempfile::tempdir().expect("a temporary folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(disk.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: a small disk takes the right to mount one");
        return;
    }
    let _unmounted = ReadOnly(disk.path().to_owned());
    let owner = actor("acme", Role::Admin, None, None);
    let memories = open(disk.path(), Clock::system());
    let cube = memories.create(&owner, cube_name("notes")).expect("a cube");
    let mut kept = Vec::new();
    let error = loop {
        let new = NewItem::fact(format!("marker{} {}", kept.len(), "many words ".repeat(1_000)));
        match cube.add(&owner, vec![new], AddOptions::default()) {
            Ok(added) => kept.push(added[0].item.id),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, MemoriesError::Store(StoreError::DiskFull | StoreError::Io { .. })), "{error:?}");
    assert!(cube.inspect(&owner).expect("reading goes on").closed_for_writing.is_some());
    assert!(kept.len() > 10 && kept.iter().all(|id| cube.get(&owner, *id, None).is_ok()));
    drop(cube);
    drop(memories);
    // Mounting takes a little room too.
    let grown = Command::new("mount").args(["-o", "remount,size=16m"]).arg(disk.path()).output();
    assert!(grown.expect("mount runs").status.success());
    let memories = open(disk.path(), Clock::system());
    let cube = memories.mount(&owner, &cube_name("notes")).expect("mounted");
    assert!(kept.iter().all(|id| cube.get(&owner, *id, None).is_ok()));
    assert_eq!(cube.verify(&owner).expect("examined").findings, []);
    assert!(cube.verify_audit(&owner).expect("verified").is_intact());
    cube.add(&owner, vec![NewItem::fact("there is room again")], AddOptions::default()).expect("added");
}

#[test]
fn a_cube_in_use_elsewhere_is_locked_and_a_mounted_one_is_not_mounted_twice() {
    let place = Place::new();
    let cube = place.cube("notes");
    let error = place.memories.mount(&place.owner, &cube_name("notes")).map(drop).expect_err("mounted already");
    assert!(matches!(error, MemoriesError::AlreadyMounted { .. }), "{error}");
    // Another server over the same folder, as another process would be: locks belong to the open file.
    let other = open(place.folder.path(), Clock::system());
    let error = other.mount(&place.owner, &cube_name("notes")).map(drop).expect_err("in use");
    assert!(matches!(error, MemoriesError::Cube(CubeError::Locked { .. })), "{error}");
    let error = other.create(&place.owner, cube_name("notes")).map(drop).expect_err("there");
    assert!(matches!(error, MemoriesError::Cube(CubeError::Exists { .. })), "{error}");
    place.add(&cube, "the first goes on").expect("added");
    drop(cube);
    place.memories.unmount(&place.owner, &cube_name("notes")).expect("unmounted");
    let cube = other.mount(&place.owner, &cube_name("notes")).expect("free now");
    assert_eq!(place.found(&cube, "first"), ["the first goes on"]);
}

#[test]
fn damaged_foreign_and_newer_cubes_are_refused_while_the_others_serve() {
    let place = Place::new();
    let sound = place.cube("sound");
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 6] = [
        ("newer", |folder| replace(&folder.join("manifest.json"), "\"format_version\": 1", "\"format_version\": 9")),
        ("foreign", |folder| fs::write(folder.join("manifest.json"), "{\"format\": \"zip\"}").expect("written")),
        ("renamed", |folder| replace(&folder.join("manifest.json"), "\"renamed\"", "\"sound\"")),
        ("lost", |folder| fs::remove_file(folder.join("memory.sqlite")).expect("removed")),
        ("text", |folder| fs::write(folder.join("memory.sqlite"), "no database at all").expect("written")),
        ("zeros", |folder| {
            let file = OpenOptions::new().write(true).open(folder.join("memory.sqlite")).expect("opened");
            file.write_all_at(&[0; 8_000], 100).expect("written");
        }),
    ];
    for (name, spoil) in spoils {
        place.add(&place.cube(name), "kept").expect("added");
        place.memories.unmount(&place.owner, &cube_name(name)).expect("unmounted");
        spoil(&place.path(name));
        let error = place.memories.mount(&place.owner, &cube_name(name)).map(drop).expect_err(name);
        let is_typed = match (name, &error) {
            ("newer", MemoriesError::Cube(CubeError::Newer { found: 9, .. })) => true,
            ("foreign", MemoriesError::Cube(CubeError::Foreign { .. })) => true,
            ("renamed" | "lost", MemoriesError::Cube(CubeError::Damaged { .. })) => true,
            ("text" | "zeros", MemoriesError::Cube(CubeError::Store { source, .. })) => {
                matches!(source, StoreError::NotAStore { .. } | StoreError::Damaged { .. })
            }
            _ => false,
        };
        assert!(is_typed, "{name}: {error:?}");
        place.add(&sound, format!("sound beside {name}")).expect("the others go on");
    }
    assert_eq!(place.found(&sound, "newer"), ["sound beside newer"]);
    drop(sound);
    drop(place.memories);
    let memories = open(place.folder.path(), Clock::system());
    let failed = memories.mount_all().expect("listed");
    assert_eq!(failed.len(), spoils.len(), "{failed:?}");
    assert_eq!(memories.mounted().len(), 1);
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("read");
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).expect("written");
}

#[test]
fn a_packed_cube_unpacks_as_it_was_and_no_flipped_or_missing_byte_is_let_in() {
    let place = Place::new();
    let cube = place.cube("notes");
    let id = place.add(&cube, "Zorvan lives in Oslo").expect("added");
    for number in 0..40 {
        place.add(&cube, format!("filling {number}")).expect("added");
    }
    let packed = place.folder.path().join("notes.memcube");
    cube.pack(&place.owner, &packed).expect("packed");
    assert!(matches!(cube.pack(&place.owner, &packed), Err(MemoriesError::Cube(CubeError::Exists { .. }))));
    let parent = place.folder.path().join("cubes");
    let unpack = |archive: &Path, name: &str| {
        let target = UnpackTarget {
            parent: &parent,
            name: Some(cube_name(name)),
            owner: "beta".parse().expect("a tenant"),
            clock: Clock::system(),
            extra_schema: &[],
        };
        cube::unpack(archive, target, |_store| Ok::<(), CubeError>(()))
    };
    assert!(matches!(unpack(&packed, "notes"), Err(CubeError::Exists { .. })));
    let folders = || fs::read_dir(&parent).expect("listed").count();
    let (num_folders, sound) = (folders(), fs::read(&packed).expect("read"));
    let (mut random, seed) = (Random(5), 5);
    let (damaged, mut num_refused) = (place.folder.path().join("damaged.memcube"), 0);
    for round in 0..60 {
        let at = random.below(sound.len());
        let mut bytes = sound.clone();
        if round % 4 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << random.below(8);
        }
        fs::write(&damaged, &bytes).expect("written");
        match unpack(&damaged, "carried") {
            // Padding and the owner's fields of a tar header mean nothing: what was unpacked is what was packed.
            Ok(unpacked) => {
                fs::remove_dir_all(unpacked.folder).expect("removed");
            }
            Err(CubeError::Foreign { .. } | CubeError::Damaged { .. } | CubeError::Newer { .. }) => num_refused += 1,
            Err(error) => panic!("seed {seed}, round {round}, byte {at}: {error:?}"),
        }
        assert_eq!(folders(), num_folders, "seed {seed}, round {round}: a folder is left");
    }
    assert!(num_refused > 40, "only {num_refused} were refused");
    let unpacked = unpack(&packed, "carried").expect("unpacked");
    assert_eq!(unpacked.packed_by.as_str(), "acme");
    drop(cube);
    place.memories.unmount(&place.owner, &cube_name("notes")).expect("unmounted");
    let beta = actor("beta", Role::Admin, None, None);
    assert!(place.memories.mount(&place.owner, &cube_name("carried")).is_err(), "it is another tenant's now");
    // On another box: here the log has gone on since it was packed, and an older copy of it is rightly a finding.
    let elsewhere = Place::new();
    fs::rename(unpacked.folder, elsewhere.folder.path().join("cubes").join("carried")).expect("moved");
    let carried = elsewhere.memories.mount(&beta, &cube_name("carried")).expect("mounted");
    assert_eq!(carried.get(&beta, id, None).expect("there").text, "Zorvan lives in Oslo");
    assert_eq!(carried.verify(&beta).expect("examined").findings, []);
    assert!(carried.verify_audit(&beta).expect("verified").is_intact());
}
