//! The runtime: engine thread, HTTP surface and command line, tied together; the binary `memos` is a thin shell around it.
#![forbid(unsafe_code)]

mod bundled;
pub mod cli;
pub mod client;
pub mod data_dir;
pub mod embedder;
pub mod engine;
pub mod environment;
pub mod http;
pub mod kv_store;
pub mod memories;
pub mod recall;
