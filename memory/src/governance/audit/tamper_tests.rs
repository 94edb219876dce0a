//! Tampering with the audit log in every way that a holder of the file has, at every position of small logs. Each must
//! be found; where the tamperer also rebuilds everything that needs no key, the signed heads must show it.

use rusqlite::{Connection, params};

use super::super::merkle::{NodeHash, completed_by};
use super::super::signing::AuditKey;
use super::tests::{event, key, log_of_size, moment};
use super::*;

const SIZE: i64 = 9;

fn report(conn: &Connection, cube: &CubeId, outside: &[TreeHead]) -> AuditReport {
    verify(conn, cube, outside, &[key().public()]).expect("verify")
}

/// Makes the tree, the index and the numbers fit the entries again, as a tamperer without the signing key can.
fn rebuild(conn: &Connection) {
    conn.execute_batch("DELETE FROM audit_nodes; DELETE FROM audit_objects").expect("clear");
    let entries = list(conn, &AuditFilter::default(), 1_000).expect("list");
    for (seq, entry) in (0_u64..).zip(&entries) {
        assert_eq!(entry.seq, seq, "the tamperer renumbers");
        let row = i64::try_from(seq).expect("small");
        let nonce: Option<[u8; 32]> = conn
            .query_row("SELECT (SELECT nonce FROM audit_nonces WHERE seq = ?1)", [row], |row| row.get(0))
            .expect("nonce");
        if let Some(nonce) = nonce {
            let commitment = StoredFields::from_entry(entry).commitment(seq, &nonce);
            conn.execute("UPDATE audit_entries SET commitment = ?2 WHERE seq = ?1", params![row, &commitment[..]])
                .expect("update");
        }
        for item in &entry.objects {
            conn.execute("INSERT OR IGNORE INTO audit_objects VALUES (?1, ?2)", params![&item.as_bytes()[..], row])
                .expect("insert");
        }
        let commitment: [u8; 32] = conn
            .query_row("SELECT commitment FROM audit_entries WHERE seq = ?1", [row], |row| row.get(0))
            .expect("commitment");
        let mut hash = NodeHash::leaf(&commitment);
        for (parent, left) in completed_by(seq) {
            hash = NodeHash::parent(&append::stored_node(conn, left).expect("node"), &hash);
            let place = i64::try_from(parent.index).expect("small");
            conn.execute("INSERT INTO audit_nodes VALUES (?1, ?2, ?3)", params![parent.level, place, &hash.0[..]])
                .expect("insert");
        }
    }
}

/// Tampers with fresh logs at every position and checks that it is found: as it is, and after the tamperer rebuilt.
fn assert_found_everywhere(what: &str, tamper: impl Fn(&Connection, i64), is_direct: impl Fn(&Finding, u64) -> bool) {
    for position in 0..SIZE {
        let (conn, cube, heads) = log_of_size(SIZE);
        assert!(report(&conn, &cube, &heads).is_intact(), "before");
        tamper(&conn, position);
        let found = report(&conn, &cube, &[]);
        let seq = u64::try_from(position).expect("small");
        assert!(found.findings.iter().any(|finding| is_direct(finding, seq)), "{what} at {position}: {found:?}");
        let is_contiguous: bool =
            conn.query_row("SELECT count(*) = max(seq) + 1 FROM audit_entries", [], |row| row.get(0)).expect("count");
        if !is_contiguous {
            continue;
        }
        rebuild(&conn);
        conn.execute("DELETE FROM audit_heads", []).expect("delete");
        let found = report(&conn, &cube, &heads);
        assert!(!found.is_intact(), "{what} at {position} after rebuilding");
        assert!(found.witnessed_size <= seq, "{what} at {position}: only heads before it still fit: {found:?}");
    }
}

