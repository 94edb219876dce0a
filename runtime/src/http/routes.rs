//! The routes: one table from which the router is built and against which the OpenAPI document is tested.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, any, on};
use memory::governance::Permission;

use super::access_log::{Observer, observe};
use super::auth::{Guard, Requirement, authorize};
use super::state::{AppState, Shared};
use super::{completions, pages, tokens};

/// Route label of requests that match no route.
const UNKNOWN_ROUTE: &str = "unknown";

/// Everything that can be asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Chat completion.
    ChatCompletions,
    /// Text completion.
    Completions,
    /// List of models.
    Models,
    /// One model.
    Model,
    /// Text to tokens.
    Tokenize,
    /// Tokens to text.
    Detokenize,
    /// Whether requests are taken.
    Health,
    /// Figures for Prometheus.
    Metrics,
    /// Description of all of this.
    OpenApi,
}

/// Method of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Has a body.
    Post,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Models,
        Self::Model,
        Self::Tokenize,
        Self::Detokenize,
        Self::Health,
        Self::Metrics,
        Self::OpenApi,
    ];

    /// The path as the OpenAPI document has it.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Models => "/v1/models",
            Self::Model => "/v1/models/{model}",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
            Self::Health => "/health",
            Self::Metrics => "/metrics",
            Self::OpenApi => "/openapi.json",
        }
    }

    /// The path as the router has it.
    fn pattern(self) -> &'static str {
        match self {
            // Names of models may contain slashes.
            Self::Model => "/v1/models/{*model}",
            other => other.path(),
        }
    }

    /// The method.
    pub fn method(self) -> Method {
        match self {
            Self::ChatCompletions | Self::Completions | Self::Tokenize | Self::Detokenize => Method::Post,
            Self::Models | Self::Model | Self::Health | Self::Metrics | Self::OpenApi => Method::Get,
        }
    }

    /// What is asked of callers. Health is for load balancers and says nothing else; the OpenAPI document is the same
    /// on every server; metrics tell about all tenants.
    pub fn requirement(self) -> Requirement {
        match self {
            Self::ChatCompletions | Self::Completions => Requirement::Permission(Permission::Infer),
            Self::Models | Self::Model | Self::Tokenize | Self::Detokenize => Requirement::Permission(Permission::Read),
            Self::Metrics => Requirement::Permission(Permission::Observe),
            Self::Health | Self::OpenApi => Requirement::Public,
        }
    }

    fn handler(self) -> MethodRouter<Arc<Shared>> {
        let filter = match self.method() {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
        };
        match self {
            Self::ChatCompletions => on(filter, completions::chat_completions),
            Self::Completions => on(filter, completions::completions),
            Self::Models => on(filter, pages::models),
            Self::Model => on(filter, pages::model),
            Self::Tokenize => on(filter, tokens::tokenize),
            Self::Detokenize => on(filter, tokens::detokenize),
            Self::Health => on(filter, pages::health),
            Self::Metrics => on(filter, pages::metrics),
            Self::OpenApi => on(filter, pages::openapi_document),
        }
    }
}

/// The whole HTTP surface as a service.
pub fn router(state: AppState) -> Router {
    let app = state.shared;
    let observer = |route| Observer { app: Arc::clone(&app), route };
    let mut router = Router::new();
    for endpoint in Endpoint::ALL {
        let guard = Guard { app: Arc::clone(&app), requirement: endpoint.requirement() };
        // The last layer is the outermost: a request is first observed, then its caller is checked.
        let handler = endpoint
            .handler()
            .layer(from_fn_with_state(guard, authorize))
            .fallback(pages::method_not_allowed)
            .layer(from_fn_with_state(observer(endpoint.path()), observe));
        router = router.route(endpoint.pattern(), handler);
    }
    let unknown = any(pages::not_found).layer(from_fn_with_state(observer(UNKNOWN_ROUTE), observe));
    router.fallback_service(unknown.with_state(Arc::clone(&app))).with_state(app)
}
