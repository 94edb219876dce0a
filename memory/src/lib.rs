//! The memory layer: plain data, its rules and its stores. It never sees a model, a socket or a request.
#![forbid(unsafe_code)]

pub mod contracts;
pub mod cube;
pub mod durable;
mod error;
pub mod exchange;
pub mod governance;
mod ids;
pub mod ingest;
pub mod item;
pub mod lifecycle;
pub mod memories;
pub mod search;
pub mod store;
mod time;

pub use error::MemoryError;
pub use ids::{CubeId, ItemId};
pub use time::{Clock, Timestamp};
