//! The memory layer: plain data, its rules and its stores. It never sees a model, a socket or a request.
#![forbid(unsafe_code)]

mod error;
pub mod exchange;
pub mod governance;
mod ids;
pub mod ingest;
pub mod item;
pub mod lifecycle;
mod time;

pub use error::MemoryError;
pub use ids::{CubeId, ItemId};
pub use time::{Clock, Timestamp};
