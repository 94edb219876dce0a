//! What can be wrong with a file of memories as a whole.

use super::Problem;

/// Why a file of memories was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The operating system refused.
    #[error("cannot {action} the memories: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The file is no JSON at all.
    #[error("the file is not JSON: {reason} at line {line} column {column}")]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file is JSON, but not of this format.
    #[error("the file is no {format} export: {reason}")]
    NotThisFormat {
        /// Which format was expected.
        format: &'static str,
        /// What is missing.
        reason: &'static str,
    },
    /// A later version of this program wrote the file.
    #[error("the file has format version {version}, but this program reads up to {supported}")]
    Newer {
        /// Version that it claims.
        version: u64,
        /// Latest version that is understood here.
        supported: u64,
    },
    /// More bytes than are read.
    #[error("the file has more than {limit} bytes")]
    TooLarge {
        /// How many are read.
        limit: usize,
    },
    /// More memories than are read.
    #[error("the file holds more than {limit} memories")]
    TooManyRecords {
        /// How many are read.
        limit: usize,
    },
    /// One record is broken, and the caller asked for all or nothing.
    #[error("{0}")]
    Broken(Problem),
    /// A record that cannot be written as JSON.
    #[error("memory {index} cannot be written: {reason}")]
    Unwritable {
        /// Which, from 0.
        index: usize,
        /// What the writer said.
        reason: String,
    },
}
