//! Verifying the audit log: everything is computed anew from the entries and compared with what is stored and signed.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::super::error::GovernanceError;
use super::super::merkle::{Frontier, NodeHash, NodePlace};
use super::super::signing::PublicKey;
use super::heads::{TreeHead, stored_heads};
use super::rows::{self, place_to_sql};
use super::{ERASE_ACTION, StoredFields};
use crate::{CubeId, ItemId};

/// Most findings that a report lists; all are counted.
pub const NUM_FINDINGS_MAX: usize = 100;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Finding {
    /// Entries are missing before this one.
    Missing {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// An entry does not fit its commitment: the entry, its place or its nonce was changed.
    EntryChanged {
        /// The entry.
        seq: u64,
    },
    /// An entry's nonce is gone, but no erasure names the entry.
    NonceMissing {
        /// The entry.
        seq: u64,
    },
    /// There are nonces without an entry.
    NoncesWithoutEntry {
        /// How many.
        count: u64,
    },
    /// A stored node of the tree is not what follows from the entries.
    NodeChanged {
        /// Level of the node.
        level: u32,
        /// Its place in the level.
        index: u64,
    },
    /// The number of stored nodes is not that of a tree of this size.
    NodeCount {
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The index from memories to entries does not fit the entries.
    IndexChanged,
    /// A head was signed over more entries than there are: the end of the log was cut off.
    Truncated {
        /// Entries that were signed.
        signed: u64,
        /// Entries that are there.
        found: u64,
    },
    /// The entries do not lead to the root that was signed: some of them were changed, reordered or replaced.
    HeadMismatch {
        /// Entries under the head.
        size: u64,
    },
    /// A head's signature is not that of the key it names.
    HeadForged {
        /// Entries under the head.
        size: u64,
    },
    /// A head was signed by a key that is not trusted.
    HeadByUnknownKey {
        /// Entries under the head.
        size: u64,
        /// The key.
        key: PublicKey,
    },
    /// A head belongs to another cube.
    HeadOfOtherCube {
        /// Entries under the head.
        size: u64,
        /// That cube.
        cube: CubeId,
    },
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Of which cube.
    pub cube: CubeId,
    /// Entries in the log.
    pub size: u64,
    /// Root over them; without meaning where entries are missing.
    pub root: NodeHash,
    /// Entries whose content was erased, each named by an erasure.
    pub num_erased: u64,
    /// Heads that were checked and fit.
    pub num_heads: u64,
    /// Entries under the newest head that fits: what comes after is not signed yet.
    pub signed_size: u64,
    /// Entries under the newest head from outside the cube that fits: only these cannot be cut off unseen.
    pub witnessed_size: u64,
    /// How many findings there are.
    pub num_findings: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
}

impl AuditReport {
    /// Whether nothing was found.
    pub fn is_intact(&self) -> bool {
        self.num_findings == 0
    }

    fn found(&mut self, finding: Finding) {
        self.num_findings += 1;
        if self.findings.len() < NUM_FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Verifies the log of a cube against the heads kept outside of it, and its own. `keys` are the public keys that are
/// trusted: this server's, and those of servers the cube came from.
///
/// # Errors
/// The database fails. What was tampered with is no error but a finding.
pub fn verify(
    conn: &Connection,
    cube: &CubeId,
    outside: &[TreeHead],
    keys: &[PublicKey],
) -> Result<AuditReport, GovernanceError> {
    let mut check = Check {
        conn,
        report: AuditReport {
            cube: *cube,
            size: 0,
            root: NodeHash::empty(),
            num_erased: 0,
            num_heads: 0,
            signed_size: 0,
            witnessed_size: 0,
            num_findings: 0,
            findings: Vec::new(),
        },
        frontier: Some(Frontier::default()),
        heads: HashMap::new(),
        without_nonce: BTreeSet::new(),
        num_objects: 0,
    };
    for (head, is_outside) in
        stored_heads(conn)?.iter().map(|head| (head, false)).chain(outside.iter().map(|head| (head, true)))
    {
        check.take_head(head, is_outside, keys);
    }
    check.entries()?;
    check.remaining_heads();
    check.counts()?;
    let Check { mut report, without_nonce, frontier, .. } = check;
    for seq in without_nonce {
        report.found(Finding::NonceMissing { seq });
    }
    report.root = frontier.map_or(report.root, |frontier| frontier.root());
    Ok(report)
}

/// A head whose signature is good, and whether it was kept outside.
type GoodHead = (NodeHash, bool);

struct Check<'conn> {
    conn: &'conn Connection,
    report: AuditReport,
    /// `None` once entries are missing: from there on no root can be computed.
    frontier: Option<Frontier>,
    /// By size.
    heads: HashMap<u64, Vec<GoodHead>>,
    without_nonce: BTreeSet<u64>,
    num_objects: u64,
}

impl Check<'_> {
    fn take_head(&mut self, head: &TreeHead, is_outside: bool, keys: &[PublicKey]) {
        let size = head.size;
        let finding = if head.cube != self.report.cube {
            Finding::HeadOfOtherCube { size, cube: head.cube }
        } else if !keys.contains(&head.public_key) {
            Finding::HeadByUnknownKey { size, key: head.public_key }
        } else if head.verify().is_err() {
            Finding::HeadForged { size }
        } else {
            self.heads.entry(size).or_default().push((head.root, is_outside));
            return;
        };
        self.report.found(finding);
    }

    fn entries(&mut self) -> Result<(), GovernanceError> {
        let failed = || GovernanceError::database("read the audit log");
        let sql = format!(
            "SELECT {}, nonce FROM audit_entries LEFT JOIN audit_nonces USING (seq) ORDER BY seq",
            rows::COLUMNS
        );
        let mut statement = self.conn.prepare(&sql).map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        let mut expected = 0;
        self.compare_heads(0);
        while let Some(row) = rows.next().map_err(failed())? {
            let found = row.get::<_, i64>(0).map_err(failed())?;
            let Ok(seq) = u64::try_from(found) else {
                self.report.found(Finding::EntryChanged { seq: found.unsigned_abs() });
                self.frontier = None;
                continue;
            };
            if seq != expected {
                self.report.found(Finding::Missing { expected, found: seq });
                self.frontier = None;
            }
            expected = seq.saturating_add(1);
            self.report.size += 1;
            self.entry(seq, row)?;
            self.compare_heads(self.report.size);
        }
        Ok(())
    }

    fn entry(&mut self, seq: u64, row: &Row<'_>) -> Result<(), GovernanceError> {
        let failed = || GovernanceError::database("read the audit log");
        let nonce: Option<[u8; 32]> = row.get(10).map_err(failed())?;
        let commitment: [u8; 32] = row.get(9).map_err(failed())?;
        self.grow(NodeHash::leaf(&commitment))?;
        let fields = match rows::from_row(row) {
            Ok((_, fields, _)) => fields,
            Err(GovernanceError::CorruptRow { .. }) => {
                self.report.found(Finding::EntryChanged { seq });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let fits = match nonce {
            Some(nonce) => fields.commitment(seq, &nonce) == commitment,
            None => fields.is_erased(),
        };
        if !fits {
            self.report.found(Finding::EntryChanged { seq });
        }
        if nonce.is_none() {
            self.without_nonce.insert(seq);
        } else if fits && fields.action == ERASE_ACTION {
            for erased in erased_seqs(&fields) {
                // An erasure names earlier entries only.
                if erased < seq && self.without_nonce.remove(&erased) {
                    self.report.num_erased += 1;
                }
            }
        }
        self.index(seq, &fields)
    }

    fn index(&mut self, seq: u64, fields: &StoredFields) -> Result<(), GovernanceError> {
        let Ok(objects) = rows::parse_objects(fields.objects.as_deref()) else { return Ok(()) };
        let objects: BTreeSet<ItemId> = objects.into_iter().collect();
        self.num_objects += objects.len() as u64;
        for item in &objects {
            let is_there = self
                .conn
                .prepare_cached("SELECT 1 FROM audit_objects WHERE item = ?1 AND seq = ?2")
                .and_then(|mut statement| statement.exists(params![&item.as_bytes()[..], place_to_sql(seq)]))
                .map_err(GovernanceError::database("read the audit log's index"))?;
            if !is_there {
                self.report.found(Finding::IndexChanged);
            }
        }
        Ok(())
    }

    fn grow(&mut self, leaf: NodeHash) -> Result<(), GovernanceError> {
        let Some(frontier) = &mut self.frontier else { return Ok(()) };
        let mut completed = Vec::new();
        frontier.push(leaf, |place, hash| completed.push((place, *hash)));
        for (NodePlace { level, index }, hash) in completed {
            let stored: Option<[u8; 32]> = self
                .conn
                .prepare_cached("SELECT hash FROM audit_nodes WHERE level = ?1 AND place = ?2")
                .and_then(|mut statement| {
                    statement.query_row(params![level, place_to_sql(index)], |row| row.get(0)).optional()
                })
                .map_err(GovernanceError::database("read the audit log's tree"))?;
            if stored != Some(hash.0) {
                self.report.found(Finding::NodeChanged { level, index });
            }
        }
        Ok(())
    }

    fn compare_heads(&mut self, size: u64) {
        let Some(frontier) = &self.frontier else { return };
        let Some(heads) = self.heads.remove(&size) else { return };
        let root = frontier.root();
        for (signed, is_outside) in heads {
            if signed != root {
                self.report.found(Finding::HeadMismatch { size });
                continue;
            }
            self.report.num_heads += 1;
            self.report.signed_size = self.report.signed_size.max(size);
            if is_outside {
                self.report.witnessed_size = self.report.witnessed_size.max(size);
            }
        }
    }

    fn remaining_heads(&mut self) {
        let mut sizes: Vec<u64> = self.heads.drain().map(|(size, _)| size).collect();
        sizes.sort_unstable();
        for signed in sizes {
            let found = self.report.size;
            self.report.found(if signed > found {
                Finding::Truncated { signed, found }
            } else {
                Finding::HeadMismatch { size: signed }
            });
        }
    }

    fn counts(&mut self) -> Result<(), GovernanceError> {
        let count = |sql: &str| -> Result<u64, GovernanceError> {
            let count: i64 = self
                .conn
                .query_row(sql, [], |row| row.get(0))
                .map_err(GovernanceError::database("count the rows of the audit log"))?;
            Ok(count.unsigned_abs())
        };
        let num_nodes = count("SELECT count(*) FROM audit_nodes")?;
        let num_objects = count("SELECT count(*) FROM audit_objects")?;
        let num_orphans = count("SELECT count(*) FROM audit_nonces WHERE seq NOT IN (SELECT seq FROM audit_entries)")?;
        // A tree over n leaves has n minus popcount(n) complete inner subtrees.
        let size = self.report.size;
        let expected = size - u64::from(size.count_ones());
        if self.frontier.is_some() && num_nodes != expected {
            self.report.found(Finding::NodeCount { expected, found: num_nodes });
        }
        if num_objects != self.num_objects {
            self.report.found(Finding::IndexChanged);
        }
        if num_orphans > 0 {
            self.report.found(Finding::NoncesWithoutEntry { count: num_orphans });
        }
        Ok(())
    }
}

fn erased_seqs(fields: &StoredFields) -> Vec<u64> {
    let details = fields.details.as_deref().and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
    let seqs = details.as_ref().and_then(|details| details.get("seqs")).and_then(serde_json::Value::as_array);
    seqs.into_iter().flatten().filter_map(serde_json::Value::as_u64).collect()
}
