//! Handlers that only tell something: models, health, metrics, and the answers for routes that do not exist.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::drain::Phase;
use super::error::ApiError;
use super::fields::quoted;
use super::openapi;
use super::state::Shared;

/// `GET /health`: 200 while requests are taken, 503 while the server goes down or its engine is gone.
pub async fn health(State(app): State<Arc<Shared>>) -> Response {
    let (status, word) = if !app.parts.engine.is_running() {
        (StatusCode::SERVICE_UNAVAILABLE, "engine stopped")
    } else if app.drain.phase() > Phase::Serving {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down")
    } else {
        (StatusCode::OK, "ok")
    };
    (status, Json(json!({"status": word}))).into_response()
}

/// `GET /metrics`
pub async fn metrics(State(app): State<Arc<Shared>>) -> Response {
    let text = app.metrics.render(app.parts.engine.info(), &app.parts.engine.stats());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// `GET /openapi.json`
pub async fn openapi_document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::DOCUMENT).into_response()
}

/// `GET /v1/models`
pub async fn models(State(app): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [model_json(&app)]}))
}

/// `GET /v1/models/{model}`. Names of models from a hub contain slashes, so the rest of the path is the name.
pub async fn model(State(app): State<Arc<Shared>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    app.check_model(Some(&name))?;
    Ok(Json(model_json(&app)))
}

fn model_json(app: &Shared) -> Value {
    let info = app.parts.engine.info();
    json!({
        "id": info.name,
        "object": "model",
        "created": app.created_unix_s,
        "owned_by": "memos",
        "max_model_len": info.max_context,
    })
}

/// Any path that is not a route.
pub async fn not_found(request: Request) -> ApiError {
    ApiError::NotFound { path: quoted(request.uri().path()) }
}

/// A route with a method that it does not have.
pub async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::MethodNotAllowed { path: quoted(request.uri().path()), method: request.method().to_string() }
}
