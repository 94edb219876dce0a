//! The tables of the store, their version, and the settings of every connection to them.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::StoreError;
use super::error::BUSY_TIMEOUT_MS;
use super::usage::Meta;
use crate::CubeId;

/// "MmOS", in the field that SQLite keeps for telling whose file it is.
const APPLICATION_ID: i64 = 0x4d6d_4f53;
/// Latest version of the schema, and the one that is written.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// Statements kept compiled for each connection.
const STATEMENT_CACHE_LEN: usize = 128;
/// A larger write-ahead log is cut back once it has been copied into the file.
const WAL_BYTES_KEPT: i64 = 64 << 20;

/// An item's columns come in the same order in `items` and `versions`; the text is last, so that the others are
/// read without following a long text's overflow pages.
const TABLES: &str = "
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    cube BLOB NOT NULL CHECK (length(cube) = 16),
    last_recorded_at INTEGER NOT NULL,
    num_items INTEGER NOT NULL,
    num_versions INTEGER NOT NULL,
    content_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE items (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    scope_user TEXT,
    scope_agent TEXT,
    scope_session TEXT,
    valid_from INTEGER,
    valid_to INTEGER,
    recorded_at INTEGER NOT NULL,
    expires_at INTEGER,
    salience REAL NOT NULL,
    legal_hold INTEGER NOT NULL CHECK (legal_hold IN (0, 1)),
    tags TEXT NOT NULL,
    entities TEXT NOT NULL,
    source TEXT NOT NULL,
    metadata TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX items_by_user ON items (scope_user) WHERE scope_user IS NOT NULL;
CREATE INDEX items_by_expiry ON items (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE versions (
    row INTEGER NOT NULL REFERENCES items (row) ON DELETE CASCADE,
    version INTEGER NOT NULL CHECK (version >= 1),
    superseded_at INTEGER,
    change TEXT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    scope_user TEXT,
    scope_agent TEXT,
    scope_session TEXT,
    valid_from INTEGER,
    valid_to INTEGER,
    recorded_at INTEGER NOT NULL,
    expires_at INTEGER,
    salience REAL NOT NULL,
    legal_hold INTEGER NOT NULL,
    tags TEXT NOT NULL,
    entities TEXT NOT NULL,
    source TEXT NOT NULL,
    metadata TEXT NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (row, version)
) STRICT;
CREATE TABLE item_tags (
    tag TEXT NOT NULL,
    row INTEGER NOT NULL REFERENCES items (row) ON DELETE CASCADE,
    PRIMARY KEY (tag, row)
) STRICT, WITHOUT ROWID;
CREATE INDEX item_tags_by_row ON item_tags (row);
CREATE TABLE edges (
    edge INTEGER PRIMARY KEY,
    from_row INTEGER NOT NULL REFERENCES items (row) ON DELETE CASCADE,
    to_row INTEGER NOT NULL REFERENCES items (row) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('derived_from', 'merged_into', 'supersedes')),
    recorded_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE INDEX edges_by_from ON edges (from_row, kind);
CREATE INDEX edges_by_to ON edges (to_row, kind);
CREATE TABLE entities (
    entity INTEGER PRIMARY KEY AUTOINCREMENT,
    folded TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL
) STRICT;
CREATE TABLE mentions (
    mention INTEGER PRIMARY KEY,
    row INTEGER NOT NULL REFERENCES items (row) ON DELETE CASCADE,
    entity INTEGER NOT NULL REFERENCES entities (entity),
    spelling TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE INDEX mentions_by_row ON mentions (row);
CREATE INDEX mentions_by_entity ON mentions (entity, row);
CREATE TABLE relations (
    relation INTEGER PRIMARY KEY AUTOINCREMENT,
    from_entity INTEGER NOT NULL REFERENCES entities (entity),
    to_entity INTEGER NOT NULL REFERENCES entities (entity),
    label TEXT NOT NULL,
    source_row INTEGER NOT NULL REFERENCES items (row) ON DELETE CASCADE,
    visibility TEXT NOT NULL CHECK (visibility IN ('private', 'shared')),
    owner_user TEXT,
    owner_agent TEXT,
    owner_session TEXT,
    recorded_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE INDEX relations_by_from ON relations (from_entity);
CREATE INDEX relations_by_to ON relations (to_entity);
CREATE INDEX relations_by_source ON relations (source_row);
CREATE TABLE access (
    row INTEGER PRIMARY KEY REFERENCES items (row) ON DELETE CASCADE,
    num_accesses INTEGER NOT NULL,
    last_accessed_at INTEGER NOT NULL
) STRICT;
CREATE TABLE embedders (
    embedder INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    vector_len INTEGER NOT NULL CHECK (vector_len > 0)
) STRICT;
CREATE TABLE vectors (
    vector INTEGER PRIMARY KEY,
    row INTEGER NOT NULL REFERENCES items (row) ON DELETE CASCADE,
    embedder INTEGER NOT NULL REFERENCES embedders (embedder) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    numbers BLOB NOT NULL,
    UNIQUE (row, embedder)
) STRICT;
CREATE INDEX vectors_by_embedder ON vectors (embedder, row);
CREATE TABLE outbox (
    task INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    num_attempts INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    last_error TEXT
) STRICT;
CREATE INDEX outbox_by_time ON outbox (next_attempt_at);
CREATE TABLE erasures (
    erasure INTEGER PRIMARY KEY AUTOINCREMENT,
    item BLOB NOT NULL CHECK (length(item) = 16),
    what TEXT NOT NULL CHECK (what IN ('erased', 'redacted')),
    actor TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    purged_at INTEGER
) STRICT;
CREATE INDEX erasures_to_purge ON erasures (erasure) WHERE purged_at IS NULL;
";

/// Settings that every connection needs, whatever it is for. Nothing here touches the file.
pub(super) fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_LEN);
    // A cube may come from anywhere: its schema is data, not code of ours.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // One plan for a statement, whatever is bound to it: otherwise some are planned anew at each execution, which a profile of
    // adding memories with vectors showed as about a tenth of all time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Sorting spills into memory and not into files, where erased text could be left behind.
    connection.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON;")?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("contains_folded", 2, flags, |context| {
        let text = context.get_raw(0).as_str()?.to_lowercase();
        Ok(text.contains(context.get_raw(1).as_str()?))
    })
}

