//! The receipt of an erasure: what was erased in which place, what is still pending, signed. It holds ids and counts,
//! never text, so it can be kept after what it tells of is gone.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::TenantName;
use super::canonical::Canonical;
use super::error::GovernanceError;
use super::signing::{AuditKey, PublicKey, SignatureBytes};
use crate::{CubeId, ItemId, Timestamp};

/// Most memories that one receipt names; a larger erasure has several receipts.
pub const NUM_ITEMS_MAX: usize = 10_000;

macro_rules! places {
    ($($(#[$doc:meta])* $place:ident = $name:literal,)*) => {
        /// Where something derived from a memory can be.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ErasurePlace {
            $($(#[$doc])* $place,)*
        }

        impl ErasurePlace {
            /// All places.
            pub const ALL: &[Self] = &[$(Self::$place,)*];

            /// The name in receipts.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$place => $name,)*
                }
            }
        }
    };
}

places! {
    /// The memories themselves.
    Items = "items",
    /// Their versions.
    Versions = "versions",
    /// Edges of the graph from or to them.
    Edges = "edges",
    /// Entities that only they named.
    Entities = "entities",
    /// Summaries and merges that were made from them.
    Derived = "derived",
    /// Embeddings.
    Vectors = "vectors",
    /// Rows and terms of the full-text index.
    IndexTerms = "index_terms",
    /// Messages that waited to be delivered or ingested.
    Outbox = "outbox",
    /// Grants on them.
    Grants = "grants",
    /// Audit entries whose content was destroyed.
    AuditEntries = "audit_entries",
    /// KV blocks on the device.
    KvDevice = "kv_device",
    /// KV blocks in host memory.
    KvHost = "kv_host",
    /// KV blocks on disk.
    KvDisk = "kv_disk",
    /// KV blocks in a remote store.
    KvRemote = "kv_remote",
    /// Cached prefixes that contained them.
    CachedPrefixes = "cached_prefixes",
    /// Adapters that were trained on them.
    Adapters = "adapters",
    /// Chat turns that told them.
    ChatTurns = "chat_turns",
    /// Snapshots of the cube.
    Snapshots = "snapshots",
    /// Rows in external stores.
    ExternalRows = "external_rows",
}

impl fmt::Display for ErasurePlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What became of one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceCount {
    /// Destroyed.
    pub erased: u64,
    /// Made anew without the erased content.
    pub rebuilt: u64,
    /// Still held: in use, or out of reach for now.
    pub pending: u64,
}

/// Whether the erasure is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum ErasureStatus {
    /// Something is still held somewhere, or may still lie in a log file.
    Pending,
    /// Nothing is left, and the write-ahead log was truncated.
    Final {
        /// When.
        at: Timestamp,
    },
}

/// What an erasure did so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureReceipt {
    /// Whose memories.
    pub tenant: TenantName,
    /// In which cube.
    pub cube: CubeId,
    /// Which.
    pub items: Vec<ItemId>,
    /// Number of the audit entry that tells who asked for it and why.
    pub audit_seq: u64,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// What became of each place that was looked at.
    pub places: BTreeMap<ErasurePlace, PlaceCount>,
    /// Whether it is through.
    pub status: ErasureStatus,
}

/// A receipt with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReceipt {
    /// The receipt.
    pub receipt: ErasureReceipt,
    /// By which key it was signed.
    pub public_key: PublicKey,
    /// The signature.
    pub signature: SignatureBytes,
}

impl ErasureReceipt {
    /// A receipt of an erasure that begins.
    ///
    /// # Errors
    /// There are too many memories for one receipt.
    pub fn new(
        tenant: TenantName,
        cube: CubeId,
        items: Vec<ItemId>,
        audit_seq: u64,
        requested_at: Timestamp,
    ) -> Result<Self, GovernanceError> {
        if items.len() > NUM_ITEMS_MAX {
            let field = "the list of memories of an erasure receipt";
            return Err(GovernanceError::TooLarge { field, actual: items.len(), limit: NUM_ITEMS_MAX });
        }
        let (places, status) = (BTreeMap::new(), ErasureStatus::Pending);
        Ok(Self { tenant, cube, items, audit_seq, requested_at, places, status })
    }

    /// Records what became of a place. What is told twice adds up; `pending` is what is still held now.
    pub fn record(&mut self, place: ErasurePlace, count: PlaceCount) {
        let entry = self.places.entry(place).or_default();
        entry.erased = entry.erased.saturating_add(count.erased);
        entry.rebuilt = entry.rebuilt.saturating_add(count.rebuilt);
        entry.pending = count.pending;
    }

    /// What is still held, over all places.
    pub fn num_pending(&self) -> u64 {
        self.places.values().fold(0, |sum, count| sum.saturating_add(count.pending))
    }

    /// Declares the erasure final: nothing is held, and the write-ahead log was truncated at this moment.
    ///
    /// # Errors
    /// Something is still pending, or the log was truncated before the erasure began; the receipt is left as it was.
    pub fn finish(&mut self, log_truncated_at: Timestamp) -> Result<(), GovernanceError> {
        if self.num_pending() > 0 {
            return Err(GovernanceError::ErasureNotFinal { reason: "something is still pending" });
        }
        if log_truncated_at < self.requested_at {
            let reason = "the write-ahead log was not truncated since";
            return Err(GovernanceError::ErasureNotFinal { reason });
        }
        self.status = ErasureStatus::Final { at: log_truncated_at };
        Ok(())
    }

