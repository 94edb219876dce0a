//! Listings: filters against a naive model, pages, and text that looks like SQL.

use super::{BY, Bench, Rng, START_MS, moment, variant};
use crate::item::{Item, ItemKind, ItemPatch, NewItem, Scope};
use crate::lifecycle::ItemState;
use crate::store::{ItemFilter, ListOrder, ListRequest, Restriction, fold_name};
use crate::{ItemId, Timestamp};

const HOSTILE: [&str; 8] =
    ["'; DROP TABLE items; --", "\" OR 1=1 --", "%", "_", "\\", "?1", "NULL", "x' UNION SELECT * FROM meta; --"];

/// The rule of every part of a filter, written down once more.
fn fits(filter: &ItemFilter, item: &Item) -> bool {
    let folded = |names: &[String]| names.iter().map(|name| fold_name(name)).collect::<Vec<_>>();
    let is_valid = |moment: Timestamp| {
        item.valid_from.is_none_or(|from| from <= moment) && item.valid_to.is_none_or(|to| to > moment)
    };
    (filter.kinds.is_empty() || filter.kinds.contains(&item.kind))
        && (filter.states.is_empty() || filter.states.contains(&item.state))
        && filter.tags_all.iter().all(|tag| item.tags.contains(tag))
        && (filter.tags_any.is_empty() || filter.tags_any.iter().any(|tag| item.tags.contains(tag)))
        && (filter.entities_any.is_empty()
            || folded(&filter.entities_any).iter().any(|name| folded(&item.entities).contains(name)))
        && filter.scope.contains(&item.scope)
        && filter.created_by.as_ref().is_none_or(|actor| *actor == item.created_by)
        && filter.text_contains.as_ref().is_none_or(|part| item.text.to_lowercase().contains(&part.to_lowercase()))
        && filter.valid_at.is_none_or(is_valid)
        && filter.recorded_before.is_none_or(|moment| item.recorded_at < moment)
        && filter.ids.as_ref().is_none_or(|ids| ids.contains(&item.id))
}

fn random_filter(rng: &mut Rng, items: &[Item]) -> ItemFilter {
    let mut filter = ItemFilter::default();
    let word = |rng: &mut Rng| (*rng.pick(&HOSTILE)).to_owned();
    match rng.below(11) {
        0 => filter.kinds = vec![*rng.pick(&ItemKind::ALL)],
        1 => filter.states = vec![*rng.pick(&ItemState::ALL), *rng.pick(&ItemState::ALL)],
        2 => filter.tags_all = vec![word(rng), word(rng)],
        3 => filter.tags_any = vec![word(rng), word(rng)],
        4 => filter.entities_any = vec![word(rng).to_lowercase()],
        5 => filter.scope.user = Some(word(rng)),
        6 => filter.created_by = Some(word(rng)),
        7 => filter.text_contains = Some(word(rng).to_lowercase()),
        8 => filter.valid_at = Some(moment(START_MS + rng.below(100) as i64)),
        9 => filter.recorded_before = Some(rng.pick(items).recorded_at),
        _ => filter.ids = Some((0..rng.below(3)).map(|_| rng.pick(items).id).chain([ItemId::new()]).collect()),
    }
    filter
}

fn random_item(rng: &mut Rng) -> NewItem {
    let word = |rng: &mut Rng| (*rng.pick(&HOSTILE)).to_owned();
    let mut new = NewItem::fact(format!("{} {}", word(rng), word(rng).to_uppercase()));
    new.kind = *rng.pick(&ItemKind::ALL);
    new.tags = (0..rng.below(4)).map(|_| word(rng)).collect();
    new.entities = (0..rng.below(4)).map(|_| word(rng)).collect();
    new.scope =
        Scope { user: rng.one_in(2).then(|| word(rng)), session: rng.one_in(2).then(|| word(rng)), agent: None };
    new.valid_from = rng.one_in(2).then(|| moment(START_MS + rng.below(50) as i64));
    new.valid_to = rng.one_in(2).then(|| moment(START_MS + 51 + rng.below(50) as i64));
    new
}

#[test]
fn filters_agree_with_a_naive_model_now_and_then() {
    let (bench, mut rng) = (Bench::new(), Rng(11));
    let mut items: Vec<Item> = Vec::new();
    for _ in 0..120 {
        let (new, actor) = (random_item(&mut rng), *rng.pick(&HOSTILE));
        let by = crate::store::By::actor(actor).because("'; DROP TABLE versions; --");
        items.push(bench.store.write(|tx| tx.insert(new, by)).expect("a good item"));
    }
    let (then, before) = (items[119].recorded_at, items.clone());
    for item in &mut items {
        if rng.one_in(2) {
            let patch =
                ItemPatch { tags: Some(vec!["%".into()]), entities: Some(vec!["_".into()]), ..ItemPatch::default() };
            *item = bench.store.write(|tx| tx.update(item.id, None, patch, BY)).expect("an edit");
        } else {
            *item =
                bench.store.write(|tx| tx.transition(item.id, None, ItemState::Archived, BY)).expect("a transition");
        }
    }
    for round in 0..400 {
        let filter = random_filter(&mut rng, &items);
        let expected = |items: &[Item]| items.iter().filter(|item| fits(&filter, item)).cloned().collect::<Vec<_>>();
        let request = ListRequest::new(filter.clone(), 1_000);
        let (now, earlier, num) = bench
            .store
            .read(|reader| {
                Ok((
                    reader.list(&request)?.items,
                    reader.list_as_of(then, &request)?.items,
                    reader.count(&filter, None)?,
                ))
            })
            .expect("a listing");
        assert_eq!(now, expected(&items), "round {round}: {filter:?}");
        assert_eq!(earlier, expected(&before), "round {round}, then: {filter:?}");
        assert_eq!(num, now.len() as u64);
    }
    bench.assert_sound();
}

