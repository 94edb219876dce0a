//! The policy: may this actor do this with this cube? Default deny, decided by Cedar from a built-in set and, where an
//! operator wrote some, further policies. Whatever an operator permits, no tenant reaches another's cube without a
//! grant and no reader's key writes: the built-in set forbids that, and in Cedar a forbid always wins.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression,
};

use super::access::{CubeRef, Extent, ItemAccess};
use super::actor::Actor;
use super::error::{GovernanceError, cut};
use super::grants::GrantSet;
use super::policy_text::{self, BUILTIN_POLICIES};
use super::rights::{Right, RightSet};
use crate::item::Scope;
use crate::{ItemId, MemoryError};

/// What can be done with a cube and its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Get, list, search and recall items, and see their history.
    ReadItems,
    /// Add, edit, transition, merge and restore items.
    WriteItems,
    /// Give rights to others.
    ShareItems,
    /// Erase items for good.
    EraseItems,
    /// Black out parts of a text for good.
    RedactItems,
    /// Set and lift a legal hold.
    HoldItems,
    /// Pack, snapshot or export the cube.
    ExportCube,
    /// Give out everything held about a subject.
    ExportSubject,
    /// Make a cube.
    CreateCube,
    /// Mount or unmount the cube.
    MountCube,
    /// Rename the cube, change its rules, or delete it.
    ManageCube,
    /// Read and verify the audit log.
    ReadAudit,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 12] = [
        Self::ReadItems,
        Self::WriteItems,
        Self::ShareItems,
        Self::EraseItems,
        Self::RedactItems,
        Self::HoldItems,
        Self::ExportCube,
        Self::ExportSubject,
        Self::CreateCube,
        Self::MountCube,
        Self::ManageCube,
        Self::ReadAudit,
    ];

    /// The right that a grant must give for it. The only place that knows: the schema of the policies follows it.
    pub fn required_right(self) -> Right {
        match self {
            Self::ReadItems => Right::Read,
            Self::WriteItems => Right::Write,
            Self::ShareItems => Right::Share,
            // What cannot be taken back, or concerns the cube as a whole, takes more than the right to write.
            Self::EraseItems
            | Self::RedactItems
            | Self::HoldItems
            | Self::ExportCube
            | Self::ExportSubject
            | Self::CreateCube
            | Self::MountCube
            | Self::ManageCube
            | Self::ReadAudit => Right::Admin,
        }
    }

    /// The name in policies and in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadItems => "ReadItems",
            Self::WriteItems => "WriteItems",
            Self::ShareItems => "ShareItems",
            Self::EraseItems => "EraseItems",
            Self::RedactItems => "RedactItems",
            Self::HoldItems => "HoldItems",
            Self::ExportCube => "ExportCube",
            Self::ExportSubject => "ExportSubject",
            Self::CreateCube => "CreateCube",
            Self::MountCube => "MountCube",
            Self::ManageCube => "ManageCube",
            Self::ReadAudit => "ReadAudit",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for Action {
    type Err = MemoryError;

    fn from_str(name: &str) -> Result<Self, MemoryError> {
        let known = Self::ALL.into_iter().find(|action| action.as_str() == name);
        known.ok_or_else(|| MemoryError::UnknownName {
            what: "an action",
            name: cut(name),
            known: "ReadItems, WriteItems, ShareItems, EraseItems, RedactItems, HoldItems, ExportCube, ExportSubject, \
                    CreateCube, MountCube, ManageCube, ReadAudit",
        })
    }
}

/// A permission that was decided. Only [`PolicyEngine::decide`] makes one, so to hold it is to have asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    actor: Actor,
    action: Action,
    cube: CubeRef,
    access: ItemAccess,
    policies: Vec<String>,
}

impl Allowed {
    /// Who may.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Do what.
    pub fn action(&self) -> Action {
        self.action
    }

    /// With which cube.
    pub fn cube(&self) -> &CubeRef {
        &self.cube
    }

    /// And which of its items.
    pub fn access(&self) -> &ItemAccess {
        &self.access
    }

