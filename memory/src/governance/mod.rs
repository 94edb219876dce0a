//! Governance: who may do what, how it is recorded, and what must be limited, redacted, kept or erased.
//!
//! ```text
//! API key ─ keys ─► Identity ─ actor ─► Actor ─┐
//!                                              ├─ policy ─► Allowed ─ access ─► the rows that a query may see
//!                cube's database ─ grants ─► GrantSet ─┘        │
//!                                                               └─ audit ─► entry in the same transaction
//! ```

pub mod access;
pub mod actor;
pub mod audit;
mod canonical;
mod error;
mod grant_erasure;
mod grant_rows;
pub mod grants;
mod key_file;
pub mod keys;
pub mod merkle;
pub mod policy;
pub mod policy_text;
pub mod quota;
pub mod receipt;
pub mod receipt_rows;
pub mod redaction;
pub mod retention;
mod rights;
mod signing;

#[cfg(test)]
mod isolation_tests;

pub use access::{CubeRef, ItemAccess};
pub use actor::{Actor, Subject};
pub use error::GovernanceError;
pub use grants::GrantSet;
pub use keys::{Access, ApiKey, Identity, KeyRecord, KeyStore, NewKey, Permission, Role, TenantName};
pub use policy::{Action, Allowed, Decision, Denied, PolicyEngine};
pub use rights::{Right, RightSet};
pub use signing::{AuditKey, PublicKey, SEED_LEN, SignatureBytes};
