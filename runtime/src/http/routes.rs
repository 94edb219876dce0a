//! The routes: one table from which the router is built and against which the OpenAPI document is tested.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, any, on};
use memory::governance::Permission;

use super::access_log::{Observer, observe};
use super::auth::{Guard, Requirement, authorize};
use super::memory_api::MemoryEndpoint;
use super::state::{AppState, Shared};
use super::{completions, pages, scheduler_api, tokens};

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
    /// What the KV tiers hold.
    Tiers,
    /// What MemScheduler decided.
    Decisions,
    /// Forget what is cached on the device.
    ResetDevice,
    /// Description of all of this.
    OpenApi,
    /// Something about memory.
    Memory(MemoryEndpoint),
}

/// Method of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Has a body, mostly.
    Post,
    /// Changes what is there.
    Patch,
    /// Takes away what is there.
    Delete,
}

impl Method {
    /// The name, as the OpenAPI document has it.
    #[cfg(test)]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

impl Endpoint {
    /// Those of the model and of operation.
    const OWN: [Self; 12] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Models,
        Self::Model,
        Self::Tokenize,
        Self::Detokenize,
        Self::Health,
        Self::Metrics,
        Self::Tiers,
        Self::Decisions,
        Self::ResetDevice,
        Self::OpenApi,
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::OWN.into_iter().chain(MemoryEndpoint::ALL.iter().copied().map(Self::Memory))
    }

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
            Self::Tiers => "/v1/scheduler/tiers",
            Self::Decisions => "/v1/scheduler/decisions",
            Self::ResetDevice => "/v1/scheduler/reset",
            Self::OpenApi => "/openapi.json",
            Self::Memory(endpoint) => endpoint.path(),
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
            Self::ChatCompletions | Self::Completions | Self::Tokenize | Self::Detokenize | Self::ResetDevice => {
                Method::Post
            }
            Self::Models
            | Self::Model
            | Self::Health
            | Self::Metrics
            | Self::Tiers
            | Self::Decisions
            | Self::OpenApi => Method::Get,
            Self::Memory(endpoint) => endpoint.method(),
        }
    }

    /// What is asked of callers. Health is for load balancers and says nothing else; the OpenAPI document is the same
    /// on every server; metrics tell about all tenants.
    pub fn requirement(self) -> Requirement {
        match self {
            Self::ChatCompletions | Self::Completions => Requirement::Permission(Permission::Infer),
            Self::Models | Self::Model | Self::Tokenize | Self::Detokenize => Requirement::Permission(Permission::Read),
            Self::Metrics | Self::Tiers | Self::Decisions | Self::ResetDevice => {
                Requirement::Permission(Permission::Observe)
            }
            Self::Health | Self::OpenApi => Requirement::Public,
            Self::Memory(endpoint) => endpoint.requirement(),
        }
    }

    fn handler(self) -> MethodRouter<Arc<Shared>> {
        let filter = self.method().filter();
        match self {
            Self::ChatCompletions => on(filter, completions::chat_completions),
            Self::Completions => on(filter, completions::completions),
            Self::Models => on(filter, pages::models),
            Self::Model => on(filter, pages::model),
            Self::Tokenize => on(filter, tokens::tokenize),
            Self::Detokenize => on(filter, tokens::detokenize),
            Self::Health => on(filter, pages::health),
            Self::Metrics => on(filter, pages::metrics),
            Self::Tiers => on(filter, scheduler_api::tiers),
            Self::Decisions => on(filter, scheduler_api::decisions),
            Self::ResetDevice => on(filter, scheduler_api::reset),
            Self::OpenApi => on(filter, pages::openapi_document),
            Self::Memory(endpoint) => endpoint.handler(filter),
        }
    }
}

/// The whole HTTP surface as a service.
pub fn router(state: AppState) -> Router {
    let app = state.shared;
    let observer = |route| Observer { app: Arc::clone(&app), route };
    let mut router = Router::new();
    let patterns: BTreeSet<&str> = Endpoint::all().map(Endpoint::pattern).collect();
    for pattern in patterns {
        // The last layer is the outermost: a request is first observed, then its caller is checked. What is asked of
        // callers differs between the methods of a path; how it is observed does not.
        let mut methods = MethodRouter::new();
        let mut path = pattern;
        for endpoint in Endpoint::all().filter(|endpoint| endpoint.pattern() == pattern) {
            let guard = Guard { app: Arc::clone(&app), requirement: endpoint.requirement() };
            methods = methods.merge(endpoint.handler().layer(from_fn_with_state(guard, authorize)));
            path = endpoint.path();
        }
        let methods = methods.fallback(pages::method_not_allowed).layer(from_fn_with_state(observer(path), observe));
        router = router.route(pattern, methods);
    }
    let unknown = any(pages::not_found).layer(from_fn_with_state(observer(UNKNOWN_ROUTE), observe));
    router.fallback_service(unknown.with_state(Arc::clone(&app))).with_state(app)
}