    /// Ids of the policies that decided, for the audit.
    pub fn policies(&self) -> &[String] {
        &self.policies
    }
}

/// A refusal, and how it is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// What the caller is told.
    pub answer: DeniedAnswer,
    /// What was tried.
    pub action: Action,
    /// Ids of the policies that decided: none where nothing permitted it.
    pub policies: Vec<String>,
}

/// What a refused caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeniedAnswer {
    /// The caller may not even read it, so the answer is that of an id which does not exist.
    NotFound,
    /// The caller may read it, but not do this.
    Forbidden,
}

impl Denied {
    /// The error for the caller. `what` is what an unknown id of this kind is called: `cube`, `memory`.
    pub fn into_error(self, what: &'static str) -> GovernanceError {
        match self.answer {
            DeniedAnswer::NotFound => GovernanceError::NotFound { what },
            DeniedAnswer::Forbidden => GovernanceError::Forbidden { action: self.action.as_str(), what },
        }
    }
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be done, with the items that [`Allowed::access`] reaches.
    Allowed(Box<Allowed>),
    /// It may not.
    Denied(Denied),
}

impl Decision {
    /// The permission, or the error for the caller.
    ///
    /// # Errors
    /// It was denied.
    pub fn or_refuse(self, what: &'static str) -> Result<Allowed, GovernanceError> {
        match self {
            Self::Allowed(allowed) => Ok(*allowed),
            Self::Denied(denied) => Err(denied.into_error(what)),
        }
    }
}

/// The policies, parsed and checked once; decides without locks.
#[derive(Debug)]
pub struct PolicyEngine {
    authorizer: Authorizer,
    policies: PolicySet,
    types: EntityTypes,
}

/// The names of the types in the schema, parsed once.
#[derive(Debug)]
struct EntityTypes {
    actor: EntityTypeName,
    cube: EntityTypeName,
    action: EntityTypeName,
}

impl EntityTypes {
    fn new() -> Self {
        let parse = |name: &str| name.parse().expect("a type name of the schema parses: this is a bug");
        Self { actor: parse("Actor"), cube: parse("Cube"), action: parse("Action") }
    }
}

/// Cedar's answer to one question.
struct Verdict {
    allowed: bool,
    policies: Vec<String>,
}

impl PolicyEngine {
    /// The built-in policies alone.
    pub fn builtin() -> Self {
        let policies = BUILTIN_POLICIES.parse().expect("the built-in policies parse: this is a bug");
        let policies = policy_text::name_policies(&policies, "builtin").expect("their ids differ: this is a bug");
        Self { authorizer: Authorizer::new(), policies, types: EntityTypes::new() }
    }

    /// The built-in policies and those of an operator's text, in Cedar's language and checked against
    /// [`policy_text::schema_text`].
    ///
    /// # Errors
    /// The text is too long, does not parse, or does not fit the schema; the error names the line.
    pub fn with_operator_policies(text: &str) -> Result<Self, GovernanceError> {
        let mut engine = Self::builtin();
        for policy in policy_text::parse_operator_policies(text)?.policies() {
            let engine_error = |reason: String| GovernanceError::PolicyEngine { reason };
            engine.policies.add(policy.clone()).map_err(|error| engine_error(error.to_string()))?;
        }
        Ok(engine)
    }

    /// Decides about an action on a cube. The grants are the actor's in this cube.
    ///
    /// # Errors
    /// Cedar could not take the request: nothing may be done then.
    pub fn decide(
        &self,
        actor: &Actor,
        action: Action,
        cube: &CubeRef,
        grants: &GrantSet,
    ) -> Result<Decision, GovernanceError> {
        let whole = self.ask(actor, action, cube, grants.on_cube())?;
        let on_items = grants.on_some_item();
        let (verdict, extent) = if !whole.allowed && on_items.contains(action.required_right()) {
            (self.ask(actor, action, cube, grants.on_cube().union(on_items))?, Extent::GrantedItems)
        } else {
            (whole, Extent::Cube)
        };
        if verdict.allowed {
            let access = ItemAccess::new(actor, cube, action.required_right(), extent, grants.clone());
            return Ok(Decision::Allowed(Box::new(Allowed {
                actor: actor.clone(),
                action,
                cube: cube.clone(),
                access,
                policies: verdict.policies,
            })));
        }
        let readable = action != Action::ReadItems
            && self.ask(actor, Action::ReadItems, cube, grants.on_cube().union(on_items))?.allowed;
        let answer = if readable { DeniedAnswer::Forbidden } else { DeniedAnswer::NotFound };
        Ok(Decision::Denied(Denied { answer, action, policies: verdict.policies }))
    }

