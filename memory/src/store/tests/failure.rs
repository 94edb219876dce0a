//! What goes wrong around the store: foreign and damaged files, a full disk, failing changes. Typed errors, and
//! nothing lost.

use std::fs;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::{BY, Bench, FILE, START_MS, open, variant};
use crate::item::{ItemPatch, NewItem};
use crate::store::{Difference, Finding, Store, StoreError, diff};
use crate::{Clock, CubeId, ItemId};

#[test]
fn what_is_no_store_of_this_cube_is_refused_and_left_alone() {
    let bench = Bench::new();
    let folder = bench.folder.path();
    let open = |name: &str, cube| open(&folder.join(name), cube, &bench.clock).map(drop).expect_err(name);
    fs::write(folder.join("text"), "this is no database at all").expect("a file");
    assert_eq!(variant(&open("text", CubeId::new())), "NotAStore");
    let foreign = Connection::open(folder.join("foreign")).expect("a database");
    foreign.execute_batch("CREATE TABLE a (b); PRAGMA user_version = 1;").expect("a table");
    let before = fs::read(folder.join("foreign")).expect("a file");
    assert_eq!(variant(&open("foreign", CubeId::new())), "NotAStore");
    assert_eq!(fs::read(folder.join("foreign")).expect("a file"), before);
    assert_eq!(variant(&open(".", CubeId::new())), "CannotOpen");
    assert_eq!(variant(&open("no/such/folder", CubeId::new())), "CannotOpen");
    assert_eq!(variant(&open(FILE, CubeId::new())), "OtherCube");
    assert!(!folder.join("no").exists());
}

#[test]
fn newer_active_and_damaged_files_are_refused() {
    let bench = Bench::new();
    bench
        .store
        .write(|tx| (0..200).map(|n| tx.insert(NewItem::fact(format!("fact {n}")), BY)).collect::<Result<Vec<_>, _>>())
        .expect("items");
    let folder = bench.folder.path();
    let spoil = |name: &str, change: &str| {
        let path = folder.join(name);
        bench.store.snapshot_to(&path).expect("a copy");
        Connection::open(&path).and_then(|file| file.execute_batch(change)).expect("a change");
        open(&path, bench.store.cube(), &bench.clock)
    };
    let newer = spoil("newer", "PRAGMA user_version = 99").map(drop).expect_err("a newer file");
    assert!(matches!(newer, StoreError::Newer { version: 99, supported: 1, .. }), "{newer}");
    let trigger = "CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM versions; END";
    assert_eq!(variant(&spoil("active", trigger).map(drop).expect_err("a trigger")), "NotAStore");
    assert_eq!(variant(&spoil("gutted", "DROP TABLE meta").map(drop).expect_err("no meta")), "Damaged");
    assert_eq!(variant(&spoil("empty meta", "DELETE FROM meta").map(drop).expect_err("no meta")), "Damaged");
    let findings =
        spoil("lost", "PRAGMA foreign_keys = OFF; DELETE FROM items WHERE row = 7").expect("still readable").check();
    let findings = findings.expect("an examination");
    assert!(findings.iter().any(|finding| matches!(finding, Finding::Dangling { .. })), "{findings:?}");
    let edits = [
        ("UPDATE items SET text = 'x' WHERE row = 3", "CurrentDiffers"),
        ("UPDATE versions SET version = 5 WHERE row = 3", "VersionsMissing"),
        ("UPDATE items SET kind = 'nonsense' WHERE row = 3", "Unreadable"),
        ("INSERT INTO item_tags VALUES ('t', 3)", "TagsDiffer"),
        (
            "INSERT INTO entities VALUES (1, 'x', 'x'); INSERT INTO mentions VALUES (1, 3, 1, 'x', 0, NULL)",
            "MentionsDiffer",
        ),
        ("INSERT INTO edges VALUES (1, 3, 4, 'merged_into', 0, NULL)", "MergeDiffers"),
        ("UPDATE meta SET content_bytes = 1", "UsageDiffers"),
        ("UPDATE meta SET last_recorded_at = 1", "MomentDiffers"),
    ];
    for (index, (edit, expected)) in edits.into_iter().enumerate() {
        let findings = spoil(&format!("edited {index}"), edit).expect("still readable").check().expect("findings");
        assert!(findings.iter().any(|finding| format!("{finding:?}").starts_with(expected)), "{edit}: {findings:?}");
    }
}

