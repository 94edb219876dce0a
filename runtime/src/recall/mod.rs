//! Recall: from a conversation to the memories that its prompt carries, and from its end to what is remembered of it.
//!
//! ```text
//! conversation ─ query ─► search of each cube ─► ranking ─ budget ─► block ─► system turn
//! answer       ─ told ──► outbox of the cube ──► memories
//! ```
//!
//! Nothing here knows HTTP: the server and `memos chat` recall in the same way.

mod block;
mod options;
mod plain_text;
mod query;
mod recaller;
mod selection;
#[cfg(test)]
mod tests;
mod told;

pub use block::{MemoryTemplate, TEMPLATE_BYTES_MAX, TemplateError};
pub use options::{BUDGET_TOKENS_DEFAULT, MemoryDefaults, MemoryWriting, NUM_MEMORIES_DEFAULT};
pub use plain_text::PlainText;
pub use query::query_of;
pub use recaller::{RecallRequest, Recaller, cubes_named, note_use};
pub use selection::{DropReason, Dropped, Recall, Recalled};
pub use told::{Told, told_turn};
