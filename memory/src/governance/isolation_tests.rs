//! Tenant isolation: random grants, revocations and queries of random actors, against a model that knows nothing of
//! rows, policies or conditions but only the sentences that they stand for.

use rusqlite::{Connection, params, params_from_iter};

use super::access::ItemColumns;
use super::grants::{self, Grant, GrantId, GrantObject, NewGrant};
use super::policy::DeniedAnswer;
use super::*;
use crate::item::Scope;
use crate::{CubeId, ItemId, Timestamp};

const COLUMNS: ItemColumns = ItemColumns { id: "items.id", user: "items.user_name", agent: "items.agent_name" };

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("small")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

struct World {
    conn: Connection,
    engine: PolicyEngine,
    cubes: Vec<CubeRef>,
    items: Vec<(CubeId, ItemId, Scope)>,
    actors: Vec<Actor>,
    subjects: Vec<Subject>,
    now: i64,
}

impl World {
    fn new() -> Self {
        let conn = Connection::open_in_memory().expect("SQLite");
        conn.execute_batch(grants::SCHEMA).expect("schema");
        conn.execute_batch(grants::SCHEMA).expect("schema again");
        conn.execute_batch("CREATE TABLE items (cube BLOB, id BLOB, user_name TEXT, agent_name TEXT)").expect("items");
        let tenant = |name: &str| name.parse::<TenantName>().expect("a tenant");
        let mut world = Self {
            conn,
            engine: PolicyEngine::builtin(),
            cubes: Vec::new(),
            items: Vec::new(),
            actors: Vec::new(),
            subjects: Vec::new(),
            now: 1_000,
        };
        for owner in ["acme", "acme", "beta"] {
            world.cubes.push(CubeRef { id: CubeId::new(), name: "cube".to_owned(), owner: tenant(owner) });
        }
        for cube in &world.cubes {
            for (user, agent) in [
                (None, None),
                (Some("ann"), None),
                (Some("bob"), None),
                (None, Some("bot")),
                (Some("ann"), Some("bot")),
            ] {
                let owned = |name: Option<&str>| name.map(str::to_owned);
                let scope = Scope { user: owned(user), agent: owned(agent), session: None };
                let id = ItemId::new();
                world
                    .conn
                    .execute(
                        "INSERT INTO items VALUES (?1, ?2, ?3, ?4)",
                        params![&cube.id.as_bytes()[..], &id.as_bytes()[..], user, agent],
                    )
                    .expect("insert");
                world.items.push((cube.id, id, scope));
            }
        }
        for name in ["acme", "beta", "gamma"] {
            world.subjects.push(Subject::Tenant(tenant(name)));
            world.subjects.push(Subject::user(tenant(name), "ann").expect("a name"));
            world.subjects.push(Subject::agent(tenant(name), "bot").expect("a name"));
            for role in [Role::Admin, Role::User, Role::Reader] {
                for (user, agent) in [(None, None), (Some("ann"), None), (Some("bob"), Some("bot"))] {
                    let identity = Identity { tenant: tenant(name), role };
                    world.actors.push(Actor::new(identity, user, agent).expect("names"));
                }
            }
        }
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.now).expect("a moment")
    }

    fn in_force(&self, cube: &CubeId) -> Vec<Grant> {
        let all = grants::list(&self.conn, cube, None, None, 1_000).expect("list");
        let now = self.now();
        all.into_iter().filter(|one| one.revoked_at.is_none() && one.expires_at.is_none_or(|end| end > now)).collect()
    }

    /// The sentences: a reader's key only reads. An admin of the owner may do all, a user reads and writes, a reader
    /// reads, each on what the asserted names reach. A grant gives its right, and what that includes, on its object.
    fn holds(&self, actor: &Actor, cube: &CubeRef, item: Option<(&ItemId, &Scope)>, wanted: Right) -> bool {
        if actor.role() == Role::Reader && wanted != Right::Read {
            return false;
        }
        let by_role = actor.role() == Role::Admin || wanted == Right::Read || wanted == Right::Write;
        let reached = match item {
            None => actor.user().is_none() && actor.agent().is_none(),
            Some((_, scope)) => {
                let user_fits = actor.user().is_none() || scope.user.is_none() || scope.user.as_deref() == actor.user();
                let agent_fits =
                    actor.agent().is_none() || scope.agent.is_none() || scope.agent.as_deref() == actor.agent();
                user_fits && agent_fits
            }
        };
        if *actor.tenant() == cube.owner && by_role && reached {
            return true;
        }
        self.in_force(&cube.id).iter().any(|one| self.gives(one, actor, item.map(|(id, _)| id), wanted))
    }

    fn gives(&self, one: &Grant, actor: &Actor, item: Option<&ItemId>, wanted: Right) -> bool {
        let tenant = actor.tenant().to_string();
        let mut names = vec![tenant.clone()];
        names.extend(actor.user().map(|user| format!("{tenant}/user:{user}")));
        names.extend(actor.agent().map(|agent| format!("{tenant}/agent:{agent}")));
        let includes = one.right == Right::Admin || one.right == wanted || wanted == Right::Read;
        names.contains(&one.subject.to_string()) && includes && (one.item.is_none() || one.item.as_ref() == item)
    }

    fn give(&mut self, random: &mut Random) {
        let cube = random.pick(&self.cubes).clone();
        // Owners give often, so that there is something to pass on.
        let is_owners = |actor: &&Actor| actor.tenant() == &cube.owner && actor.role() == Role::Admin;
        let owners: Vec<Actor> = self.actors.iter().filter(is_owners).cloned().collect();
        let givers = if random.below(3) == 0 { &owners } else { &self.actors };
        let giver = random.pick(givers).clone();
        let items: Vec<_> = self.items.iter().filter(|(of, _, _)| *of == cube.id).cloned().collect();
        let object = match random.below(3) {
            0 => GrantObject::Cube,
            _ => {
                let (_, id, scope) = random.pick(&items).clone();
                GrantObject::Item { id, scope }
            }
        };
        let expires_at = match random.below(3) {
            0 => None,
            _ => Timestamp::from_unix_ms(self.now - 5 + random.below(60) as i64),
        };
        let new = NewGrant {
            object: object.clone(),
            subject: random.pick(&self.subjects).clone(),
            right: *random.pick(&Right::ALL),
            expires_at,
        };
        let item = match &object {
            GrantObject::Cube => None,
            GrantObject::Item { id, scope } => Some((id, scope)),
        };
        let may = self.holds(&giver, &cube, item, Right::Share) && self.holds(&giver, &cube, item, new.right);
        let set = GrantSet::load(&self.conn, &cube, &giver, self.now()).expect("grants");
        let decision = self.engine.decide(&giver, Action::ShareItems, &cube, &set).expect("a decision");
        let Ok(permission) = decision.or_refuse("cube") else {
            assert!(!may, "{giver} was refused to share {object:?}");
            return;
        };
        match grants::grant(&self.conn, &permission, &giver, &new, self.now()) {
            Ok(given) => {
                assert!(may, "{giver} gave {new:?} without holding it");
                assert!(given.expires_at.is_none_or(|end| end > self.now()));
            }
            Err(GovernanceError::GrantExpiry { .. }) => {
                assert!(may && expires_at.is_some(), "{giver} {new:?}");
            }
            Err(error) => assert!(!may, "{giver} {new:?}: {error}"),
        }
    }

    fn take_back(&mut self, random: &mut Random) {
        let cube = random.pick(&self.cubes).clone();
        let before = self.in_force(&cube.id);
        if before.is_empty() {
            return;
        }
        let one = random.pick(&before).clone();
        let actor = random.pick(&self.actors).clone();
        let is_owner = self.holds(&actor, &cube, None, Right::Admin);
        let on_item = one.item.is_some_and(|item| {
            before.iter().any(|held| self.gives(held, &actor, Some(&item), Right::Admin))
                && actor.role() != Role::Reader
        });
        let may = one.granted_by == actor.to_string() || is_owner || on_item;
        match grants::revoke(&self.conn, &cube, &actor, one.id, self.now()) {
            Ok(ended) => {
                assert!(may, "{actor} took back {one:?}");
                assert!(ended.contains(&one.id));
                let after: Vec<GrantId> = self.in_force(&cube.id).iter().map(|left| left.id).collect();
                assert!(ended.iter().all(|id| !after.contains(id)));
            }
            Err(error) => assert!(!may, "{actor} {one:?}: {error}"),
        }
    }

    /// Every grant in force that was not given by the owner's role hangs on grants in force that last as long.
    fn check_chains(&self) {
        for cube in &self.cubes {
            let in_force = self.in_force(&cube.id);
            for one in &in_force {
                let parents: Vec<i64> = self
                    .conn
                    .prepare("SELECT parent FROM grant_parents WHERE child = ?1")
                    .and_then(|mut rows| rows.query_map([one.id.0], |row| row.get(0))?.collect())
                    .expect("parents");
                let is_owners = one.granted_by.split('/').next() == Some(cube.owner.as_str());
                assert!(is_owners || !parents.is_empty(), "{one:?} hangs on nothing");
                for parent in parents {
                    let parent = in_force.iter().find(|held| held.id.0 == parent);
                    let parent = parent.unwrap_or_else(|| panic!("{one:?} outlives what it was given on"));
                    let lasts = |end: Option<Timestamp>| end.map_or(i64::MAX, Timestamp::unix_ms);
                    assert!(lasts(parent.expires_at) >= lasts(one.expires_at));
                }
            }
        }
    }

    /// What an actor may read or write, by three ways that must agree: the model, the filter in memory, the query.
    fn check_queries(&self, random: &mut Random) {
        let (cube, actor) = (random.pick(&self.cubes), random.pick(&self.actors));
        let set = GrantSet::load(&self.conn, cube, actor, self.now()).expect("grants");
        for (action, right) in [(Action::ReadItems, Right::Read), (Action::WriteItems, Right::Write)] {
            let items: Vec<_> = self.items.iter().filter(|(of, _, _)| *of == cube.id).collect();
            let expected: Vec<ItemId> = items
                .iter()
                .filter(|(_, id, scope)| self.holds(actor, cube, Some((id, scope)), right))
                .map(|(_, id, _)| *id)
                .collect();
            match self.engine.decide(actor, action, cube, &set).expect("a decision") {
                Decision::Allowed(allowed) => {
                    let in_memory: Vec<ItemId> = items
                        .iter()
                        .filter(|(_, id, scope)| allowed.access().allows(id, scope))
                        .map(|(_, id, _)| *id)
                        .collect();
                    assert_eq!(in_memory, expected, "{actor} {action}");
                    assert_eq!(self.query(cube, &allowed), expected, "{actor} {action} in SQL");
                    let whole = self.holds(actor, cube, None, right);
                    assert_eq!(allowed.access().is_whole_cube(), whole, "{actor} {action}");
                }
                Decision::Denied(_) => assert!(expected.is_empty(), "{actor} {action} was refused {expected:?}"),
            }
            for (of, id, scope) in &self.items {
                let decision = self.engine.decide_item(actor, action, cube, &set, (id, scope)).expect("a decision");
                if *of != cube.id {
                    continue;
                }
                match decision {
                    Decision::Allowed(_) => assert!(expected.contains(id), "{actor} {action} {id}"),
                    Decision::Denied(denied) => {
                        assert!(!expected.contains(id), "{actor} {action} {id}");
                        let readable = self.holds(actor, cube, Some((id, scope)), Right::Read);
                        assert_eq!(denied.answer == DeniedAnswer::Forbidden, readable, "{actor} {action} {id}");
                    }
                }
            }
        }
    }

    fn query(&self, cube: &CubeRef, allowed: &Allowed) -> Vec<ItemId> {
        let condition = allowed.access().sql(COLUMNS, 2, self.now());
        let sql = format!("SELECT id FROM items WHERE cube = ?1 AND {} ORDER BY rowid", condition.sql);
        let mut params = vec![rusqlite::types::Value::Blob(cube.id.as_bytes().to_vec())];
        params.extend(condition.params);
        let mut statement = self.conn.prepare(&sql).expect("the condition is SQL");
        let rows = statement.query_map(params_from_iter(params), |row| row.get(0)).expect("it runs");
        rows.map(|id| ItemId::from_bytes(id.expect("an id"))).collect()
    }
}

