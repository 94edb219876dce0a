//! Walks through the graph: what is reached, what stops them, and how the graph was.

use super::{BY, Bench, variant};
use crate::item::{Item, ItemPatch, NewItem, Scope, Source};
use crate::store::{FANOUT_MAX, Link, NewRelation, Node, Start, Traversal, Visibility, Walk};
use crate::{ItemId, Timestamp};

fn about(bench: &Bench, text: &str, entities: &[&str]) -> Item {
    let entities = entities.iter().map(|&name| name.to_owned()).collect();
    bench.insert(NewItem { entities, ..NewItem::fact(text) })
}

fn user(name: &str) -> Scope {
    Scope { user: Some(name.to_owned()), ..Scope::default() }
}

fn walk(
    bench: &Bench,
    start: Start,
    depth: usize,
    at: Option<Timestamp>,
    may_read: &dyn Fn(&Item) -> bool,
) -> Traversal {
    let walk = Walk { starts: vec![start], depth, num_nodes: 100, at, viewer: user("ada") };
    bench.store.read(|reader| reader.traverse(&walk, may_read)).expect("a walk")
}

/// What was reached, in order, as text.
fn names(found: &Traversal) -> Vec<String> {
    found
        .reached
        .iter()
        .map(|reached| match &reached.node {
            Node::Item(item) => item.text.clone(),
            Node::Entity(entity) => format!("<{}>", entity.name),
        })
        .collect()
}

fn relate(bench: &Bench, from: &str, to: &str, source: ItemId, visibility: Visibility) {
    let new = NewRelation { from: from.into(), to: to.into(), label: "knows".into(), source, visibility };
    bench.store.write(|tx| tx.relate(new)).expect("a relation");
}

#[test]
fn a_walk_goes_over_names_edges_and_relations() {
    let bench = Bench::new();
    let tea = about(&bench, "tea", &["Ada"]);
    about(&bench, "bern", &["ADA", "Bern"]);
    let summary = bench.insert(NewItem { source: Source::Derived { from: vec![tea.id] }, ..NewItem::fact("summary") });
    about(&bench, "bob", &["Bob"]);
    relate(&bench, "ada", "Bob", tea.id, Visibility::Shared);
    let start = || Start::Item(summary.id);
    assert_eq!(names(&walk(&bench, start(), 0, None, &|_| true)), ["summary"]);
    assert_eq!(names(&walk(&bench, start(), 1, None, &|_| true)), ["summary", "tea"]);
    let found = walk(&bench, start(), 4, None, &|_| true);
    assert_eq!(names(&found), ["summary", "tea", "<Ada>", "<Bob>", "bern", "bob", "<Bern>"]);
    assert_eq!(found.reached[3].link, Link::Relation("knows".into()));
    assert_eq!(found.reached[3].from, Some(2));
    assert_eq!(names(&walk(&bench, Start::Entity("  BERN".into()), 1, None, &|_| true)), ["<Bern>", "bern"]);
    let near = bench.store.read(|reader| reader.neighbours(tea.id, &user("ada"), |_| true)).expect("neighbours");
    assert_eq!(near.len(), 2);
}

#[test]
fn a_walk_stops_at_what_may_not_be_read() {
    let bench = Bench::new();
    let open = about(&bench, "open", &["Ada"]);
    let secret = about(&bench, "secret", &["Ada", "Plot"]);
    about(&bench, "behind", &["Plot"]);
    relate(&bench, "Ada", "Cassius", secret.id, Visibility::Shared);
    let may_read = |item: &Item| item.text != "secret";
    assert_eq!(names(&walk(&bench, Start::Item(open.id), 8, None, &may_read)), ["open", "<Ada>"]);
    assert_eq!(names(&walk(&bench, Start::Item(secret.id), 8, None, &may_read)), Vec::<String>::new());
    assert_eq!(names(&walk(&bench, Start::Entity("Cassius".into()), 8, None, &may_read)), Vec::<String>::new());
    assert_eq!(walk(&bench, Start::Item(open.id), 8, None, &|_| true).reached.len(), 6);
}

#[test]
fn a_private_relation_is_seen_by_its_owner_alone() {
    let bench = Bench::new();
    let item = about(&bench, "item", &["Ada"]);
    relate(&bench, "Ada", "Bob", item.id, Visibility::Private(user("ada")));
    relate(&bench, "Ada", "Cem", item.id, Visibility::Private(user("cem")));
    relate(&bench, "Ada", "Cem", item.id, Visibility::Private(user("cem")));
    assert_eq!(names(&walk(&bench, Start::Item(item.id), 8, None, &|_| true)), ["item", "<Ada>", "<Bob>"]);
    assert_eq!(bench.store.read(|reader| reader.counts()).expect("counts").num_relations, 2);
    let new = NewRelation {
        from: "a".into(),
        to: "b".into(),
        label: "knows".into(),
        source: item.id,
        visibility: Visibility::Private(Scope::default()),
    };
    assert_eq!(variant(&bench.store.write(|tx| tx.relate(new)).expect_err("nobody's")), "NoOwner");
}

#[test]
fn the_graph_is_seen_as_it_was() {
    let bench = Bench::new();
    let item = about(&bench, "item", &["Ada"]);
    about(&bench, "tea", &["Ada"]);
    let then = about(&bench, "bob", &["Bob"]).recorded_at;
    let patch = ItemPatch { entities: Some(vec!["Bob".into()]), ..ItemPatch::default() };
    bench.store.write(|tx| tx.update(item.id, None, patch, BY)).expect("an edit");
    assert_eq!(names(&walk(&bench, Start::Item(item.id), 2, None, &|_| true)), ["item", "<Bob>", "bob"]);
    assert_eq!(names(&walk(&bench, Start::Item(item.id), 2, Some(then), &|_| true)), ["item", "<Ada>", "tea"]);
    let before = Timestamp::from_unix_ms(0);
    assert_eq!(names(&walk(&bench, Start::Item(item.id), 2, before, &|_| true)), Vec::<String>::new());
}

#[test]
fn limits_cut_a_walk_and_it_says_so() {
    let bench = Bench::new();
    for number in 0..FANOUT_MAX + 10 {
        about(&bench, &format!("fact {number}"), &["Ada"]);
    }
    let run = |depth, num_nodes| {
        let starts = vec![Start::Entity("Ada".into())];
        let walk = Walk { starts, depth, num_nodes, at: None, viewer: Scope::default() };
        bench.store.read(|reader| reader.traverse(&walk, |_| true))
    };
    let found = run(1, 1_000).expect("a walk");
    assert_eq!((found.reached.len(), found.is_cut), (FANOUT_MAX + 1, true));
    let found = run(1, 5).expect("a walk");
    assert_eq!((found.reached.len(), found.is_cut), (5, true));
    assert_eq!(names(&found)[1], format!("fact {}", FANOUT_MAX + 9));
    assert_eq!(variant(&run(9, 5).expect_err("too deep")), "OutOfLimit");
    assert_eq!(variant(&run(1, 0).expect_err("no nodes")), "OutOfLimit");
}
