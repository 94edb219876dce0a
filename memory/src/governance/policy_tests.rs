//! Tests of the policy: the whole table of roles, grants and actions, what operators can add and what they cannot.

use std::collections::HashMap;

use super::super::{Identity, Role};
use super::*;
use crate::CubeId;

const ROLES: [Role; 3] = [Role::Admin, Role::User, Role::Reader];

fn actor(tenant: &str, role: Role) -> Actor {
    Actor::of_tenant(Identity { tenant: tenant.parse().expect("a tenant"), role })
}

fn cube(owner: &str) -> CubeRef {
    CubeRef { id: CubeId::new(), name: "notes".to_owned(), owner: owner.parse().expect("a tenant") }
}

fn granted(right: Right) -> GrantSet {
    GrantSet { cube: right.included(), ..GrantSet::default() }
}

fn is_allowed(engine: &PolicyEngine, actor: &Actor, action: Action, cube: &CubeRef, grants: &GrantSet) -> bool {
    matches!(engine.decide(actor, action, cube, grants).expect("a decision"), Decision::Allowed(_))
}

#[test]
fn roles_do_in_their_own_tenant_what_the_table_says_and_nothing_elsewhere() {
    let engine = PolicyEngine::builtin();
    let (own, foreign) = (cube("acme"), cube("beta"));
    for role in ROLES {
        for action in Action::ALL {
            let expected = match role {
                Role::Admin => true,
                Role::User => matches!(
                    action,
                    Action::ReadItems
                        | Action::WriteItems
                        | Action::EraseItems
                        | Action::RedactItems
                        | Action::CreateCube
                ),
                Role::Reader => action == Action::ReadItems,
            };
            let acme = actor("acme", role);
            let none = GrantSet::default();
            assert_eq!(is_allowed(&engine, &acme, action, &own, &none), expected, "{role} {action}");
            assert!(!is_allowed(&engine, &acme, action, &foreign, &none), "{role} {action} elsewhere");
        }
    }
}

#[test]
fn grants_open_exactly_the_actions_of_their_rights() {
    let engine = PolicyEngine::builtin();
    let foreign = cube("beta");
    for role in ROLES {
        for right in Right::ALL {
            for action in Action::ALL {
                let includes = right.included().contains(action.required_right());
                let expected = includes && (role != Role::Reader || action == Action::ReadItems);
                let allowed = is_allowed(&engine, &actor("acme", role), action, &foreign, &granted(right));
                assert_eq!(allowed, expected, "{role} with {right}: {action}");
            }
        }
    }
}

#[test]
fn refusals_do_not_tell_whether_a_cube_exists() {
    let engine = PolicyEngine::builtin();
    let foreign = cube("beta");
    for action in Action::ALL {
        let decision = engine.decide(&actor("acme", Role::Admin), action, &foreign, &GrantSet::default());
        let Decision::Denied(denied) = decision.expect("a decision") else { panic!("{action} was allowed") };
        assert_eq!(denied.answer, DeniedAnswer::NotFound);
        assert_eq!(denied.into_error("cube").to_string(), "there is no such cube");
    }
    let decision = engine.decide(&actor("acme", Role::User), Action::WriteItems, &foreign, &granted(Right::Read));
    let error = decision.expect("a decision").or_refuse("cube").expect_err("only reading was granted");
    assert_eq!(error.to_string(), "not allowed: WriteItems on this cube");
}

#[test]
fn a_grant_on_one_item_opens_that_item_only() {
    let engine = PolicyEngine::builtin();
    let foreign = cube("beta");
    let (written, read, other) = (ItemId::new(), ItemId::new(), ItemId::new());
    let items = HashMap::from([(written, Right::Write.included()), (read, Right::Read.included())]);
    let grants = GrantSet { items, ..GrantSet::default() };
    let acme = actor("acme", Role::User);
    let scope = Scope { user: Some("bob".to_owned()), ..Scope::default() };
    let answer = |action: Action, item: &ItemId| match engine
        .decide_item(&acme, action, &foreign, &grants, (item, &scope))
        .expect("a decision")
    {
        Decision::Allowed(_) => None,
        Decision::Denied(denied) => Some(denied.answer),
    };
    assert_eq!(answer(Action::ReadItems, &written), None);
    assert_eq!(answer(Action::WriteItems, &written), None);
    assert_eq!(answer(Action::EraseItems, &written), Some(DeniedAnswer::Forbidden));
    assert_eq!(answer(Action::ReadItems, &read), None);
    assert_eq!(answer(Action::WriteItems, &read), Some(DeniedAnswer::Forbidden));
    assert_eq!(answer(Action::ReadItems, &other), Some(DeniedAnswer::NotFound));
    assert_eq!(answer(Action::WriteItems, &other), Some(DeniedAnswer::NotFound));
    let allowed = engine.decide(&acme, Action::ReadItems, &foreign, &grants).expect("a decision");
    let allowed = allowed.or_refuse("cube").expect("some items are readable");
    assert!(!allowed.access().is_whole_cube() && !allowed.access().allows_new(&Scope::default()));
}

