//! What went wrong with memories, as clients are told: status, code and words, without files, SQL or the state of others.

use axum::http::StatusCode;
use memory::cube::CubeError;
use memory::governance::GovernanceError;
use memory::ingest::{IngestError, ModelFailure};
use memory::memories::MemoriesError;
use memory::search::SearchError;
use memory::store::StoreError;
use serde_json::{Map, Value, json};

/// Seconds after which a request that found everything busy may be repeated.
pub const RETRY_AFTER_BUSY_S: u64 = 1;

/// An error of the memory layer as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Field of the request that is to blame.
    pub param: Option<&'static str>,
    /// Values for programs, beside OpenAI's four fields.
    pub details: Map<String, Value>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        Self { status, code, message: message.to_string(), param: None, details: Map::new() }
    }

    /// The client's request is wrong in this field.
    fn invalid(param: &'static str, message: impl ToString) -> Self {
        let param = Some(param).filter(|param| !param.is_empty());
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
    }

    /// The state of what is asked for does not allow it.
    fn conflict(code: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// It cannot be done now.
    fn unavailable(code: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// The server failed, and the operator is told what it was.
    fn failed(error: &MemoriesError) -> Self {
        tracing::error!(%error, "an operation on memories failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "memory_failed", "the memory failed; nothing was changed")
    }

    fn not_found(what: &str) -> Self {
        let (code, param) = match what {
            "cube" => ("cube_not_found", Some("cube")),
            "memory" => ("memory_not_found", Some("id")),
            "grant" => ("grant_not_found", Some("id")),
            _ => ("not_found", None),
        };
        // The same words for what does not exist and for what the caller may not know of.
        Self { param, ..Self::new(StatusCode::NOT_FOUND, code, format!("there is no such {what}")) }
    }

    /// What the client is told of an error.
    pub fn of(error: &MemoriesError) -> Self {
        let refusal = match error {
            MemoriesError::NotFound { what, .. } => Self::not_found(what),
            MemoriesError::AlreadyMounted { .. } => Self::conflict("cube_mounted", error),
            MemoriesError::TooManyCubes { .. } => Self::conflict("too_many_cubes", error),
            MemoriesError::TooMany { .. } => Self::invalid("", error),
            MemoriesError::Embedder { .. } => {
                Self::unavailable("embedder_failed", "the embedder failed; nothing was changed")
            }
            MemoriesError::Index { .. } => {
                Self::unavailable("index_unavailable", "the index of the cube cannot be used at the moment")
            }
            MemoriesError::Governance(governance) => Self::of_governance(governance, error),
            MemoriesError::Cube(cube) => Self::of_cube(cube, error),
            MemoriesError::Store(store) => Self::of_store(store, error),
            MemoriesError::Search(SearchError::InvalidParameter { name, .. }) => Self::invalid(name, error),
            MemoriesError::Search(SearchError::Full { .. }) => Self::conflict("index_full", error),
            MemoriesError::Search(_) => Self::failed(error),
            MemoriesError::NoLanguageModel => Self::invalid("", error),
            MemoriesError::Ingest(IngestError::Extractor { .. }) => Self::failed(error),
            MemoriesError::Ingest(IngestError::Model { model, failure }) => Self::of_model(model, failure, error),
            MemoriesError::Ingest(IngestError::ModelAnswer { .. }) => {
                Self::new(StatusCode::BAD_GATEWAY, "extractor_answer", error)
            }
            MemoriesError::Ingest(_) => Self { code: "invalid_document", ..Self::invalid("content", error) },
            MemoriesError::Exchange(_) => Self { code: "invalid_import", ..Self::invalid("", error) },
            // What stopped it decides; the words say how far it came.
            MemoriesError::ImportStopped { source, .. } => Self { message: error.to_string(), ..Self::of(source) },
            MemoriesError::OlderThanHeads { .. } => {
                Self::conflict("older_than_signed", "the file is older than what this server has signed of the cube")
            }
        };
        if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(%error, "an operation on memories is not possible");
        }
        refusal
    }

    /// Where a model is and what it said of itself is for the operator.
    fn of_model(model: &str, failure: &ModelFailure, error: &MemoriesError) -> Self {
        match failure {
            ModelFailure::Busy { .. } => Self::unavailable("busy", error),
            ModelFailure::Timeout { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, "extractor_timeout", error),
            ModelFailure::TooLong { .. } => Self::new(StatusCode::BAD_REQUEST, "extractor_too_long", error),
            ModelFailure::Unreachable { .. } | ModelFailure::Failed { .. } => {
                tracing::error!(%error, "the extractor failed");
                let message = format!("the model {model} failed; nothing was changed");
                Self::new(StatusCode::BAD_GATEWAY, "extractor_failed", message)
            }
        }
    }

    fn of_governance(governance: &GovernanceError, error: &MemoriesError) -> Self {
        use GovernanceError as E;
        match governance {
            E::NotFound { what } => Self::not_found(what),
            E::Forbidden { .. } | E::GrantExceedsHeld { .. } => Self::new(StatusCode::FORBIDDEN, "not_allowed", error),
            E::QuotaExceeded { resource, used, asked, limit } => {
                let mut refusal = Self::new(StatusCode::FORBIDDEN, "insufficient_quota", error);
                let values = [("resource", json!(resource.to_string())), ("used", json!(used))];
                let more = [("asked", json!(asked)), ("limit", json!(limit))];
                refusal.details.extend(values.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)));
                refusal
            }
            E::InvalidScopeName { what: "agent", .. } => Self::invalid("agent_id", error),
            E::InvalidScopeName { .. } => Self::invalid("user_id", error),
            E::InvalidSubject { .. } => Self::invalid("subject", error),
            E::GrantExpiry { .. } => Self::invalid("expires_at", error),
            E::TooLarge { field: "the reason", .. } => Self::invalid("reason", error),
            E::TooLarge { .. } | E::InvalidField { .. } => Self::invalid("", error),
            E::AuditRange { .. } => Self::invalid("seq", error),
            E::TooManyGrants { .. } => Self::conflict("too_many_grants", error),
            E::AuditDamaged { .. } => Self::unavailable(
                "audit_damaged",
                "the audit log of the cube is damaged: nothing can be recorded in it",
            ),
            E::ReadAuditFull { .. } | E::ReadAuditFailed | E::ReadAuditTimeout { .. } => {
                Self::unavailable("audit_unavailable", error)
            }
            _ => Self::failed(error),
        }
    }

    fn of_cube(cube: &CubeError, error: &MemoriesError) -> Self {
        match cube {
            CubeError::InvalidName { .. } => Self::invalid("cube", error),
            CubeError::SameCube { .. } => {
                Self::conflict("cube_exists", "the cube itself is here already, under another name")
            }
            CubeError::Exists { .. } => Self::conflict("name_taken", "the name is taken already"),
            CubeError::Missing { .. } => Self::not_found("cube or snapshot"),
            CubeError::Foreign { .. } => Self::conflict("cube_foreign", "what is kept under this name is no cube"),
            CubeError::Newer { found, supported, .. } => Self::conflict(
                "cube_newer",
                format!("the cube has format version {found}, but this program reads up to {supported}"),
            ),
            CubeError::Damaged { .. } => Self::unavailable("cube_damaged", "the cube is damaged"),
            CubeError::Locked { .. } => Self::conflict("cube_in_use", "the cube is in use, or was until just now"),
            CubeError::Io { .. } => Self::failed(error),
            CubeError::Store { source, .. } => Self::of_store(source, error),
        }
    }

    fn of_store(store: &StoreError, error: &MemoriesError) -> Self {
        use StoreError as E;
        match store {
            E::UnknownItem { .. } => Self::not_found("memory"),
            E::UnknownVersion { version, .. } => {
                let message = format!("the memory has no version {version}");
                let param = Some("version");
                Self { param, ..Self::new(StatusCode::NOT_FOUND, "version_not_found", message) }
            }
            E::VersionConflict { expected, found, .. } => {
                let mut refusal = Self::conflict("version_conflict", error);
                let values = [("expected", json!(expected)), ("found", json!(found))];
                refusal.details.extend(values.map(|(name, value)| (name.to_owned(), value)));
                refusal
            }
            E::IllegalTransition { .. } | E::OnlyByMerge { .. } => Self::conflict("illegal_transition", error),
            E::Frozen { .. } => Self::conflict("frozen", error),
            E::NotEditable { .. } => Self::conflict("not_editable", error),
            E::LegalHold { .. } => Self::conflict("legal_hold", error),
            E::NotAMerge { .. } => Self::conflict("not_a_merge", error),
            E::SupersedeCycle { .. } => Self::conflict("supersede_cycle", error),
            E::MergeSize { .. } => Self::invalid("ids", error),
            E::Salience { .. } => Self::invalid("salience", error),
            E::EmptyValidity { .. } => Self::invalid("valid_to", error),
            E::InvalidSpan { .. } => Self::invalid("", error),
            E::TooDeep { .. } => Self::invalid("metadata", error),
            E::InvalidCursor { .. } => Self::invalid("cursor", error),
            E::Empty { field } | E::TooLong { field, .. } | E::ControlCharacter { field, .. } => {
                Self::invalid(field, error)
            }
            E::OutOfLimit { what, .. } => Self::invalid(what, error),
            E::Busy { .. } | E::ReadersBusy { .. } => Self::unavailable("busy", error),
            E::DiskFull => Self::unavailable("disk_full", error),
            E::Io { .. } | E::ClosedForWriting { .. } => Self::unavailable(
                "closed_for_writing",
                "the cube takes no changes until it is mounted again, because a write failed",
            ),
            E::PurgeBusy | E::OutboxFull { .. } => Self::unavailable("busy", error),
            E::Damaged { .. } | E::OtherCube { .. } => Self::unavailable("cube_damaged", "the cube is damaged"),
            E::NotAStore { .. } => Self::conflict("cube_foreign", "what is kept under this name is no cube"),
            E::Newer { version, supported, .. } => Self::conflict(
                "cube_newer",
                format!("the cube's store has version {version}, but this program reads up to {supported}"),
            ),
            E::ReadOnly { .. } => Self::unavailable("read_only", "the cube is on a disk that cannot be written"),
            E::SnapshotExists { .. } => Self::conflict("name_taken", "the name is taken already"),
            _ => Self::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use memory::ItemId;
    use memory::governance::quota::QuotaResource;

    use super::*;

    #[test]
    fn what_is_unknown_and_what_is_foreign_read_alike() {
        let unknown = MemoriesError::NotFound { what: "cube", id: "notes".to_owned() };
        let foreign = MemoriesError::Governance(GovernanceError::NotFound { what: "cube" });
        assert_eq!(Refusal::of(&unknown), Refusal::of(&foreign));
    }

    #[test]
    fn no_answer_names_a_file() {
        let path = std::path::PathBuf::from("/secret/place");
        let io = || std::io::Error::other("no");
        let errors = [
            MemoriesError::Cube(CubeError::Exists { path: path.clone() }),
            MemoriesError::Cube(CubeError::Missing { path: path.clone() }),
            MemoriesError::Cube(CubeError::Foreign { path: path.clone(), problem: String::new() }),
            MemoriesError::Cube(CubeError::Newer { path: path.clone(), found: 2, supported: 1 }),
            MemoriesError::Cube(CubeError::Damaged { path: path.clone(), problem: String::new() }),
            MemoriesError::Cube(CubeError::Locked { path: path.clone() }),
            MemoriesError::Cube(CubeError::Io { action: "read", path: path.clone(), source: io() }),
            MemoriesError::Store(StoreError::ReadOnly { path: path.clone() }),
            MemoriesError::Store(StoreError::Newer { path: path.clone(), version: 2, supported: 1 }),
            MemoriesError::Store(StoreError::ClosedForWriting { cause: "/secret/place".to_owned() }),
            MemoriesError::Store(StoreError::Io { reason: "/secret/place".to_owned() }),
            MemoriesError::Governance(GovernanceError::Io { action: "read", path, source: io() }),
            MemoriesError::Embedder { embedder: "e".to_owned(), reason: "/secret/place".to_owned() },
        ];
        for error in errors {
            let refusal = Refusal::of(&error);
            assert!(!refusal.message.contains("secret"), "{error:?}: {}", refusal.message);
            assert!(refusal.status.as_u16() >= 404, "{error:?}");
        }
    }

    #[test]
    fn conflicts_and_quotas_carry_their_numbers() {
        let conflict = StoreError::VersionConflict { id: ItemId::new(), expected: 1, found: 2 };
        let refusal = Refusal::of(&MemoriesError::Store(conflict));
        assert_eq!((refusal.status, refusal.details["found"].as_u64()), (StatusCode::CONFLICT, Some(2)));
        let resource = QuotaResource::Items;
        let quota = GovernanceError::QuotaExceeded { resource, used: 3, asked: 2, limit: 4 };
        let refusal = Refusal::of(&MemoriesError::Governance(quota));
        assert_eq!((refusal.status, refusal.code), (StatusCode::FORBIDDEN, "insufficient_quota"));
        assert_eq!(refusal.details["limit"], 4);
    }
}
