//! The memory layer: plain data, its rules and its stores. Today it holds governance's first part, the API keys.
#![forbid(unsafe_code)]

mod error;
pub mod governance;

pub use error::MemoryError;