#[test]
fn an_operator_can_permit_and_forbid_within_the_fences() {
    let text = r#"
        @id("users-share")
        permit (principal, action == Action::"ShareItems", resource) when { principal.role == "user" };
        @id("everybody-everything")
        permit (principal, action, resource) when { resource.name == "open" };
        @id("bob-is-out")
        forbid (principal, action, resource) when { principal has user && principal.user == "bob" };
    "#;
    let engine = PolicyEngine::with_operator_policies(text).expect("it fits");
    let own = cube("acme");
    let none = GrantSet::default();
    let user = actor("acme", Role::User);
    let decision = engine.decide(&user, Action::ShareItems, &own, &none).expect("a decision");
    assert_eq!(decision.or_refuse("cube").expect("permitted").policies(), ["operator:users-share"]);

    let open = CubeRef { name: "open".to_owned(), ..cube("beta") };
    for role in ROLES {
        for action in Action::ALL {
            assert!(
                !is_allowed(&engine, &actor("acme", role), action, &open, &none),
                "{role} {action} crosses tenants"
            );
            let reads = action == Action::ReadItems;
            let allowed = is_allowed(&engine, &actor("beta", role), action, &open, &none);
            assert_eq!(allowed, role != Role::Reader || reads, "{role} {action}: a reader's key only reads");
        }
    }
    assert!(!is_allowed(&engine, &actor("acme", Role::User), Action::WriteItems, &open, &granted(Right::Read)));

    let identity = Identity { tenant: "acme".parse().expect("a tenant"), role: Role::Admin };
    let bob = Actor::new(identity, Some("bob"), None).expect("a name");
    let Decision::Denied(denied) = engine.decide(&bob, Action::ReadItems, &own, &none).expect("a decision") else {
        panic!("bob is out");
    };
    assert_eq!(denied.policies, ["operator:bob-is-out"]);
}

#[test]
fn a_policy_that_fails_denies() {
    // Nothing but an overflow passes the validator and fails when it is evaluated.
    let text = "forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };";
    let engine = PolicyEngine::with_operator_policies(text).expect("it fits the schema");
    assert!(!is_allowed(&engine, &actor("acme", Role::Admin), Action::ReadItems, &cube("acme"), &GrantSet::default()));
}

#[test]
fn the_longest_policy_is_evaluated_on_a_small_stack_or_denies() {
    let long = "principal.role == \"user\" || ".repeat(280);
    let text = format!("permit (principal, action, resource) when {{ {long} principal.role == \"admin\" }};");
    let engine = PolicyEngine::with_operator_policies(&text).expect("it fits");
    let worker = std::thread::Builder::new().stack_size(1 << 20);
    let worker = worker.spawn(move || {
        let (own, none) = (cube("acme"), GrantSet::default());
        drop(engine.decide(&actor("acme", Role::Admin), Action::ReadItems, &own, &none));
    });
    worker.expect("a thread").join().expect("no overflow");
}

#[test]
fn an_asserted_name_narrows_what_the_role_reaches() {
    let engine = PolicyEngine::builtin();
    let own = cube("acme");
    let identity = Identity { tenant: "acme".parse().expect("a tenant"), role: Role::Admin };
    let ann = Actor::new(identity, Some("ann"), None).expect("a name");
    let decision = engine.decide(&ann, Action::ReadItems, &own, &GrantSet::default()).expect("a decision");
    let allowed = decision.or_refuse("cube").expect("her own tenant");
    let scope = |user: Option<&str>| Scope { user: user.map(str::to_owned), ..Scope::default() };
    let item = ItemId::new();
    assert!(allowed.access().allows(&item, &scope(Some("ann"))) && allowed.access().allows(&item, &scope(None)));
    assert!(!allowed.access().allows(&item, &scope(Some("bob"))));
    assert!(!allowed.access().allows_new(&scope(Some("bob"))));
    let lifted = engine.decide(&ann, Action::ReadItems, &own, &granted(Right::Read)).expect("a decision");
    assert!(lifted.or_refuse("cube").expect("granted").access().allows(&item, &scope(Some("bob"))));
}

#[test]
fn a_decision_takes_microseconds() {
    let engine = PolicyEngine::builtin();
    let (own, acme, none) = (cube("acme"), actor("acme", Role::User), GrantSet::default());
    let start = std::time::Instant::now();
    for _ in 0..1_000 {
        assert!(is_allowed(&engine, &acme, Action::ReadItems, &own, &none));
    }
    println!("a decision takes {:?}", start.elapsed() / 1_000);
}

#[test]
fn actions_have_one_name() {
    for action in Action::ALL {
        assert_eq!(action.as_str().parse::<Action>().expect("its own name"), action);
    }
    let error = "Fly".parse::<Action>().expect_err("no action").to_string();
    assert!(Action::ALL.iter().all(|action| error.contains(action.as_str())), "{error}");
}
