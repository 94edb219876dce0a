//! What is done with single memories: read, edited, moved through their life, merged, shared.

use serde_json::json;

use super::mounted::{Entry, MountedCube};
use super::{MemoriesError, Purpose};
use crate::governance::access::ItemColumns;
use crate::governance::audit::Outcome;
use crate::governance::grants::{self, Grant, GrantId, GrantObject, NewGrant};
use crate::governance::{Action, Actor, Allowed, Decision, GovernanceError, GrantSet, Right, Subject};
use crate::item::{Item, ItemPatch, NewItem, Version};
use crate::lifecycle::ItemState;
use crate::store::{
    By, Cursor, ItemFilter, ListOrder, ListRequest, Page, Reader, Redacted, Restriction, Start, Traversal, Unmerged,
    Walk, WriteTransaction,
};
use crate::{ItemId, Timestamp};

/// What a listing asks for.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Which memories.
    pub filter: ItemFilter,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
    /// Most on one page.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// As they were recorded at this moment; `None`: now.
    pub as_of: Option<Timestamp>,
}

/// What is to be shared, with whom, how far.
#[derive(Debug, Clone)]
pub struct Share {
    /// One memory; `None`: the whole cube.
    pub item: Option<ItemId>,
    /// With whom.
    pub subject: Subject,
    /// What they may do.
    pub right: Right,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

impl MountedCube {
    /// A memory as it is now, or as it was recorded at a moment.
    ///
    /// # Errors
    /// There is none for this actor.
    pub fn get(&self, actor: &Actor, id: ItemId, as_of: Option<Timestamp>) -> Result<Item, MemoriesError> {
        let item = self.read(|reader| {
            // The permission is that of today, whatever moment is looked at.
            let (_allowed, now) = self.permit_item(reader, actor, Action::ReadItems, id)?;
            match as_of {
                None => Ok(now),
                Some(moment) => reader.as_of(id, moment)?.ok_or_else(|| MemoriesError::no_memory(id)),
            }
        })?;
        self.note_read(actor, "item.get", vec![id])?;
        Ok(item)
    }

    /// One page of the memories that the actor may read.
    ///
    /// # Errors
    /// The actor may not read here, or the listing asks for more than there can be.
    pub fn list(&self, actor: &Actor, listing: Listing) -> Result<Page, MemoriesError> {
        let allowed = self.permit(actor, Action::ReadItems)?;
        let page = self.read(|reader| {
            let request = ListRequest {
                filter: listing.filter,
                restriction: Some(restriction(&allowed, self.now())),
                order: if listing.newest_first { ListOrder::NewestFirst } else { ListOrder::OldestFirst },
                limit: listing.limit,
                after: listing.after,
            };
            Ok(match listing.as_of {
                None => reader.list(&request)?,
                Some(moment) => reader.list_as_of(moment, &request)?,
            })
        })?;
        self.note_read(actor, "item.list", page.items.iter().map(|item| item.id).collect())?;
        Ok(page)
    }

    /// Every version of a memory, the first one first.
    ///
    /// # Errors
    /// There is none for this actor.
    pub fn history(&self, actor: &Actor, id: ItemId) -> Result<Vec<Version>, MemoriesError> {
        let versions = self.read(|reader| {
            self.permit_item(reader, actor, Action::ReadItems, id)?;
            Ok(reader.history(id)?)
        })?;
        self.note_read(actor, "item.history", vec![id])?;
        Ok(versions)
    }

    /// Walks the graph from some memories and names, stopping at what the actor may not read.
    ///
    /// # Errors
    /// The actor may not read here, or the walk asks for more than there can be.
    pub fn traverse(
        &self,
        actor: &Actor,
        starts: Vec<Start>,
        (depth, num_nodes): (usize, usize),
        at: Option<Timestamp>,
    ) -> Result<Traversal, MemoriesError> {
        let allowed = self.permit(actor, Action::ReadItems)?;
        let walk = Walk { starts, depth, num_nodes, at, viewer: super::search::viewer(actor) };
        let found =
            self.read(|reader| Ok(reader.traverse(&walk, |item| allowed.access().allows(&item.id, &item.scope))?))?;
        self.note_read(actor, "graph.traverse", Vec::new())?;
        Ok(found)
    }

    /// Edits a memory.
    ///
    /// # Errors
    /// The actor may not, the memory has moved on from `expected_version` or cannot be edited, or a field is out of bounds.
    pub fn update(
        &self,
        actor: &Actor,
        id: ItemId,
        expected_version: Option<u64>,
        mut patch: ItemPatch,
        reason: Option<&str>,
    ) -> Result<Item, MemoriesError> {
        if let (Some(redactor), Some(text)) = (&self.shared().redactor, &mut patch.text) {
            *text = redactor.redact(text).0;
        }
        let text = patch.text.clone();
        let vector = match &text {
            Some(text) => self.embed(&[text], Purpose::Passage)?.and_then(|mut vectors| vectors.pop()),
            None => None,
        };
        self.change_item(actor, Action::WriteItems, id, ("item.update", reason), |tx, by| {
            let item = tx.update(id, expected_version, patch, by)?;
            if let (Some(vector), Some(embedder)) = (vector, self.shared().embedder()) {
                tx.put_vector(id, item.version, embedder.id().as_str(), &vector)?;
            }
            Ok(item)
        })
    }