/// Settings of the one connection that writes.
pub(super) fn prepare_writer(connection: &Connection) -> Result<(), StoreError> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Io { reason: format!("the file system has no write-ahead log, but {mode:?}") });
    }
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    // These two answer with a row.
    let _: i64 = connection.query_row("PRAGMA secure_delete = ON", [], |row| row.get(0))?;
    let _: i64 =
        connection.query_row(&format!("PRAGMA journal_size_limit = {WAL_BYTES_KEPT}"), [], |row| row.get(0))?;
    Ok(())
}

/// Whether the file holds no schema yet; refuses a file that is not ours before anything is written to it.
pub(super) fn is_fresh(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let application_id = pragma("application_id")?;
    let version = pragma("user_version")?;
    let num_objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application_id == 0 && version == 0 && num_objects == 0 {
        return Ok(true);
    }
    let not_a_store = |reason| StoreError::NotAStore { path: path.to_owned(), reason };
    if application_id != APPLICATION_ID {
        return Err(not_a_store(format!("its application id is {application_id:#x}, not {APPLICATION_ID:#x}")));
    }
    if version > SCHEMA_VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), version, supported: SCHEMA_VERSION });
    }
    if version < 1 {
        return Err(not_a_store(format!("its schema version is {version}")));
    }
    let active: Option<String> = connection
        .query_row("SELECT name FROM sqlite_schema WHERE type IN ('trigger', 'view') LIMIT 1", [], |row| row.get(0))
        .optional()?;
    match active {
        // Nobody here makes any, so whoever did wants to run code inside our transactions.
        Some(name) => Err(not_a_store(format!("it holds the trigger or view {name:?}"))),
        None => Ok(false),
    }
}

/// Creates the tables where there are none, and those of other modules; reads what the file says about itself.
pub(super) fn install(
    connection: &Connection,
    cube: CubeId,
    fresh: bool,
    extra_schema: &[&str],
) -> Result<(CubeId, Meta), StoreError> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    if fresh {
        transaction.execute_batch(TABLES)?;
        transaction.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
        ))?;
        transaction.execute("INSERT INTO meta VALUES (1, ?, ?, 0, 0, 0)", params![cube.as_bytes(), i64::MIN])?;
    }
    for statement in extra_schema {
        transaction.execute_batch(statement)?;
    }
    let found = transaction
        .query_row("SELECT cube, last_recorded_at, num_items, num_versions, content_bytes FROM meta", [], |row| {
            Ok((CubeId::from_bytes(row.get(0)?), Meta::from_row(row)?))
        })
        .optional()?
        .ok_or_else(|| StoreError::Damaged { reason: "it does not say which cube it belongs to".to_owned() })?;
    transaction.commit()?;
    Ok(found)
}