    /// Signs the receipt as it is.
    pub fn sign(self, key: &AuditKey) -> SignedReceipt {
        let signature = key.sign(&self.message());
        SignedReceipt { receipt: self, public_key: key.public(), signature }
    }

    fn message(&self) -> Vec<u8> {
        let mut message = Canonical::new("memos erasure receipt v1")
            .text(self.tenant.as_str())
            .bytes(self.cube.as_bytes())
            .number(self.audit_seq)
            .moment(self.requested_at)
            .number(self.items.len() as u64);
        for item in &self.items {
            message = message.bytes(item.as_bytes());
        }
        message = message.number(self.places.len() as u64);
        for (place, count) in &self.places {
            message = message.text(place.as_str()).number(count.erased).number(count.rebuilt).number(count.pending);
        }
        match self.status {
            ErasureStatus::Pending => message.text("pending"),
            ErasureStatus::Final { at } => message.text("final").moment(at),
        }
        .into_bytes()
    }
}

impl SignedReceipt {
    /// Checks the signature.
    ///
    /// # Errors
    /// The receipt is not what this key signed.
    pub fn verify(&self, key: &PublicKey) -> Result<(), GovernanceError> {
        let what = "an erasure receipt";
        if self.public_key != *key {
            return Err(GovernanceError::SignatureRejected { what });
        }
        key.verify(&self.receipt.message(), &self.signature, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(unix_ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(unix_ms).expect("a moment")
    }

    fn receipt() -> ErasureReceipt {
        let tenant = "acme".parse().expect("a tenant");
        let items = vec![ItemId::new(), ItemId::new()];
        ErasureReceipt::new(tenant, CubeId::new(), items, 7, moment(100)).expect("few items")
    }

    #[test]
    fn a_receipt_is_final_only_when_nothing_is_held_and_the_log_is_truncated() {
        let mut receipt = receipt();
        receipt.record(ErasurePlace::Items, PlaceCount { erased: 2, ..PlaceCount::default() });
        receipt.record(ErasurePlace::KvDisk, PlaceCount { erased: 1, rebuilt: 0, pending: 3 });
        assert!(receipt.finish(moment(200)).is_err(), "three blocks are pending");
        receipt.record(ErasurePlace::KvDisk, PlaceCount { erased: 3, rebuilt: 0, pending: 0 });
        assert_eq!(receipt.places[&ErasurePlace::KvDisk].erased, 4);
        assert!(receipt.finish(moment(99)).is_err(), "truncated before");
        assert_eq!(receipt.status, ErasureStatus::Pending);
        receipt.finish(moment(200)).expect("nothing is pending");
        assert_eq!(receipt.status, ErasureStatus::Final { at: moment(200) });
    }

    #[test]
    fn every_change_of_a_signed_receipt_is_noticed() {
        let key = AuditKey::from_seed(&[3; 32]);
        let mut receipt = receipt();
        receipt.record(ErasurePlace::Vectors, PlaceCount { erased: 2, rebuilt: 1, pending: 0 });
        let signed = receipt.sign(&key);
        signed.verify(&key.public()).expect("as it was signed");
        assert!(signed.verify(&AuditKey::from_seed(&[4; 32]).public()).is_err());
        let json = serde_json::to_string(&signed).expect("JSON");
        let read: SignedReceipt = serde_json::from_str(&json).expect("its own JSON");
        read.verify(&key.public()).expect("nothing was lost on the way");
        let changes: [fn(&mut ErasureReceipt); 8] = [
            |receipt| receipt.tenant = "beta".parse().expect("a tenant"),
            |receipt| receipt.cube = CubeId::new(),
            |receipt| receipt.items.truncate(1),
            |receipt| receipt.items.swap(0, 1),
            |receipt| receipt.audit_seq += 1,
            |receipt| receipt.requested_at = receipt.requested_at.next(),
            |receipt| receipt.record(ErasurePlace::Vectors, PlaceCount { erased: 1, ..PlaceCount::default() }),
            |receipt| receipt.status = ErasureStatus::Final { at: Timestamp::from_unix_ms(1).expect("a moment") },
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut forged = signed.clone();
            change(&mut forged.receipt);
            assert!(forged.verify(&key.public()).is_err(), "change {index}");
        }
    }

    #[test]
    fn places_have_the_same_name_everywhere() {
        for &place in ErasurePlace::ALL {
            assert_eq!(serde_json::to_string(&place).expect("JSON"), format!("\"{place}\""));
        }
    }

    #[test]
    fn a_receipt_has_a_limit() {
        let items = vec![ItemId::new(); NUM_ITEMS_MAX + 1];
        let tenant = "acme".parse().expect("a tenant");
        assert!(ErasureReceipt::new(tenant, CubeId::new(), items, 0, moment(0)).is_err());
    }
}
