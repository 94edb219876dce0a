//! Finds out who a caller is and whether the route may be used, before anything of the body is read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use memory::governance::{Access, Identity, Permission, Role};

use super::access_log::RequestRecord;
use super::error::ApiError;
use super::fields::quoted;
use super::listen_policy::is_loopback_host;
use super::state::Shared;
use crate::engine::Tenant;

/// Tenant of a server without keys.
pub const LOCAL_TENANT: &str = "local";

/// What a route asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: the route tells nothing about tenants.
    Public,
    /// A key whose role includes this.
    Permission(Permission),
}

/// State of the middleware on one route.
#[derive(Clone)]
pub struct Guard {
    /// Shared state.
    pub app: Arc<Shared>,
    /// What the route asks for.
    pub requirement: Requirement,
}

/// Who sent a request; the handlers' only source of identity.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose cache and queue are used.
    pub tenant: Tenant,
    /// Whose memory is opened, and what may be done with it.
    pub identity: Identity,
}

/// Lets a request through to its handler with a [`Caller`], or answers it.
pub async fn authorize(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match check(&guard, request.headers()) {
        Ok(caller) => {
            if let Some(record) = request.extensions().get::<RequestRecord>() {
                record.set_tenant(&caller.tenant.name);
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            if let ApiError::Keys(reason) = &error {
                // The operator needs the reason, which the client is not told.
                tracing::error!(%reason, "API keys cannot be checked");
            }
            error.into_response()
        }
    }
}

fn check(guard: &Guard, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let Requirement::Permission(permission) = guard.requirement else {
        return Ok(local(guard, Role::Reader));
    };
    let identity = match guard.app.parts.keys.authenticate(bearer(headers))? {
        Access::Granted(identity) => Some(identity),
        Access::Open => None,
        Access::Missing => return Err(ApiError::MissingKey),
        Access::Refused => return Err(ApiError::RefusedKey),
    };
    match identity {
        None => {
            check_host(headers)?;
            Ok(local(guard, Role::Admin))
        }
        Some(identity) => {
            check_role(identity.role, permission)?;
            Ok(Caller { tenant: guard.app.tenant(identity.tenant.as_str()), identity })
        }
    }
}

/// The caller of a server without keys, or of a route that asks for none.
fn local(guard: &Guard, role: Role) -> Caller {
    let tenant = LOCAL_TENANT.parse().expect("the name of the local tenant is one: this is a bug");
    Caller { tenant: guard.app.tenant(LOCAL_TENANT), identity: Identity { tenant, role } }
}

fn check_role(role: Role, permission: Permission) -> Result<(), ApiError> {
    if role.allows(permission) { Ok(()) } else { Err(ApiError::Forbidden { role, permission }) }
}

fn check_host(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(host) = headers.get(header::HOST) else { return Ok(()) };
    match host.to_str() {
        Ok(host) if is_loopback_host(host) => Ok(()),
        Ok(host) => Err(ApiError::ForeignHost { host: quoted(host) }),
        Err(_not_text) => Err(ApiError::ForeignHost { host: "?".to_owned() }),
    }
}

/// The key of an `Authorization: Bearer` header. Another scheme is no key.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header value"))])
    }

    #[test]
    fn only_bearer_keys_are_keys() {
        let key = |value: &str| bearer(&headers(header::AUTHORIZATION, value)).map(str::to_owned);
        assert_eq!(key("Bearer mk-1"), Some("mk-1".to_owned()));
        assert_eq!(key("bearer  mk-1 "), Some("mk-1".to_owned()));
        assert_eq!(key("Basic mk-1"), None);
        assert_eq!(key("Bearer "), None);
        assert_eq!(key("mk-1"), None);
    }

    #[test]
    fn foreign_hosts_are_refused_when_everyone_is_let_in() {
        assert!(check_host(&headers(header::HOST, "localhost:8000")).is_ok());
        assert!(check_host(&HeaderMap::new()).is_ok());
        let error = check_host(&headers(header::HOST, "evil.example")).expect_err("foreign");
        assert!(matches!(error, ApiError::ForeignHost { .. }));
    }

    #[test]
    fn readers_may_not_generate() {
        assert!(check_role(Role::Reader, Permission::Read).is_ok());
        let error = check_role(Role::Reader, Permission::Infer).expect_err("forbidden");
        assert_eq!(error.to_string(), "a key with role reader may not do this (generating text)");
    }
}
