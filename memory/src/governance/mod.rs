//! Governance: who may do what. Today: API keys, each bound to a tenant and a role.

mod key_file;
pub mod keys;

pub use keys::{Access, ApiKey, Identity, KeyRecord, KeyStore, NewKey, Permission, Role, TenantName};