#[test]
fn flipped_and_missing_bytes_never_give_wrong_structure_without_an_error() {
    let bench = Bench::new();
    bench
        .store
        .write(|tx| (0..300).map(|n| tx.insert(NewItem::fact(format!("fact {n}")), BY)).collect::<Result<Vec<_>, _>>())
        .expect("items");
    let folder = bench.folder.path();
    bench.store.snapshot_to(&folder.join("sound")).expect("a copy");
    let sound = fs::read(folder.join("sound")).expect("a file");
    let mut num_noticed = 0;
    for (index, place) in (0..sound.len()).step_by(997).enumerate() {
        let (path, mut bytes) = (folder.join(format!("damaged {index}")), sound.clone());
        if index % 2 == 0 {
            bytes[place] ^= 0xFF;
        } else {
            bytes.truncate(place);
        }
        fs::write(&path, bytes).expect("a file");
        // Nothing panics; what is noticed is a typed error or a finding.
        match open(&path, bench.store.cube(), &bench.clock).and_then(|store| store.check()) {
            Ok(findings) => num_noticed += usize::from(!findings.is_empty()),
            Err(StoreError::Damaged { .. } | StoreError::NotAStore { .. } | StoreError::OtherCube { .. }) => {
                num_noticed += 1
            }
            Err(error) => panic!("byte {place}: {error:?}"),
        }
        fs::remove_file(&path).expect("a file");
    }
    assert!(num_noticed > 10, "only {num_noticed} noticed");
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let path = std::path::Path::new("/sys/memory.sqlite");
    if !path.parent().is_some_and(std::path::Path::exists) {
        println!("skipped: this system has no folder that nobody can write");
        return;
    }
    let error = Store::open(path, CubeId::new(), Clock::system(), &[]).map(drop).expect_err("a read-only folder");
    assert!(matches!(error, StoreError::ReadOnly { .. } | StoreError::CannotOpen { .. }), "{error}");
}

#[test]
fn a_full_disk_closes_the_store_for_writing_and_loses_nothing() {
    let bench = Bench::new();
    let kept = bench.add("kept");
    // As if the disk had room for a few pages more.
    let limit = |tx: &super::super::WriteTransaction<'_>, sql: &str| -> Result<i64, StoreError> {
        Ok(tx.connection().query_row(sql, [], |row| row.get(0))?)
    };
    bench
        .store
        .write(|tx| {
            let num_pages = limit(tx, "PRAGMA page_count")?;
            limit(tx, &format!("PRAGMA max_page_count = {}", num_pages + 4))
        })
        .expect("a limit");
    let mut last = kept.id;
    let error = loop {
        let text = "a".repeat(3_000);
        match bench.store.write(|tx| tx.insert(NewItem::fact(text), BY)) {
            Ok(item) => last = item.id,
            Err(error) => break error,
        }
    };
    assert_eq!(variant(&error), "DiskFull");
    let error = bench.store.write(|tx| tx.insert(NewItem::fact("more"), BY)).expect_err("a closed store");
    assert!(matches!(&error, StoreError::ClosedForWriting { cause } if cause.contains("full")), "{error}");
    assert_eq!(variant(&bench.store.purge().expect_err("a closed store")), "ClosedForWriting");
    assert!(bench.store.closed_for_writing().is_some());
    assert!(bench.get(kept.id).is_some(), "reading goes on");
    let bench = bench.reopened();
    bench.assert_sound();
    assert!(bench.get(kept.id).is_some() && bench.get(last).is_some());
    bench.add("writing goes on");
}

