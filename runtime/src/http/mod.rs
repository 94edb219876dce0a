//! The HTTP surface: an OpenAI-compatible endpoint in front of the engine. JSON and SSE are known here only.
//!
//! A request passes the files in this order: `listener` (connections) → `routes` → `access_log` → `auth` →
//! `completions` (handlers) → `body` → `preparation` (`chat_request`, `completion_request`, `options`, `messages`,
//! over `fields`; `chat_memory` with `memory_options`; template and tokenizer) → `submission` (engine) → `choice`
//! (`assembler`, `stop_strings`) → `choices` → `answer` (`chat_format`, `completion_format`, `logprobs`, `usage`).
//! Requests about memory go from `auth` to `memory_api`.

mod access_log;
mod answer;
mod assembler;
mod auth;
mod body;
mod chat_format;
mod chat_memory;
mod chat_request;
mod choice;
mod choices;
mod completion_format;
mod completion_request;
mod completions;
mod drain;
mod error;
mod fields;
mod file_limit;
mod histogram;
mod listen_policy;
mod listener;
mod log;
mod logprobs;
mod memory_api;
mod memory_metrics;
mod memory_options;
mod messages;
mod metrics;
mod openapi;
mod options;
mod pages;
mod preparation;
mod routes;
mod scheduler_api;
mod state;
mod stop_strings;
mod submission;
mod timed_stream;
mod tokens;
mod usage;

pub use auth::LOCAL_TENANT;
pub use body::BodyLimits;
pub use listen_policy::{KeyPolicy, NotLoopback, listen_policy};
pub use listener::{ServeError, serve};
pub use log::{LogLevel, log_to_stderr};
pub use routes::router;
pub use state::{AppParts, AppState, HttpLimits, tenant_id, tenant_salt};

#[cfg(test)]
mod listener_tests;
#[cfg(test)]
mod router_tests;
#[cfg(test)]
mod testing;