    /// Moves a memory to another state.
    ///
    /// # Errors
    /// The actor may not, the memory has moved on, or its life has no such transition.
    pub fn transition(
        &self,
        actor: &Actor,
        id: ItemId,
        expected_version: Option<u64>,
        to: ItemState,
        reason: Option<&str>,
    ) -> Result<Item, MemoriesError> {
        self.change_item(actor, Action::WriteItems, id, ("item.transition", reason), |tx, by| {
            Ok(tx.transition(id, expected_version, to, by)?)
        })
    }

    /// Brings the content of an earlier version back, as a new version.
    ///
    /// # Errors
    /// The actor may not, there is no such version, or the memory cannot be edited.
    pub fn restore(
        &self,
        actor: &Actor,
        id: ItemId,
        version: u64,
        expected_version: Option<u64>,
        reason: Option<&str>,
    ) -> Result<Item, MemoriesError> {
        let text = self.read(|reader| {
            // Asked first: the text of what the actor may not write must not even reach the embedder.
            self.permit_item(reader, actor, Action::WriteItems, id)?;
            Ok(reader.version(id, version)?.map(|version| version.item.text))
        })?;
        let vector = match &text {
            Some(text) => self.embed(&[text], Purpose::Passage)?.and_then(|mut vectors| vectors.pop()),
            None => None,
        };
        self.change_item(actor, Action::WriteItems, id, ("item.restore", reason), |tx, by| {
            let item = tx.restore(id, expected_version, version, by)?;
            if let (Some(vector), Some(embedder)) = (vector, self.shared().embedder()) {
                tx.put_vector(id, item.version, embedder.id().as_str(), &vector)?;
            }
            Ok(item)
        })
    }

    /// Sets or lifts a legal hold.
    ///
    /// # Errors
    /// The actor may not, or the memory is unknown.
    pub fn hold(&self, actor: &Actor, id: ItemId, hold: Hold, reason: Option<&str>) -> Result<Item, MemoriesError> {
        let action = match hold {
            Hold::Set => "item.hold",
            Hold::Lift => "item.release",
        };
        self.change_item(actor, Action::HoldItems, id, (action, reason), |tx, by| {
            Ok(match hold {
                Hold::Set => tx.set_legal_hold(id, by)?,
                Hold::Lift => tx.lift_legal_hold(id, by)?,
            })
        })
    }

    /// Merges memories into a new one that says what they said. The actor must be allowed to write each of them.
    ///
    /// # Errors
    /// The actor may not, a memory cannot be merged, or the new one is out of bounds.
    pub fn merge(
        &self,
        actor: &Actor,
        parents: &[ItemId],
        into: NewItem,
        reason: Option<&str>,
    ) -> Result<Item, MemoriesError> {
        let vector = self.embed(&[&into.text], Purpose::Passage)?.and_then(|mut vectors| vectors.pop());
        let name = actor.to_string();
        self.change(actor, |tx| {
            for &parent in parents {
                let (allowed, _item) = self.permit_item(tx, actor, Action::WriteItems, parent)?;
                if !allowed.access().allows_new(&into.scope) {
                    let (action, what) = (Action::WriteItems.as_str(), "scope");
                    return Err(GovernanceError::Forbidden { action, what }.into());
                }
            }
            let item = tx.merge(parents, into, By { actor: &name, reason })?;
            if let (Some(vector), Some(embedder)) = (&vector, self.shared().embedder()) {
                tx.put_vector(item.id, item.version, embedder.id().as_str(), vector)?;
            }
            let objects = [item.id].into_iter().chain(parents.iter().copied()).collect();
            Ok((item, Entry { action: "item.merge", objects, reason, details: None }))
        })
    }

    /// Undoes a merge: what was merged comes back as it was, the merged memory is archived.
    ///
    /// # Errors
    /// The actor may not, or the memory is not one that a merge made.
    pub fn unmerge(&self, actor: &Actor, id: ItemId, reason: Option<&str>) -> Result<Unmerged, MemoriesError> {
        self.change_item(actor, Action::WriteItems, id, ("item.unmerge", reason), |tx, by| Ok(tx.unmerge(id, by)?))
    }

    /// Blacks out what the redactor finds in a memory, in every version of it, and erases the old text from the
    /// file; where that fails now, housekeeping does it.
    ///
    /// # Errors
    /// The actor may not, or the memory is held.
    pub fn redact(&self, actor: &Actor, id: ItemId, reason: Option<&str>) -> Result<Redacted, MemoriesError> {
        let redactor = self.shared().redactor_for_requests();
        let redacted = self.change_item(actor, Action::RedactItems, id, ("item.redact", reason), |tx, by| {
            Ok(tx.redact_each(id, &|text| redactor.redact(text).0, by)?)
        })?;
        // Done and recorded: a file that cannot be rewritten now is rewritten by housekeeping.
        let _ = self.purge_everywhere();
        Ok(redacted)
    }

