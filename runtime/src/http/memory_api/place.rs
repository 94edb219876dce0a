//! Which cube a request means, and work in it whose errors tell nothing about cubes that the caller may not know of.

use std::sync::Arc;

use memory::CubeId;
use memory::cube::{CubeError, CubeName, NAME_LEN_MAX};
use memory::governance::{Actor, TenantName};
use memory::memories::{Memories, MemoriesError, MountedCube};

use crate::http::error::ApiError;

/// What every caller calls its default cube, the one that is meant where a request names none.
pub const DEFAULT_CUBE: &str = "default";
/// How the names of default cubes begin. Names are shared by all tenants of a server, so each has one of its own.
const DEFAULT_PREFIX: &str = "default.";
/// The tenant of a server without keys, the only one there: its default cube is called just that.
const LOCAL_TENANT: &str = "local";
/// Hex digits that stand for a tenant whose name cannot be a part of a cube's name.
const TENANT_HASH_LEN: usize = 32;

/// Whether the caller's default cube is made when it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It is made: something is to be written.
    Make,
    /// There is nothing to read.
    Refuse,
}

/// A cube, and who works in it.
pub struct Place {
    cube: Arc<MountedCube>,
    actor: Actor,
}

impl Place {
    /// Finds the cube that a request names, by name or id.
    ///
    /// # Errors
    /// The name cannot be one, there is no such cube, or the default cube cannot be made.
    pub fn find(memories: &Memories, actor: Actor, asked: Option<&str>, absent: Absent) -> Result<Self, ApiError> {
        let asked = asked.unwrap_or(DEFAULT_CUBE);
        if let Ok(id) = asked.parse::<CubeId>() {
            let found = memories.mounted().into_iter().find(|cube| cube.manifest().id == id);
            let cube = found.ok_or_else(no_cube)?;
            return Ok(Self { cube, actor });
        }
        let name = cube_name(actor.tenant(), asked)?;
        let cube = match memories.cube(&name) {
            Err(_absent) if asked == DEFAULT_CUBE && absent == Absent::Make => make(memories, &actor, name)?,
            found => found.map_err(|_unknown| no_cube())?,
        };
        Ok(Self { cube, actor })
    }

    /// Works in the cube.
    ///
    /// # Errors
    /// Those of the work. Whoever may not read here is told that there is no such cube, whatever went wrong: otherwise
    /// the kind of error would tell that there is one.
    pub fn run<T>(&self, work: impl FnOnce(&MountedCube, &Actor) -> Result<T, MemoriesError>) -> Result<T, ApiError> {
        work(&self.cube, &self.actor).map_err(|error| match self.cube.may_read(&self.actor) {
            Ok(true) => error.into(),
            Ok(false) | Err(_) => no_cube(),
        })
    }

    /// The cube.
    pub fn cube(&self) -> &Arc<MountedCube> {
        &self.cube
    }

    /// Who works in it.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Whether the cube belongs to the caller's tenant.
    pub fn is_own(&self) -> bool {
        self.cube.manifest().owner == *self.actor.tenant()
    }
}

/// The name under which a cube is known to the whole server, from the one that a tenant calls it.
///
/// # Errors
/// It cannot be a name.
pub fn cube_name(tenant: &TenantName, asked: &str) -> Result<CubeName, ApiError> {
    if asked == DEFAULT_CUBE {
        return Ok(default_cube(tenant));
    }
    asked.parse::<CubeName>().map_err(|error| MemoriesError::from(error).into())
}

/// The name of a new cube.
///
/// # Errors
/// It cannot be a name, looks like an id, or is kept for another tenant's default cube.
pub fn new_cube_name(tenant: &TenantName, asked: &str) -> Result<CubeName, ApiError> {
    let name = cube_name(tenant, asked)?;
    let is_kept = asked.starts_with(DEFAULT_PREFIX) && name != default_cube(tenant);
    if is_kept || asked.parse::<CubeId>().is_ok() {
        let allowed = "a name that is no id and does not begin with \"default.\"".to_owned();
        return Err(ApiError::OutOfRange { param: "name".to_owned(), allowed, got: format!("{asked:?}") });
    }
    Ok(name)
}

/// What a tenant calls a cube.
pub fn shown_name(tenant: &TenantName, name: &CubeName) -> String {
    if *name == default_cube(tenant) { DEFAULT_CUBE.to_owned() } else { name.to_string() }
}

/// The default cube of a tenant.
pub fn default_cube(tenant: &TenantName) -> CubeName {
    let plain = |name: &str| name.parse::<CubeName>().ok().filter(|name| name.as_str().len() <= NAME_LEN_MAX);
    if tenant.as_str() == LOCAL_TENANT {
        return plain(DEFAULT_CUBE).expect("the default cube's name is one: this is a bug");
    }
    plain(&format!("{DEFAULT_PREFIX}{}", tenant.as_str())).unwrap_or_else(|| {
        let hash = blake3::hash(tenant.as_str().as_bytes()).to_hex();
        plain(&format!("{DEFAULT_PREFIX}{}", &hash[..TENANT_HASH_LEN])).expect("hex digits make a name: this is a bug")
    })
}

/// The answer for cubes that are not there, not mounted, or not for the caller to know of.
pub fn no_cube() -> ApiError {
    MemoriesError::NotFound { what: "cube", id: String::new() }.into()
}

fn make(memories: &Memories, actor: &Actor, name: CubeName) -> Result<Arc<MountedCube>, ApiError> {
    match memories.create(actor, name.clone()) {
        // Another request was faster, or it is there and not mounted.
        Err(MemoriesError::Cube(CubeError::Exists { .. }) | MemoriesError::AlreadyMounted { .. }) => {
            memories.cube(&name).map_err(|_not_mounted| no_cube())
        }
        made => Ok(made?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        name.parse().expect("a tenant")
    }

    #[test]
    fn every_tenant_has_a_default_cube_of_its_own() {
        assert_eq!(default_cube(&tenant("local")).as_str(), "default");
        assert_eq!(default_cube(&tenant("acme")).as_str(), "default.acme");
        let names: std::collections::BTreeSet<CubeName> =
            ["acme", "Acme", "ACME", "a..b", "..", &"x".repeat(64)].map(|name| default_cube(&tenant(name))).into();
        assert_eq!(names.len(), 6);
        assert_eq!(shown_name(&tenant("Acme"), &default_cube(&tenant("Acme"))), "default");
        assert_eq!(shown_name(&tenant("beta"), &default_cube(&tenant("acme"))), "default.acme");
    }

    #[test]
    fn names_of_others_default_cubes_and_ids_are_kept() {
        let acme = tenant("acme");
        assert!(new_cube_name(&acme, "default").is_ok() && new_cube_name(&acme, "default.acme").is_ok());
        for name in ["default.beta", &CubeId::new().to_string(), "../x", ""] {
            assert!(new_cube_name(&acme, name).is_err(), "{name}");
        }
    }
}
