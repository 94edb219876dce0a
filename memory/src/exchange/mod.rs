//! Memories in and out of files: our own JSONL with everything, and what mem0 and MemOS write.
//!
//! Reading is lenient record by record: what is broken is reported with its place and the rest is read, unless the
//! caller asks for strictness. Embeddings are dropped, for they belong to an embedder that may not be here.

mod error;
mod fields;
mod json_lines;
mod mem0;
mod memos;

pub use error::ExchangeError;
pub use fields::{ImportLimits, Imported, Place, Problem, Strictness};
pub use json_lines::{ExportRecord, JsonLinesImport, JsonLinesWriter, read_json_lines, write_json_lines};
pub use mem0::read_mem0;
pub use memos::read_memos;
