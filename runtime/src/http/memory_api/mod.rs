//! The HTTP API of plaintext memory: cubes, memories, grants, audit, import and export, embeddings.
//!
//! A request passes the files in this order: `endpoints` (the table of routes) → `call` (body and query become fields,
//! who acts, which cube) → a handler (`cubes`, `grants`, `add`, `fine`, `documents`, `items`, `merge`, `search`, `graph`,
//! `erase`, `subjects`, `audit`, `export`, `import`, `embeddings`) over `values` → the boundary, `memory::memories` →
//! `render`, or `refusal` for what went wrong. A handler reads all its fields before it asks for anything.

mod add;
mod audit;
mod base64;
mod call;
mod cubes;
mod documents;
mod embeddings;
mod endpoints;
mod erase;
mod export;
mod fine;
mod grants;
mod graph;
mod import;
mod item_fields;
mod items;
mod merge;
mod place;
mod query;
mod refusal;
mod render;
mod search;
mod search_fields;
mod subjects;
#[cfg(test)]
mod tests;
mod values;

#[cfg(test)]
pub use call::Input;
pub use endpoints::MemoryEndpoint;
pub use refusal::{RETRY_AFTER_BUSY_S, Refusal};