#[test]
fn edits_of_every_field_are_found() {
    let edits = [
        "at = at + 1",
        "actor = 'acme/user:eve'",
        "actor = NULL",
        "action = 'item.read'",
        "objects = zeroblob(32)",
        "objects = NULL",
        "cube = zeroblob(16)",
        "outcome = 'denied'",
        "reason = 'another'",
        "reason = NULL",
        "details = '{}'",
        "details = NULL",
    ];
    for edit in edits {
        let sql = format!("UPDATE audit_entries SET {edit} WHERE seq = ?1");
        assert_found_everywhere(
            edit,
            |conn, position| assert_eq!(conn.execute(&sql, [position]).expect("edit"), 1),
            |finding, seq| *finding == Finding::EntryChanged { seq },
        );
    }
}

#[test]
fn forged_nonces_and_commitments_are_found() {
    assert_found_everywhere(
        "a forged nonce",
        |conn, position| {
            let sql = "UPDATE audit_nonces SET nonce = randomblob(32) WHERE seq = ?1";
            assert_eq!(conn.execute(sql, [position]).expect("forge"), 1);
        },
        |finding, seq| *finding == Finding::EntryChanged { seq },
    );
    for position in 0..SIZE {
        let (conn, cube, heads) = log_of_size(SIZE);
        let sql = "UPDATE audit_entries SET commitment = randomblob(32) WHERE seq = ?1";
        assert_eq!(conn.execute(sql, [position]).expect("forge"), 1);
        let seq = u64::try_from(position).expect("small");
        let found = report(&conn, &cube, &heads);
        assert!(found.findings.contains(&Finding::EntryChanged { seq }), "{position}: {found:?}");
        assert!(found.findings.contains(&Finding::HeadMismatch { size: seq + 1 }), "{position}: {found:?}");
    }
}

#[test]
fn a_nonce_that_is_destroyed_without_an_erasure_is_found() {
    for position in 0..SIZE {
        let (conn, cube, heads) = log_of_size(SIZE);
        conn.execute("DELETE FROM audit_nonces WHERE seq = ?1", [position]).expect("delete");
        conn.execute(
            "UPDATE audit_entries SET actor = NULL, objects = NULL, reason = NULL, details = NULL WHERE seq = ?1",
            [position],
        )
        .expect("blank");
        rebuild(&conn);
        let seq = u64::try_from(position).expect("small");
        let found = report(&conn, &cube, &heads);
        assert_eq!(found.findings, [Finding::NonceMissing { seq }], "{position}");
    }
}

#[test]
fn deletions_are_found_and_a_cut_tail_by_the_heads_outside() {
    for position in 0..SIZE {
        let (conn, cube, heads) = log_of_size(SIZE);
        conn.execute("DELETE FROM audit_entries WHERE seq = ?1", [position]).expect("delete");
        conn.execute("DELETE FROM audit_nonces WHERE seq = ?1", [position]).expect("delete");
        let found = report(&conn, &cube, &heads);
        assert!(!found.is_intact(), "{position}");
        if position < SIZE - 1 {
            let (expected, next) =
                (u64::try_from(position).expect("small"), u64::try_from(position + 1).expect("small"));
            assert!(found.findings.contains(&Finding::Missing { expected, found: next }), "{position}: {found:?}");
        }
        // The tamperer closes the gap, rebuilds the tree and removes the heads in the cube.
        conn.execute("UPDATE audit_entries SET seq = -seq WHERE seq > ?1", [position]).expect("renumber");
        conn.execute("UPDATE audit_entries SET seq = -seq - 1 WHERE seq < 0", []).expect("renumber");
        conn.execute("UPDATE audit_nonces SET seq = -seq WHERE seq > ?1", [position]).expect("renumber");
        conn.execute("UPDATE audit_nonces SET seq = -seq - 1 WHERE seq < 0", []).expect("renumber");
        conn.execute("DELETE FROM audit_heads", []).expect("delete");
        rebuild(&conn);
        assert!(report(&conn, &cube, &[]).is_intact(), "without a head outside nothing shows it");
        let found = report(&conn, &cube, &heads);
        let truncated = Finding::Truncated { signed: 9, found: 8 };
        assert!(found.findings.contains(&truncated), "{position}: {found:?}");
    }
}