#[test]
fn random_grants_and_queries_agree_with_the_model() {
    for seed in 1..=12_u64 {
        println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new();
        for step in 0..300 {
            match random.below(10) {
                0..=5 => world.give(&mut random),
                6 => world.take_back(&mut random),
                _ => world.now += random.below(8) as i64,
            }
            if step % 3 == 0 {
                world.check_chains();
                world.check_queries(&mut random);
            }
        }
        let num_given: i64 = world.conn.query_row("SELECT count(*) FROM grants", [], |row| row.get(0)).expect("count");
        assert!(num_given > 10, "seed {seed} gave {num_given} grants only, so it shows nothing");
    }
}

#[test]
fn a_condition_that_was_made_before_a_revocation_does_not_outlive_it() {
    let mut world = World::new();
    let (cube, beta) = (world.cubes[0].clone(), world.actors[9].clone());
    assert_eq!(beta.to_string(), "beta");
    let (_, id, scope) = world.items[1].clone();
    let owner = world.actors[0].clone();
    let given = give_item(&world, &cube, &owner, (&id, &scope), Subject::Tenant(beta.tenant().clone()), None);
    let set = GrantSet::load(&world.conn, &cube, &beta, world.now()).expect("grants");
    let decision = world.engine.decide(&beta, Action::ReadItems, &cube, &set).expect("a decision");
    let allowed = decision.or_refuse("cube").expect("one item was granted");
    assert_eq!(world.query(&cube, &allowed), [id]);
    let stranger = world.actors[18].clone();
    let error = grants::revoke(&world.conn, &cube, &stranger, given, world.now()).expect_err("a stranger");
    assert!(matches!(error, GovernanceError::NotFound { .. }), "{error}");
    let error = grants::revoke(&world.conn, &cube, &stranger, GrantId(999), world.now()).expect_err("no such grant");
    assert!(matches!(error, GovernanceError::NotFound { .. }), "{error}");
    let error =
        grants::revoke(&world.conn, &cube, &beta, given, world.now()).expect_err("it was given to beta, not by it");
    assert!(matches!(error, GovernanceError::Forbidden { .. }), "{error}");
    assert_eq!(grants::revoke(&world.conn, &cube, &owner, given, world.now()).expect("the giver"), [given]);
    assert!(world.query(&cube, &allowed).is_empty(), "the query looks at the rows");
    assert!(grants::revoke(&world.conn, &cube, &owner, given, world.now()).expect("again").is_empty());

    let until = Timestamp::from_unix_ms(world.now + 10).expect("a moment");
    give_item(&world, &cube, &owner, (&id, &scope), Subject::Tenant(beta.tenant().clone()), Some(until));
    let set = GrantSet::load(&world.conn, &cube, &beta, world.now()).expect("grants");
    assert_eq!(set.valid_until(), Some(until));
    assert_eq!(world.query(&cube, &allowed), [id]);
    world.now += 10;
    assert!(world.query(&cube, &allowed).is_empty(), "it has ended");
}

