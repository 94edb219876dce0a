//! Cubes that travel: a packed cube taken in for a new owner, without the trust that its former owner gave to others.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::mounted::{Entry, MountedCube};
use super::{EXTRA_SCHEMA, Memories, MemoriesError};
use crate::CubeId;
use crate::cube::{self, CubeError, CubeName, ListedCube, UnpackTarget};
use crate::governance::audit::{self, HeadsFile};
use crate::governance::quota::{Reservation, Storage};
use crate::governance::{Action, Actor, CubeRef, GrantSet, TenantName, grants};
use crate::store::{Store, StoreError};

/// What becomes of the grants in a packed cube.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CarriedGrants {
    /// They are removed: tenants and users of another server are nobody here, even when they have the same names.
    #[default]
    Drop,
    /// They stay in force: the names stand for the same people here.
    Keep,
}

/// What is unpacked, and how.
#[derive(Debug, Clone, Default)]
pub struct Unpacking<'a> {
    /// New name; `None`: as it was.
    pub name: Option<CubeName>,
    /// What becomes of its grants.
    pub grants: CarriedGrants,
    /// Why, in the actor's words.
    pub reason: Option<&'a str>,
}

/// A cube that was unpacked and is mounted.
pub struct UnpackedCube {
    /// The cube.
    pub cube: Arc<MountedCube>,
    /// Who owned it where it was packed.
    pub packed_by: TenantName,
    /// Grants that were removed.
    pub num_grants_dropped: usize,
}

impl Memories {
    /// Unpacks a cube for the actor's tenant and mounts it. It keeps its id and its audit log, which goes on under this
    /// server's key.
    ///
    /// # Errors
    /// The actor may not, the file is no sound packed cube, the same cube or one of the name is here already, the file is
    /// older than this server's signed heads of the cube, or the quota is full. Nothing is left then.
    pub fn unpack(&self, actor: &Actor, archive: &Path, how: Unpacking<'_>) -> Result<UnpackedCube, MemoriesError> {
        let manifest = cube::packed_manifest(archive)?;
        let (shared, owner) = (self.shared(), actor.tenant().clone());
        let name = how.name.unwrap_or(manifest.name);
        let asked = CubeRef { id: manifest.id, name: name.to_string(), owner: owner.clone() };
        shared.policy.decide(actor, Action::CreateCube, &asked, &GrantSet::default())?.or_refuse("cube")?;
        self.refuse_second(manifest.id)?;
        let target = UnpackTarget {
            parent: self.folder(),
            name: Some(name),
            owner: owner.clone(),
            clock: shared.clock.clone(),
            extra_schema: &EXTRA_SCHEMA,
        };
        let mut num_grants_dropped = 0;
        let mut reservation: Option<Reservation<'_>> = None;
        let unpacked = cube::unpack(archive, target, |store| {
            // The manifest that is unpacked may be another than the one that was looked at first.
            self.refuse_second(store.cube())?;
            self.refuse_older(store)?;
            let usage = store.read(|reader| reader.stored_usage())?;
            let asked = Storage { num_items: usage.num_items, bytes: usage.content_bytes };
            reservation = Some(shared.quotas.reserve(&owner, asked)?);
            if how.grants == CarriedGrants::Drop {
                num_grants_dropped = drop_grants(store)?;
            }
            Ok::<(), MemoriesError>(())
        })?;
        let cube = self.mount_folder(&unpacked.folder, &unpacked.manifest.name)?;
        // The mounted cube counts for itself.
        drop(reservation);
        let details = json!({ "packed_by": unpacked.packed_by, "grants_dropped": num_grants_dropped });
        let entry = Entry { action: "cube.unpack", objects: Vec::new(), reason: how.reason, details: Some(details) };
        cube.change(actor, |_tx| Ok(((), entry)))?;
        Ok(UnpackedCube { cube, packed_by: unpacked.packed_by, num_grants_dropped })
    }

    /// Two of one cube would write one file of heads, and each make the other's log look cut off.
    fn refuse_second(&self, id: CubeId) -> Result<(), MemoriesError> {
        for ListedCube { manifest, .. } in cube::list(self.folder())? {
            if let Ok(manifest) = manifest
                && manifest.id == id
            {
                return Err(CubeError::SameCube { id, name: manifest.name }.into());
            }
        }
        Ok(())
    }

    fn refuse_older(&self, store: &Store) -> Result<(), MemoriesError> {
        let heads = self.shared().heads_path(store.cube());
        if !heads.exists() {
            return Ok(());
        }
        let signed = HeadsFile::open(&heads)?.heads().last().map_or(0, |head| head.size);
        let found = store.read(|reader| audit::size(reader.connection()).map_err(StoreError::step))?;
        if found < signed { Err(MemoriesError::OlderThanHeads { heads, signed, found }) } else { Ok(()) }
    }
}

/// Removes all grants, and their bytes from the file.
fn drop_grants(store: &Store) -> Result<usize, MemoriesError> {
    let id = store.cube();
    let num = store.write(|tx| grants::erase_all(tx.connection(), &id).map_err(StoreError::step))?;
    store.purge()?;
    Ok(num)
}
