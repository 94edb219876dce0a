//! One request to the memory API: its fields, its caller and its reason, and the blocking thread that serves it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::RawPathParams;
use axum::extract::rejection::RawPathParamsRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use memory::governance::{Actor, Identity};
use memory::item::Scope;
use memory::memories::{Memories, MemoriesError};
use serde_json::{Map, Value};

use super::place::{Absent, Place};
use super::query::add_query;
use crate::http::auth::Caller;
use crate::http::body;
use crate::http::error::ApiError;
use crate::http::fields::{Fields, quoted};
use crate::http::state::Shared;

/// Carries the reason for the audit log.
const REASON_HEADER: HeaderName = HeaderName::from_static("x-memos-reason");

/// What an endpoint takes beside its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    Nothing,
    /// A JSON object.
    Json,
    /// A JSON object, or nothing.
    OptionalJson,
    /// A file.
    File,
}

/// A handler. It runs on a blocking thread, to its end even when its client goes away.
pub type Work = fn(Call) -> Result<Response, ApiError>;

/// A request that is ready to be served.
pub struct Call {
    /// Shared state.
    pub app: Arc<Shared>,
    /// Who asks, from the API key.
    pub identity: Identity,
    /// Fields of body and query that were not read yet.
    pub fields: Fields,
    /// The body of an endpoint that takes a file.
    pub file: Vec<u8>,
    path: Vec<(String, String)>,
    headers: HeaderMap,
}

/// Serves one request.
pub async fn serve(
    (app, caller): (Arc<Shared>, Caller),
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request<Body>,
    (input, work): (Input, Work),
) -> Response {
    let served = async {
        let (head, body) = request.into_parts();
        let not_found = |_not_utf8| ApiError::NotFound { path: quoted(head.uri.path()) };
        let path = path.map_err(not_found)?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let bytes = read(&app, &head.headers, body, input).await?;
        let task = "working on memories";
        let place = Arc::clone(&app.remembering).acquire_owned().await.map_err(|_closed| ApiError::Task { task })?;
        let working = tokio::task::spawn_blocking(move || {
            let _place = place;
            let (mut fields, file) = match input {
                Input::Json => (body::parse(&bytes)?.into_map(), Vec::new()),
                Input::OptionalJson if !bytes.is_empty() => (body::parse(&bytes)?.into_map(), Vec::new()),
                Input::OptionalJson | Input::Nothing => (Map::new(), Vec::new()),
                Input::File => (Map::new(), bytes),
            };
            add_query(&head.uri, &mut fields)?;
            let (identity, fields) = (caller.identity, Fields::of_body(fields));
            work(Call { app, identity, fields, file, path, headers: head.headers })
        });
        working.await.map_err(|_panicked| ApiError::Task { task })?
    };
    served.await.unwrap_or_else(IntoResponse::into_response)
}

async fn read(app: &Shared, headers: &HeaderMap, body: Body, input: Input) -> Result<Vec<u8>, ApiError> {
    let limits = app.parts.limits.body;
    match input {
        Input::Nothing => Ok(Vec::new()),
        Input::Json => body::read(headers, body, limits).await,
        Input::File => body::read_file(headers, body, limits).await,
        // A web page can send an empty request to a foreign server without asking it first, but not without saying
        // where it comes from.
        Input::OptionalJson if headers.contains_key(header::CONTENT_TYPE) || headers.contains_key(header::ORIGIN) => {
            body::read(headers, body, limits).await
        }
        Input::OptionalJson => {
            let is_empty = http_body::Body::is_end_stream(&body);
            if is_empty { Ok(Vec::new()) } else { body::read(headers, body, limits).await }
        }
    }
}

impl Call {
    /// A part of the path.
    ///
    /// # Panics
    /// When the route has no such part.
    pub fn path(&self, name: &str) -> String {
        let found = self.path.iter().find(|(part, _value)| part == name);
        found.map(|(_part, value)| value.clone()).expect("the route has this part: this is a bug")
    }

    /// All memories of the server.
    pub fn memories(&self) -> Arc<Memories> {
        Arc::clone(&self.app.parts.memories)
    }

    /// Reads `user_id`, `agent_id` and `session_id`: names inside the caller's tenant.
    ///
    /// # Errors
    /// One of them is no text.
    pub fn scope(&mut self) -> Result<Scope, ApiError> {
        read_scope(&mut self.fields)
    }

