//! The table of the memory API's routes: path, method, input, handler.

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, State};
use axum::http::Request;
use axum::routing::{MethodFilter, MethodRouter, on};
use memory::governance::Permission;
use std::sync::Arc;

use super::call::{Input, Work, serve};
use super::{
    add, audit, cubes, documents, embeddings, erase, export, grants, graph, import, items, merge, search, subjects,
};
use crate::http::auth::{Caller, Requirement};
use crate::http::routes::Method;
use crate::http::state::Shared;

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident: $method:ident $path:literal, $input:ident => $work:path;)*) => {
        /// What can be asked of the memory API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum MemoryEndpoint {
            $($(#[$doc])* $name,)*
        }

        impl MemoryEndpoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The path, for router and document.
            pub fn path(self) -> &'static str {
                match self {
                    $(Self::$name => $path,)*
                }
            }

            /// The method.
            pub fn method(self) -> Method {
                match self {
                    $(Self::$name => Method::$method,)*
                }
            }

            /// What it takes beside its query.
            pub fn input(self) -> Input {
                match self {
                    $(Self::$name => Input::$input,)*
                }
            }

            fn work(self) -> Work {
                match self {
                    $(Self::$name => $work,)*
                }
            }
        }
    };
}

endpoints! {
    /// The cubes that the caller may read.
    ListCubes: Get "/v1/cubes", Nothing => cubes::list;
    /// A new cube.
    CreateCube: Post "/v1/cubes", Json => cubes::create;
    /// What a cube is and holds.
    InspectCube: Get "/v1/cubes/{cube}", Nothing => cubes::inspect;
    /// Takes a cube into use.
    MountCube: Post "/v1/cubes/{cube}/mount", OptionalJson => cubes::mount;
    /// Takes a cube out of use.
    UnmountCube: Post "/v1/cubes/{cube}/unmount", OptionalJson => cubes::unmount;
    /// Checks a cube's store.
    VerifyCube: Post "/v1/cubes/{cube}/verify", OptionalJson => cubes::verify;
    /// The snapshots of a cube.
    ListSnapshots: Get "/v1/cubes/{cube}/snapshots", Nothing => cubes::list_snapshots;
    /// A copy of a cube as it is now, to compare with.
    CreateSnapshot: Post "/v1/cubes/{cube}/snapshots", Json => cubes::create_snapshot;
    /// What has changed since a snapshot.
    DiffCube: Get "/v1/cubes/{cube}/diff", Nothing => cubes::diff;
    /// The grants of a cube.
    ListGrants: Get "/v1/cubes/{cube}/grants", Nothing => grants::list;
    /// Shares a cube or a memory.
    CreateGrant: Post "/v1/cubes/{cube}/grants", Json => grants::create;
    /// Takes a grant back.
    DeleteGrant: Delete "/v1/cubes/{cube}/grants/{grant}", Nothing => grants::delete;
    /// Everything in a cube, as JSONL.
    ExportCube: Get "/v1/cubes/{cube}/export", Nothing => export::export;
    /// Memories from a file.
    ImportCube: Post "/v1/cubes/{cube}/import", File => import::import;
    /// Adds a text, several, or what a conversation tells.
    AddMemories: Post "/v1/memories", Json => add::add;
    /// Adds many memories at once.
    AddBatch: Post "/v1/memories/batch", Json => add::add_batch;
    /// Lists memories.
    ListMemories: Get "/v1/memories", Nothing => items::list;
    /// Searches.
    SearchMemories: Post "/v1/memories/search", Json => search::search;
    /// Walks the graph.
    WalkGraph: Get "/v1/memories/graph", Nothing => graph::walk;
    /// Merges memories into one.
    MergeMemories: Post "/v1/memories/merge", Json => merge::merge;
    /// One memory.
    GetMemory: Get "/v1/memories/{id}", Nothing => items::get;
    /// Edits a memory.
    UpdateMemory: Patch "/v1/memories/{id}", Json => items::update;
    /// Erases a memory.
    DeleteMemory: Delete "/v1/memories/{id}", Nothing => erase::delete;
    /// All versions of a memory.
    MemoryHistory: Get "/v1/memories/{id}/history", Nothing => items::history;
    /// Brings a version back.
    RestoreMemory: Post "/v1/memories/{id}/restore", Json => items::restore;
    /// Moves a memory to another state.
    TransitionMemory: Post "/v1/memories/{id}/transition", Json => items::transition;
    /// Sets or lifts a legal hold.
    HoldMemory: Post "/v1/memories/{id}/hold", Json => items::hold;
    /// Blacks out what must not be kept.
    RedactMemory: Post "/v1/memories/{id}/redact", OptionalJson => erase::redact;
    /// Undoes a merge.
    UnmergeMemory: Post "/v1/memories/{id}/unmerge", OptionalJson => merge::unmerge;
    /// A document in pieces.
    AddDocument: Post "/v1/documents", Json => documents::add;
    /// Erases many memories.
    Erase: Post "/v1/erase", Json => erase::erase;
    /// Everything held about somebody.
    ExportSubject: Get "/v1/subjects/export", Nothing => subjects::export;
    /// The audit log.
    ListAudit: Get "/v1/audit", Nothing => audit::list;
    /// Its signed head.
    AuditHead: Get "/v1/audit/head", Nothing => audit::head;
    /// Checks it.
    VerifyAudit: Post "/v1/audit/verify", OptionalJson => audit::verify;
    /// Proves that it holds an entry.
    AuditProof: Get "/v1/audit/proof", Nothing => audit::proof;
    /// Proves that it continues what it was.
    AuditConsistency: Get "/v1/audit/consistency", Nothing => audit::consistency;
    /// Receipts of erasures.
    ListErasures: Get "/v1/erasures", Nothing => erase::list_receipts;
    /// One receipt.
    GetErasure: Get "/v1/erasures/{seq}", Nothing => erase::get_receipt;
    /// Text to vectors.
    Embeddings: Post "/v1/embeddings", Json => embeddings::create;
}

impl MemoryEndpoint {
    /// What is asked of callers. Whether they may do it with a cube is for the policy of the memory to decide, which
    /// also records it; embedding computes, as generation does.
    pub fn requirement(self) -> Requirement {
        match self {
            Self::Embeddings => Requirement::Permission(Permission::Infer),
            _ => Requirement::Permission(Permission::Read),
        }
    }

    /// The handler.
    pub fn handler(self, filter: MethodFilter) -> MethodRouter<Arc<Shared>> {
        let (input, work) = (self.input(), self.work());
        on(
            filter,
            move |State(app): State<Arc<Shared>>,
                  Extension(caller): Extension<Caller>,
                  path: Result<RawPathParams, RawPathParamsRejection>,
                  request: Request<Body>| serve((app, caller), path, request, (input, work)),
        )
    }
}