#[test]
fn a_chain_of_grants_ends_with_its_first_and_erasure_leaves_no_name() {
    let world = World::new();
    let cube = world.cubes[0].clone();
    let (owner, beta, beta_ann) = (world.actors[0].clone(), world.actors[9].clone(), world.actors[10].clone());
    let (_, id, scope) = world.items[0].clone();
    let gamma = Subject::Tenant("gamma".parse().expect("a tenant"));
    let to_ann = Subject::user(beta.tenant().clone(), "ann").expect("a name");
    let first = give_item_right(&world, &cube, &owner, (&id, &scope), to_ann.clone(), (Right::Share, None));
    let second = give_item_right(&world, &cube, &beta_ann, (&id, &scope), gamma.clone(), (Right::Share, None));
    let again = give_item_right(&world, &cube, &beta_ann, (&id, &scope), gamma, (Right::Share, None));
    assert_eq!(second, again, "the same grant is given once");
    let gamma_actor = world.actors[18].clone();
    let third = give_item_right(
        &world,
        &cube,
        &gamma_actor,
        (&id, &scope),
        Subject::Tenant(beta.tenant().clone()),
        (Right::Read, None),
    );
    assert_eq!(grants::list_about(&world.conn, &cube.id, &to_ann, None).expect("list").len(), 2);
    let mut ended = grants::revoke(&world.conn, &cube, &owner, first, world.now()).expect("revoke");
    ended.sort();
    assert_eq!(ended, [first, second, third]);

    grants::erase_subject(&world.conn, &cube.id, &to_ann, &owner, world.now()).expect("erase");
    let left = grants::list(&world.conn, &cube.id, None, None, 100).expect("list");
    assert!(left.iter().all(|one| !format!("{one:?}").contains("ann")), "{left:?}");
    assert_eq!(grants::erase_for_item(&world.conn, &cube.id, &id).expect("erase"), left.len());
    let num_links: i64 =
        world.conn.query_row("SELECT count(*) FROM grant_parents", [], |row| row.get(0)).expect("count");
    assert_eq!(num_links, 0);
}