    /// Decides about an action on one item, whose stored scope is given.
    ///
    /// # Errors
    /// Cedar could not take the request: nothing may be done then.
    pub fn decide_item(
        &self,
        actor: &Actor,
        action: Action,
        cube: &CubeRef,
        grants: &GrantSet,
        (item, scope): (&ItemId, &Scope),
    ) -> Result<Decision, GovernanceError> {
        let policies = match self.decide(actor, action, cube, grants)? {
            Decision::Allowed(allowed) if allowed.access.allows(item, scope) => return Ok(Decision::Allowed(allowed)),
            Decision::Allowed(_) => Vec::new(),
            Decision::Denied(denied) => denied.policies,
        };
        let reading = self.decide(actor, Action::ReadItems, cube, grants)?;
        let readable = matches!(reading, Decision::Allowed(allowed) if allowed.access.allows(item, scope));
        let answer = if readable { DeniedAnswer::Forbidden } else { DeniedAnswer::NotFound };
        Ok(Decision::Denied(Denied { answer, action, policies }))
    }

    fn ask(
        &self,
        actor: &Actor,
        action: Action,
        cube: &CubeRef,
        granted: RightSet,
    ) -> Result<Verdict, GovernanceError> {
        let engine_error = |reason: String| GovernanceError::PolicyEngine { reason };
        let principal = uid(&self.types.actor, &actor.to_string());
        let resource = uid(&self.types.cube, &cube.id.to_string());
        let action_uid = uid(&self.types.action, action.as_str());
        let group = uid(&self.types.action, action.required_right().as_str());
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let mut attributes = HashMap::from([
            ("tenant".to_owned(), text(actor.tenant().as_str())),
            ("role".to_owned(), text(actor.role().as_str())),
        ]);
        attributes.extend(actor.user().map(|user| ("user".to_owned(), text(user))));
        attributes.extend(actor.agent().map(|agent| ("agent".to_owned(), text(agent))));
        let cube_attributes =
            HashMap::from([("owner".to_owned(), text(cube.owner.as_str())), ("name".to_owned(), text(&cube.name))]);
        let entity = |uid: &EntityUid, attributes| {
            Entity::new(uid.clone(), attributes, HashSet::new()).map_err(|error| engine_error(error.to_string()))
        };
        let entities = [
            entity(&principal, attributes)?,
            entity(&resource, cube_attributes)?,
            Entity::new_no_attrs(action_uid.clone(), HashSet::from([group])),
        ];
        let entities = Entities::from_entities(entities, None).map_err(|error| engine_error(error.to_string()))?;
        let granted = RestrictedExpression::new_set(granted.iter().map(|right| text(right.as_str())));
        let context =
            Context::from_pairs([("granted".to_owned(), granted)]).map_err(|error| engine_error(error.to_string()))?;
        let request = Request::new(principal, action_uid, resource, context, None)
            .map_err(|error| engine_error(error.to_string()))?;
        let response = self.authorizer.is_authorized(&request, &self.policies, &entities);
        let mut policies: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        policies.sort();
        // Cedar leaves out a policy that fails; were it a forbid, leaving it out would open the door.
        let failed = response.diagnostics().errors().next().is_some();
        Ok(Verdict { allowed: response.decision() == cedar_policy::Decision::Allow && !failed, policies })
    }
}

fn uid(type_name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(type_name.clone(), EntityId::new(id))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