#[test]
fn a_tail_of_any_length_cannot_be_cut_off_unseen_even_when_the_log_grows_again() {
    for kept in 0..SIZE {
        let (conn, cube, heads) = log_of_size(SIZE);
        conn.execute("DELETE FROM audit_entries WHERE seq >= ?1", [kept]).expect("delete");
        conn.execute("DELETE FROM audit_nonces WHERE seq >= ?1", [kept]).expect("delete");
        conn.execute("DELETE FROM audit_heads WHERE size > ?1", [kept]).expect("delete");
        rebuild(&conn);
        let found = report(&conn, &cube, &heads);
        assert_eq!(found.num_findings, u64::try_from(SIZE - kept).expect("small"), "one for each head that is ahead");
        assert_eq!(found.witnessed_size, u64::try_from(kept).expect("small"));
        for number in 0..20 {
            append(&conn, &event(cube, number)).expect("append");
        }
        let found = report(&conn, &cube, &heads);
        assert!(found.findings.iter().all(|finding| matches!(finding, Finding::HeadMismatch { .. })), "{found:?}");
        assert!(!found.is_intact());
    }
}

#[test]
fn every_exchange_of_two_entries_is_found() {
    for first in 0..SIZE {
        for second in first + 1..SIZE {
            let (conn, cube, heads) = log_of_size(SIZE);
            for table in ["audit_entries", "audit_nonces"] {
                for (from, to) in [(first, -1), (second, first), (-1, second)] {
                    let sql = format!("UPDATE {table} SET seq = ?2 WHERE seq = ?1");
                    conn.execute(&sql, [from, to]).expect("exchange");
                }
            }
            let found = report(&conn, &cube, &[]);
            for seq in [first, second] {
                let seq = u64::try_from(seq).expect("small");
                assert!(found.findings.contains(&Finding::EntryChanged { seq }), "{first} and {second}: {found:?}");
            }
            rebuild(&conn);
            conn.execute("DELETE FROM audit_heads", []).expect("delete");
            let found = report(&conn, &cube, &heads);
            assert!(!found.is_intact(), "{first} and {second} after rebuilding");
        }
    }
}