#[test]
fn an_operator_who_lets_users_share_lets_them_share_what_is_theirs() {
    let mut world = World::new();
    let text = "permit (principal, action == Action::\"ShareItems\", resource) when { principal.role == \"user\" };";
    world.engine = PolicyEngine::with_operator_policies(text).expect("it fits");
    let cube = world.cubes[0].clone();
    let ann = world.actors[4].clone();
    assert_eq!((ann.to_string(), ann.role()), ("acme/user:ann".to_owned(), Role::User));
    let gamma = Subject::Tenant("gamma".parse().expect("a tenant"));
    let attempt = |object: GrantObject, right: Right| {
        let set = GrantSet::load(&world.conn, &cube, &ann, world.now()).expect("grants");
        let decision = world.engine.decide(&ann, Action::ShareItems, &cube, &set).expect("a decision");
        let permission = decision.or_refuse("cube").expect("the operator's policy");
        let new = NewGrant { object, subject: gamma.clone(), right, expires_at: None };
        grants::grant(&world.conn, &permission, &ann, &new, world.now()).is_ok()
    };
    let item = |index: usize| {
        let (_, id, scope) = world.items[index].clone();
        GrantObject::Item { id, scope }
    };
    assert!(attempt(item(1), Right::Read) && attempt(item(0), Right::Write), "her own, and nobody's in particular");
    assert!(!attempt(item(2), Right::Read), "bob's");
    assert!(!attempt(item(1), Right::Share) && !attempt(item(1), Right::Admin), "more than she holds");
    assert!(!attempt(GrantObject::Cube, Right::Read), "the whole cube is more than she sees");
}

fn give_item(
    world: &World,
    cube: &CubeRef,
    giver: &Actor,
    item: (&ItemId, &Scope),
    subject: Subject,
    until: Option<Timestamp>,
) -> GrantId {
    give_item_right(world, cube, giver, item, subject, (Right::Read, until))
}

fn give_item_right(
    world: &World,
    cube: &CubeRef,
    giver: &Actor,
    (id, scope): (&ItemId, &Scope),
    subject: Subject,
    (right, expires_at): (Right, Option<Timestamp>),
) -> GrantId {
    let set = GrantSet::load(&world.conn, cube, giver, world.now()).expect("grants");
    let decision = world.engine.decide(giver, Action::ShareItems, cube, &set).expect("a decision");
    let permission = decision.or_refuse("cube").expect("may share");
    let object = GrantObject::Item { id: *id, scope: scope.clone() };
    let new = NewGrant { object, subject, right, expires_at };
    grants::grant(&world.conn, &permission, giver, &new, world.now()).expect("given").id
}