    /// Shares a memory or the cube.
    ///
    /// # Errors
    /// The actor may not share it, or not that far.
    pub fn share(&self, actor: &Actor, share: Share, reason: Option<&str>) -> Result<Grant, MemoriesError> {
        self.change(actor, |tx| {
            let (allowed, object) = match share.item {
                None => (self.permit_in(tx, actor, Action::ShareItems)?, GrantObject::Cube),
                Some(id) => {
                    let (allowed, item) = self.permit_item(tx, actor, Action::ShareItems, id)?;
                    (allowed, GrantObject::Item { id, scope: item.scope })
                }
            };
            let Share { subject, right, expires_at, .. } = share;
            let new = NewGrant { object, subject, right, expires_at };
            let grant = grants::grant(tx.connection(), &allowed, actor, &new, self.now())?;
            let details =
                json!({ "grant": grant.id, "subject": grant.subject.to_string(), "right": grant.right.as_str() });
            let objects = share.item.into_iter().collect();
            Ok((grant, Entry { action: "share.grant", objects, reason, details: Some(details) }))
        })
    }

    /// Takes a grant back, and with it those that were given because of it.
    ///
    /// # Errors
    /// There is no such grant for this actor, or it may not be taken back by this actor.
    pub fn unshare(&self, actor: &Actor, id: GrantId, reason: Option<&str>) -> Result<Vec<GrantId>, MemoriesError> {
        self.change(actor, |tx| {
            let revoked = grants::revoke(tx.connection(), self.reference(), actor, id, self.now())?;
            let details = Some(json!({ "grants": revoked }));
            Ok((revoked, Entry { action: "share.revoke", objects: Vec::new(), reason, details }))
        })
    }

    /// The grants of the cube, or of one memory.
    ///
    /// # Errors
    /// The actor may not share here.
    pub fn grants(
        &self,
        actor: &Actor,
        item: Option<ItemId>,
        after: Option<GrantId>,
        limit: usize,
    ) -> Result<Vec<Grant>, MemoriesError> {
        self.read(|reader| {
            match item {
                None => self.permit_in(reader, actor, Action::ShareItems).map(|_allowed| ())?,
                Some(id) => self.permit_item(reader, actor, Action::ShareItems, id).map(|_allowed| ())?,
            }
            Ok(grants::list(reader.connection(), &self.reference().id, item.as_ref(), after, limit)?)
        })
    }

    /// Asks the policy about one memory, whose stored scope decides. A memory that is not there and one that the actor
    /// may not know of are answered alike.
    pub(super) fn permit_item(
        &self,
        reader: &Reader<'_>,
        actor: &Actor,
        action: Action,
        id: ItemId,
    ) -> Result<(Allowed, Item), MemoriesError> {
        let Some(item) = reader.get(id)? else { return Err(MemoriesError::no_memory(id)) };
        let grants = GrantSet::load(reader.connection(), self.reference(), actor, self.now())?;
        let stored = (&item.id, &item.scope);
        match self.shared().policy.decide_item(actor, action, self.reference(), &grants, stored)? {
            Decision::Allowed(allowed) => Ok((*allowed, item)),
            Decision::Denied(denied) => match denied.into_error("memory") {
                GovernanceError::NotFound { .. } => Err(MemoriesError::no_memory(id)),
                error => Err(error.into()),
            },
        }
    }

    fn change_item<T>(
        &self,
        actor: &Actor,
        action: Action,
        id: ItemId,
        (name, reason): (&'static str, Option<&str>),
        change: impl FnOnce(&WriteTransaction<'_>, By<'_>) -> Result<T, MemoriesError>,
    ) -> Result<T, MemoriesError> {
        let by = actor.to_string();
        self.change(actor, |tx| {
            self.permit_item(tx, actor, action, id)?;
            let value = change(tx, By { actor: &by, reason })?;
            Ok((value, Entry { action: name, objects: vec![id], reason, details: None }))
        })
    }

    /// Records the reading of somebody else's memories.
    pub(super) fn note_read(
        &self,
        actor: &Actor,
        action: &'static str,
        mut objects: Vec<ItemId>,
    ) -> Result<(), MemoriesError> {
        if !self.is_foreign_to(actor) {
            return Ok(());
        }
        objects.truncate(crate::governance::audit::NUM_OBJECTS_MAX);
        let entry = Entry { action, objects, reason: None, details: None };
        self.record_read(self.event(actor, entry, Outcome::Allowed))
    }
}

/// Whether a legal hold is set or lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// From now on nothing changes.
    Set,
    /// It may change again.
    Lift,
}

/// The permission as a part of the query.
pub(super) fn restriction(allowed: &Allowed, now: Timestamp) -> Restriction {
    let columns = ItemColumns { id: "item.id", user: "item.scope_user", agent: "item.scope_agent" };
    let condition = allowed.access().sql(columns, 1, now);
    Restriction { condition: condition.sql, values: condition.params }
}