#[test]
fn a_refused_statement_undoes_the_change_and_the_store_goes_on() {
    let bench = Bench::new();
    let item = bench.add("kept");
    let refused = bench.store.write(|tx| {
        tx.update(item.id, None, ItemPatch { text: Some("changed".into()), ..ItemPatch::default() }, BY)?;
        tx.connection().execute("INSERT INTO item_tags VALUES ('a', 999)", [])?;
        Ok(())
    });
    assert_eq!(variant(&refused.expect_err("no such row")), "Sql");
    let refused = bench.store.write(|tx| {
        tx.insert(NewItem::fact("gone"), BY)?;
        Err::<(), _>(StoreError::step(std::io::Error::other("the audit says no")))
    });
    assert_eq!(refused.expect_err("a step").to_string(), "the audit says no");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        bench.store.write(|tx| {
            tx.insert(NewItem::fact("gone"), BY).expect("an item");
            if tx.usage().num_items == 2 {
                panic!("a broken caller");
            }
            Ok(())
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(bench.get(item.id), Some(item));
    bench.add("the store goes on");
    bench.assert_sound();
}

#[test]
fn a_second_writer_is_told_that_the_store_is_in_use() {
    let bench = Bench::new();
    let other = Connection::open(bench.store.path()).expect("another program");
    other.execute_batch("BEGIN IMMEDIATE").expect("its lock");
    assert_eq!(variant(&bench.store.write(|tx| tx.insert(NewItem::fact("a"), BY)).expect_err("in use")), "Busy");
    other.execute_batch("ROLLBACK").expect("its end");
    bench.add("the store goes on");
}

#[test]
fn other_modules_write_their_rows_in_the_same_change() {
    let bench = Bench::new();
    let path = bench.folder.path().join("extended");
    let schema = [
        "CREATE TABLE IF NOT EXISTS grants (row INTEGER NOT NULL REFERENCES items (row) ON DELETE CASCADE) STRICT",
        "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (text)",
    ];
    let open = || Store::open(&path, bench.store.cube(), Clock::system(), &schema).expect("an extended store");
    let store = open();
    let insert = |text: &str| {
        store.write(|tx| {
            let item = tx.insert(NewItem::fact(text), BY)?;
            let row = tx.row_of(item.id)?.expect("it is there").get();
            tx.connection().execute("INSERT INTO grants VALUES (?)", [row])?;
            tx.connection().execute("INSERT INTO words (rowid, text) VALUES (?, ?)", rusqlite::params![row, text])?;
            // A table that is not there fails the change as a whole.
            if text == "coffee" {
                tx.connection().execute("INSERT INTO nothing VALUES (1)", []).map(drop)?
            }
            Ok(item.id)
        })
    };
    let tea = insert("tea").expect("a change");
    assert_eq!(variant(&insert("coffee").expect_err("no such table")), "Sql");
    let found = |store: &Store, sql: &str| {
        store.read(|reader| Ok(reader.connection().query_row(sql, [], |row| row.get::<_, i64>(0))?)).expect("a count")
    };
    assert_eq!(found(&store, "SELECT count(*) FROM words WHERE words MATCH 'tea OR coffee'"), 1);
    store.write(|tx| tx.erase(&[tea], vec![], BY)).expect("an erasure");
    store.purge().expect("a purge");
    drop(store);
    assert_eq!(found(&open(), "SELECT count(*) FROM grants"), 0);
}

#[test]
fn the_clock_may_go_backwards_and_moments_do_not() {
    let bench = Bench::new();
    let mut moments = Vec::new();
    for shift in [0, 0, -10_000, 5, i64::from(i32::MIN), 20_000] {
        bench.clock.store(START_MS + shift, Ordering::Relaxed);
        moments.push(bench.add("fact").recorded_at);
    }
    let bench = bench.reopened();
    bench.clock.store(0, Ordering::Relaxed);
    moments.push(bench.add("fact").recorded_at);
    assert!(moments.is_sorted_by(|earlier, later| earlier < later), "{moments:?}");
}

#[test]
fn readers_see_whole_changes_while_another_thread_writes() {
    let bench = Bench::new();
    let (first, second) = (bench.add("0"), bench.add("0"));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 1..=100 {
                let patch = || ItemPatch { text: Some(number.to_string()), ..ItemPatch::default() };
                let both = bench.store.write(|tx| {
                    tx.update(first.id, None, patch(), BY)?;
                    tx.update(second.id, None, patch(), BY)
                });
                both.expect("a change");
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let text = |reader: &super::super::Reader<'_>, id: ItemId| {
                    reader.get(id).map(|item| item.expect("an item").text)
                };
                let mut last = 0;
                while last < 100 {
                    let texts = bench.store.read(|reader| Ok((text(reader, first.id)?, text(reader, second.id)?)));
                    let (first, second) = texts.expect("a read");
                    assert_eq!(first, second);
                    let number: u32 = first.parse().expect("a number");
                    assert!(number >= last);
                    last = number;
                }
            });
        }
        writer.join().expect("the writer");
    });
    bench.assert_sound();
}

#[test]
fn a_copy_is_whole_and_differs_by_what_changed_since() {
    let bench = Bench::new();
    let (same, changed, gone) = (bench.add("same"), bench.add("changed"), bench.add("gone"));
    let path = bench.folder.path().join("copy");
    bench.store.snapshot_to(&path).expect("a copy");
    assert_eq!(variant(&bench.store.snapshot_to(&path).expect_err("it is there")), "SnapshotExists");
    let patch = ItemPatch { text: Some("it changed".into()), ..ItemPatch::default() };
    bench.store.write(|tx| tx.update(changed.id, None, patch, BY)).expect("a change");
    bench.store.write(|tx| tx.erase(&[gone.id], Vec::new(), BY)).expect("an erasure");
    let added = bench.add("added");
    let copy = open(&path, bench.store.cube(), &bench.clock).expect("the copy");
    assert_eq!(copy.check().expect("an examination"), []);
    let differences = diff(&copy, &bench.store).expect("a comparison");
    let of = |id: ItemId| differences.iter().find(|entry| entry.id == id).map(|entry| entry.difference);
    assert_eq!(of(same.id), None);
    assert_eq!(of(changed.id), Some(Difference::Changed { from_version: 1, to_version: 2 }));
    assert_eq!(of(gone.id), Some(Difference::Removed { version: 1 }));
    assert_eq!(of(added.id), Some(Difference::Added { version: 1 }));
    assert_eq!(differences.len(), 3);
    let names = fs::read_dir(bench.folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "nothing is left of the copying");
}