    /// The tenant itself, for no user or agent in particular.
    pub fn tenant(&self) -> Actor {
        Actor::of_tenant(self.identity.clone())
    }

    /// Who acts: the caller's tenant, for the user and agent of this scope.
    ///
    /// # Errors
    /// A name that cannot be one.
    pub fn actor(&self, scope: &Scope) -> Result<Actor, ApiError> {
        let actor = Actor::new(self.identity.clone(), scope.user.as_deref(), scope.agent.as_deref());
        actor.map_err(|error| MemoriesError::from(error).into())
    }

    /// Reads `user_id` and `agent_id` as who acts.
    ///
    /// # Errors
    /// As [`Self::actor`].
    pub fn read_actor(&mut self) -> Result<Actor, ApiError> {
        let (user, agent) = (self.fields.text("user_id")?, self.fields.text("agent_id")?);
        self.actor(&Scope { user, agent, session: None })
    }

    /// Reads why, from the header `x-memos-reason` or the field `reason`.
    ///
    /// # Errors
    /// It is given in both, or is no text.
    pub fn reason(&mut self) -> Result<Option<String>, ApiError> {
        let in_body = self.fields.text("reason")?;
        let Some(value) = self.headers.get(REASON_HEADER) else { return Ok(in_body) };
        if in_body.is_some() {
            let (param, other) = ("reason", "x-memos-reason");
            return Err(ApiError::Conflict { param, other, reason: "give one of them" });
        }
        match std::str::from_utf8(value.as_bytes()) {
            Ok(reason) => Ok(Some(reason.to_owned())),
            Err(_not_utf8) => {
                let (param, allowed) = ("x-memos-reason".to_owned(), "UTF-8".to_owned());
                Err(ApiError::OutOfRange { param, allowed, got: "other bytes".to_owned() })
            }
        }
    }

    /// Reads `cube`: a name or an id; absent: the caller's default cube. It is looked for later, when all is read.
    ///
    /// # Errors
    /// It is no text.
    pub fn cube_field(&mut self) -> Result<Option<String>, ApiError> {
        self.fields.text("cube")
    }

    /// Ends the reading of fields.
    ///
    /// # Errors
    /// A field is left that the endpoint does not know.
    pub fn finish(&mut self) -> Result<(), ApiError> {
        std::mem::replace(&mut self.fields, Fields::of_body(Map::new())).finish(&[])
    }

    /// The cube of a request that reads or changes what is there.
    ///
    /// # Errors
    /// There is none.
    pub fn place(&self, actor: Actor, cube: Option<&str>) -> Result<Place, ApiError> {
        Place::find(&self.app.parts.memories, actor, cube, Absent::Refuse)
    }

    /// The cube of a request that adds something.
    ///
    /// # Errors
    /// There is none, and it is not the default cube or cannot be made.
    pub fn place_to_write(&self, actor: Actor, cube: Option<&str>) -> Result<Place, ApiError> {
        Place::find(&self.app.parts.memories, actor, cube, Absent::Make)
    }

    /// The version that the client knows, from `If-Match`: `"3"`, `3` or, for whatever there is, `*`.
    ///
    /// # Errors
    /// It is something else.
    pub fn if_match(&self) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.headers.get(header::IF_MATCH) else { return Ok(None) };
        let text = value.to_str().unwrap_or("?").trim();
        if text == "*" {
            return Ok(None);
        }
        let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        match number.parse::<u64>() {
            Ok(version) if version > 0 => Ok(Some(version)),
            _ => {
                let (param, allowed) = ("if-match".to_owned(), "one version in quotes, such as \"3\", or *".to_owned());
                Err(ApiError::OutOfRange { param, allowed, got: format!("{:?}", quoted(text)) })
            }
        }
    }
}

/// Reads the scope that stands in these fields.
///
/// # Errors
/// A name is no text.
pub fn read_scope(fields: &mut Fields) -> Result<Scope, ApiError> {
    Ok(Scope { user: fields.text("user_id")?, agent: fields.text("agent_id")?, session: fields.text("session_id")? })
}

/// An answer.
pub fn ok(value: Value) -> Response {
    axum::Json(value).into_response()
}

/// The answer for something new.
pub fn created(value: Value) -> Response {
    (StatusCode::CREATED, axum::Json(value)).into_response()
}

/// An answer with the version of what it shows.
pub fn with_version(mut response: Response, version: u64) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