#[test]
fn changed_missing_and_added_nodes_are_found() {
    let (conn, cube, heads) = log_of_size(SIZE);
    let places: Vec<(u32, i64)> = conn
        .prepare("SELECT level, place FROM audit_nodes")
        .and_then(|mut rows| rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .expect("nodes");
    assert_eq!(places.len(), 7, "9 leaves have 4 + 2 + 1 complete inner subtrees");
    drop(conn);
    for (level, place) in places {
        let node = Finding::NodeChanged { level, index: u64::try_from(place).expect("small") };
        for sql in [
            "UPDATE audit_nodes SET hash = randomblob(32) WHERE level = ?1 AND place = ?2",
            "DELETE FROM audit_nodes WHERE level = ?1 AND place = ?2",
        ] {
            let (conn, cube, heads) = log_of_size(SIZE);
            conn.execute(sql, params![level, place]).expect("tamper");
            let found = report(&conn, &cube, &heads);
            assert!(found.findings.contains(&node), "{sql}: {found:?}");
        }
    }
    let (conn, _, _) = log_of_size(SIZE);
    conn.execute("INSERT INTO audit_nodes VALUES (4, 0, zeroblob(32))", []).expect("insert");
    let found = report(&conn, &cube, &[]);
    assert!(found.findings.contains(&Finding::NodeCount { expected: 7, found: 8 }), "{found:?}");
    drop(heads);
}

#[test]
fn an_append_to_a_log_without_its_nodes_fails() {
    let (conn, cube, _) = log_of_size(7);
    conn.execute("DELETE FROM audit_nodes WHERE level = 1 AND place = 2", []).expect("delete");
    let error = append(&conn, &event(cube, 7)).expect_err("node 2 of level 1 is needed");
    assert!(matches!(error, GovernanceError::AuditDamaged { level: 1, index: 2 }), "{error}");
}

#[test]
fn the_index_from_memories_to_entries_is_checked() {
    let (conn, cube, heads) = log_of_size(SIZE);
    conn.execute("DELETE FROM audit_objects WHERE seq = 4", []).expect("delete");
    assert!(report(&conn, &cube, &heads).findings.contains(&Finding::IndexChanged));
    let (conn, cube, heads) = log_of_size(SIZE);
    conn.execute("INSERT INTO audit_objects VALUES (zeroblob(16), 4)", []).expect("insert");
    assert!(report(&conn, &cube, &heads).findings.contains(&Finding::IndexChanged));
    let (conn, cube, heads) = log_of_size(SIZE);
    conn.execute("INSERT INTO audit_nonces VALUES (77, zeroblob(32))", []).expect("insert");
    assert_eq!(report(&conn, &cube, &heads).findings, [Finding::NoncesWithoutEntry { count: 1 }]);
}

#[test]
fn replaced_and_forged_heads_are_found() {
    let (conn, cube, heads) = log_of_size(SIZE);
    let public = key().public();
    let tamperer = AuditKey::from_seed(&[66; 32]);
    // The tamperer rewrites an entry, rebuilds, and signs heads with a key of their own.
    conn.execute("UPDATE audit_entries SET reason = 'another' WHERE seq = 3", []).expect("edit");
    rebuild(&conn);
    conn.execute("DELETE FROM audit_heads", []).expect("delete");
    sign_head(&conn, &cube, &tamperer, moment(9)).expect("sign");
    let found = report(&conn, &cube, &[]);
    assert_eq!(found.findings, [Finding::HeadByUnknownKey { size: 9, key: tamperer.public() }]);
    // Or claims that the signature is the server's.
    conn.execute("UPDATE audit_heads SET public_key = ?1", [&public.as_bytes()[..]]).expect("claim");
    assert_eq!(report(&conn, &cube, &[]).findings, [Finding::HeadForged { size: 9 }]);
    assert_eq!(report(&conn, &cube, &heads).witnessed_size, 3, "heads up to the edit still fit");

    let (conn, cube, heads) = log_of_size(SIZE);
    for position in 0..heads.len() {
        let mut outside = heads.clone();
        outside[position].root = NodeHash::leaf(b"another");
        let size = outside[position].size;
        assert_eq!(report(&conn, &cube, &outside).findings, [Finding::HeadForged { size }]);
        let mut outside = heads.clone();
        outside[position].size += 1;
        assert_eq!(report(&conn, &cube, &outside).findings, [Finding::HeadForged { size: size + 1 }]);
        let mut outside = heads.clone();
        outside[position].at = moment(1);
        assert_eq!(report(&conn, &cube, &outside).findings, [Finding::HeadForged { size }]);
    }
    let other = CubeId::new();
    let report = verify(&conn, &other, &heads[..1], &[public]).expect("verify");
    assert_eq!(report.num_findings, 10, "the heads are of another cube");
    assert!(matches!(report.findings[0], Finding::HeadOfOtherCube { .. }));
}

#[test]
fn a_log_that_ends_at_an_absurd_number_is_found_quickly() {
    let (conn, cube, heads) = log_of_size(SIZE);
    conn.execute("UPDATE audit_entries SET seq = 9223372036854775806 WHERE seq = 8", []).expect("renumber");
    let found = report(&conn, &cube, &heads);
    assert!(found.findings.contains(&Finding::Missing { expected: 8, found: 9_223_372_036_854_775_806 }), "{found:?}");
    conn.execute("UPDATE audit_entries SET seq = 9223372036854775807 WHERE seq > 8", []).expect("renumber");
    append(&conn, &event(cube, 1)).expect_err("no number is left");
    conn.execute("UPDATE audit_entries SET seq = -5 WHERE seq > 8", []).expect("renumber");
    assert!(!report(&conn, &cube, &heads).is_intact());
}
