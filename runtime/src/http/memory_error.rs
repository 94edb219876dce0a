//! How failures of memory look in OpenAI's error shape.

use axum::http::StatusCode;
use memory::governance::GovernanceError;
use memory::memories::MemoriesError;
use memory::store::StoreError;

use super::error::ApiError;

/// A failure of memory with what clients are told of it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct MemoryFailure {
    /// The HTTP status.
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// The answer to a request whose memory failed.
pub fn memory_error(error: MemoriesError) -> ApiError {
    let (status, code) = status_of(&error);
    // Paths and the words of the database are for the operator.
    let message = match status {
        StatusCode::INTERNAL_SERVER_ERROR => {
            tracing::error!(%error, "memory failed");
            "the memory failed; the server's log says why".to_owned()
        }
        _ => error.to_string(),
    };
    ApiError::Memory(MemoryFailure { status, code, message })
}

fn status_of(error: &MemoriesError) -> (StatusCode, &'static str) {
    match error {
        MemoriesError::NotFound { what: "cube", .. } => (StatusCode::NOT_FOUND, "cube_not_found"),
        MemoriesError::NotFound { .. } => (StatusCode::NOT_FOUND, "memory_not_found"),
        MemoriesError::TooMany { .. } => (StatusCode::BAD_REQUEST, "too_many"),
        MemoriesError::Embedder { .. } => (StatusCode::SERVICE_UNAVAILABLE, "embedder_failed"),
        MemoriesError::Governance(error) => of_governance(error),
        MemoriesError::Store(error) => of_store(error),
        MemoriesError::Ingest(_) => (StatusCode::BAD_REQUEST, "unreadable_text"),
        MemoriesError::Exchange(_) => (StatusCode::BAD_REQUEST, "unreadable_import"),
        // What stopped it decides; the message says how far it came.
        MemoriesError::ImportStopped { source, .. } => status_of(source),
        MemoriesError::AlreadyMounted { .. }
        | MemoriesError::TooManyCubes { .. }
        | MemoriesError::Index { .. }
        | MemoriesError::OlderThanHeads { .. }
        | MemoriesError::Cube(_)
        | MemoriesError::Search(_) => (StatusCode::INTERNAL_SERVER_ERROR, "memory_failed"),
    }
}

fn of_governance(error: &GovernanceError) -> (StatusCode, &'static str) {
    match error {
        GovernanceError::NotFound { .. } => (StatusCode::NOT_FOUND, "cube_not_found"),
        GovernanceError::Forbidden { .. } => (StatusCode::FORBIDDEN, "memory_forbidden"),
        GovernanceError::QuotaExceeded { .. } => (StatusCode::TOO_MANY_REQUESTS, "memory_quota_exceeded"),
        GovernanceError::InvalidScopeName { .. } => (StatusCode::BAD_REQUEST, "invalid_value"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "memory_failed"),
    }
}

fn of_store(error: &StoreError) -> (StatusCode, &'static str) {
    match error {
        StoreError::TooLong { .. } => (StatusCode::BAD_REQUEST, "too_long"),
        StoreError::Busy { .. } | StoreError::ReadersBusy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "memory_busy"),
        StoreError::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
        StoreError::ClosedForWriting { .. } | StoreError::ReadOnly { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "memory_read_only")
        }
        StoreError::OutboxFull { .. } => (StatusCode::SERVICE_UNAVAILABLE, "outbox_full"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "memory_failed"),
    }
}