#[test]
fn pages_give_everything_once_while_memories_come_and_go() {
    let bench = Bench::new();
    let mut ids: Vec<ItemId> = (0..25).map(|number| bench.add(&format!("fact {number}")).id).collect();
    for order in [ListOrder::OldestFirst, ListOrder::NewestFirst] {
        let mut request = ListRequest { order, ..ListRequest::new(ItemFilter::default(), 7) };
        let mut seen = Vec::new();
        loop {
            let page = bench.store.read(|reader| reader.list(&request)).expect("a page");
            seen.extend(page.items.iter().map(|item| item.id));
            let Some(next) = page.next else { break };
            request.after = Some(next.to_string().parse().expect("its own text"));
            // The memory that the cursor stands at goes.
            let last = page.items.last().expect("a full page").id;
            bench.store.write(|tx| tx.erase(&[last], vec![], BY)).expect("an erasure");
        }
        let mut expected = ids.clone();
        if order == ListOrder::NewestFirst {
            expected.reverse();
        }
        assert_eq!(seen, expected);
        ids.retain(|id| bench.get(*id).is_some());
    }
}

#[test]
fn limits_and_cursors_out_of_bounds_are_refused() {
    let bench = Bench::new();
    bench.add("a");
    bench.add("b");
    let list = |request: &ListRequest| bench.store.read(|reader| reader.list(request));
    for limit in [0, 1_001, usize::MAX] {
        assert_eq!(variant(&list(&ListRequest::new(ItemFilter::default(), limit)).expect_err("a limit")), "OutOfLimit");
    }
    for text in ["", "a", "x0000000000000001", "a1", "a-000000000000001", "a00000000000000010", "é000"] {
        assert!(text.parse::<crate::store::Cursor>().is_err(), "{text:?}");
    }
    let after = list(&ListRequest::new(ItemFilter::default(), 1)).expect("a page").next;
    let request = ListRequest { order: ListOrder::NewestFirst, after, ..ListRequest::new(ItemFilter::default(), 1) };
    assert_eq!(variant(&list(&request).expect_err("a cursor of the other order")), "InvalidCursor");
    let filter = ItemFilter { ids: Some(vec![ItemId::new(); 1_001]), ..ItemFilter::default() };
    assert_eq!(variant(&list(&ListRequest::new(filter, 1)).expect_err("many ids")), "OutOfLimit");
    let filter = ItemFilter { tags_all: vec!["x".into(); 65], ..ItemFilter::default() };
    assert_eq!(variant(&list(&ListRequest::new(filter, 1)).expect_err("many tags")), "OutOfLimit");
}

#[test]
fn a_restriction_narrows_every_listing() {
    let bench = Bench::new();
    let (seen, hidden) = (bench.add("seen"), bench.add("hidden"));
    let restriction = Restriction {
        condition: "item.id = ?1 OR item.scope_user = ?2".to_owned(),
        values: vec![seen.id.as_bytes().to_vec().into(), "nobody".to_owned().into()],
    };
    let request = ListRequest { restriction: Some(restriction.clone()), ..ListRequest::new(ItemFilter::default(), 10) };
    let (now, then, num) = bench
        .store
        .read(|reader| {
            let then = reader.list_as_of(hidden.recorded_at, &request)?;
            Ok((reader.list(&request)?, then, reader.count(&ItemFilter::default(), Some(&restriction))?))
        })
        .expect("a listing");
    assert_eq!((now.items, then.items, num), (vec![seen.clone()], vec![seen], 1));
}

#[test]
fn retention_finds_what_is_due_and_not_held() {
    let bench = Bench::new();
    let add = |ms| bench.insert(NewItem { expires_at: Some(moment(ms)), ..NewItem::fact("fact") }).id;
    let (late, early, held, _future) = (add(20), add(10), add(5), add(31));
    bench.add("for ever");
    bench.store.write(|tx| tx.set_legal_hold(held, BY)).expect("a hold");
    let due = bench.store.read(|reader| reader.expired(moment(30), &[], 10)).expect("a list");
    assert_eq!(due.iter().map(|item| item.id).collect::<Vec<_>>(), [early, late]);
}
