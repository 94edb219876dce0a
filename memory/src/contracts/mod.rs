//! What an implementation of a public seam must do, as checks that its author can run: each says which rule is violated.
//!
//! They need no test framework: `assert_eq!(check_embedder(&mine), Ok(()))`. The seams with an example of their own are
//! [`Embedder`](crate::memories::Embedder) (`examples/embedder.rs`), [`Extractor`](crate::ingest::Extractor)
//! (`examples/extractor.rs`) and [`Judge`](crate::ingest::Judge) (`examples/judge.rs`). What has one implementor today is no
//! seam: the store, the graph, the ranking and the policy engine are types. Their rules are open to data instead: fusion and
//! diversity are parameters of a search, and policies are texts in Cedar's language.

mod embedder;
mod extractor;
mod judge;

pub use embedder::check_embedder;
pub use extractor::check_extractor;
pub use judge::check_judge;

/// The rule as an error when it does not hold.
fn require(holds: bool, rule: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule()) }
}
