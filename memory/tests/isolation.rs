//! Isolation through the boundary: random grants, names and questions against a naive model that knows who may see what.
//!
//! What the model forbids is in no answer, what it allows is in every one, and an id that somebody may not know of is
//! answered as one that nobody knows.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use memory::governance::grants::GrantId;
use memory::governance::{Actor, Right, Role, Subject};
use memory::item::{ItemPatch, NewItem, Scope, Source};
use memory::lifecycle::ItemState;
use memory::memories::{
    AddOptions, Hold, Listing, Memories, MemoriesError, Methods, MountedCube, SearchFilter, SearchRequest, Share,
};
use memory::store::{EdgeKind, ItemFilter, Link, Node, Start};
use memory::{Clock, ItemId, Timestamp};
use support::{Random, actor, open, word};

const SEEDS: [u64; 3] = [1, 2, 3];
const NUM_STEPS: usize = 60;
/// After so many steps everything is compared.
const STEPS_PER_COMPARISON: usize = 6;
const NAMES: [&str; 3] = ["Zorvan", "Velka", "Mirel"];
const START_MS: i64 = 1_750_000_000_000;
const HOUR_MS: i64 = 3_600_000;

/// A memory as the model knows it.
struct Known {
    scope: Scope,
    word: String,
    name: &'static str,
    state: ItemState,
    /// Memories that it is linked to, in both directions.
    linked: BTreeSet<ItemId>,
}

struct KnownGrant {
    id: GrantId,
    item: Option<ItemId>,
    subject: Subject,
    until: Option<i64>,
}

struct World {
    folder: tempfile::TempDir,
    memories: Memories,
    now_ms: Arc<AtomicI64>,
    random: Random,
    cube: Arc<MountedCube>,
    owner: Actor,
    readers: Vec<Actor>,
    items: BTreeMap<ItemId, Known>,
    grants: Vec<KnownGrant>,
    /// Ids of memories that once were, and of one in another cube.
    foreign: Vec<ItemId>,
    num_words: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let clock = Arc::clone(&now_ms);
        let clock = Clock::from_fn(move || Timestamp::from_unix_ms(clock.load(Ordering::Relaxed)).expect("a moment"));
        let memories = open(folder.path(), clock);
        let owner = actor("acme", Role::Admin, None, None);
        let cube = memories.create(&owner, "notes".parse().expect("a name")).expect("a cube");
        let beta = actor("beta", Role::Admin, None, None);
        let other = memories.create(&beta, "others".parse().expect("a name")).expect("a cube");
        let theirs = other.add(&beta, vec![NewItem::fact("a memory of beta")], AddOptions::default()).expect("added");
        let mut readers = Vec::new();
        for tenant in ["acme", "beta", "gamma"] {
            for role in [Role::Admin, Role::User, Role::Reader] {
                for (user, agent) in
                    [(None, None), (Some("ann"), None), (Some("bob"), Some("bot")), (None, Some("bot"))]
                {
                    readers.push(actor(tenant, role, user, agent));
                }
            }
        }
        Self {
            folder,
            memories,
            now_ms,
            random: Random(seed),
            cube,
            owner,
            readers,
            items: BTreeMap::new(),
            grants: Vec::new(),
            foreign: vec![theirs[0].item.id],
            num_words: 0,
        }
    }

    fn now(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// The model: may this actor see this memory?
    fn sees(&self, actor: &Actor, id: ItemId) -> bool {
        let Some(known) = self.items.get(&id) else { return false };
        let fits = |named: Option<&str>, stored: &Option<String>| {
            named.is_none() || stored.is_none() || named == stored.as_deref()
        };
        let by_role = actor.tenant() == self.owner.tenant()
            && fits(actor.user(), &known.scope.user)
            && fits(actor.agent(), &known.scope.agent);
        by_role
            || self.grants.iter().any(|grant| {
                grant.subject.includes(actor)
                    && grant.item.is_none_or(|item| item == id)
                    && grant.until.is_none_or(|until| until > self.now())
            })
    }

    fn seen_by(&self, actor: &Actor) -> BTreeSet<ItemId> {
        self.items.keys().copied().filter(|id| self.sees(actor, *id)).collect()
    }

    /// Whether this actor may ask this cube anything at all.
    fn enters(&self, actor: &Actor) -> bool {
        let is_granted =
            |grant: &KnownGrant| grant.subject.includes(actor) && grant.until.is_none_or(|until| until > self.now());
        actor.tenant() == self.owner.tenant() || self.grants.iter().any(is_granted)
    }

    fn any_id(&mut self) -> Option<ItemId> {
        let num = self.items.len();
        (num > 0).then(|| self.random.below(num)).and_then(|place| self.items.keys().nth(place).copied())
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.random.below(values.len())]
    }

    fn new_item(&mut self) -> (NewItem, Known) {
        self.num_words += 1;
        let word = word(self.num_words);
        let part = |name: Option<&str>| name.map(str::to_owned);
        let user = self.pick(&[None, Some("ann"), Some("bob")]);
        let agent = self.pick(&[None, None, Some("bot")]);
        let session = self.pick(&[None, None, Some("s1")]);
        let scope = Scope { user: part(user), agent: part(agent), session: part(session) };
        let name = self.pick(&NAMES);
        let text = format!("report {word} by {name}");
        let new = NewItem { scope: scope.clone(), entities: vec![name.to_owned()], ..NewItem::fact(text) };
        let linked = BTreeSet::new();
        (new, Known { scope, word, name, state: ItemState::Activated, linked })
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0..5 => self.add(),
            5 => self.merge(),
            6 => self.archive(),
            7 => self.erase(),
            8..10 => self.share(),
            10 => self.unshare(),
            _ => {
                self.now_ms.fetch_add(HOUR_MS, Ordering::Relaxed);
            }
        }
    }

    fn add(&mut self) {
        let (mut new, mut known) = self.new_item();
        if self.random.below(3) == 0
            && let Some(from) = self.any_id()
        {
            new.source = Source::Derived { from: vec![from] };
            known.linked.insert(from);
        }
        let id = self.cube.add(&self.owner, vec![new], AddOptions::default()).expect("added")[0].item.id;
        self.link(id, known);
    }

    fn link(&mut self, id: ItemId, known: Known) {
        for other in &known.linked {
            self.items.get_mut(other).expect("it is there").linked.insert(id);
        }
        self.items.insert(id, known);
    }

    fn merge(&mut self) {
        let (Some(first), Some(second)) = (self.any_id(), self.any_id()) else { return };
        let is_active = |id: &ItemId| self.items[id].state == ItemState::Activated;
        if first == second || !is_active(&first) || !is_active(&second) {
            return;
        }
        let (new, mut known) = self.new_item();
        let id = self.cube.merge(&self.owner, &[first, second], new, None).expect("merged").id;
        for parent in [first, second] {
            known.linked.insert(parent);
            self.items.get_mut(&parent).expect("it is there").state = ItemState::Merged;
        }
        self.link(id, known);
    }

    fn archive(&mut self) {
        let Some(id) = self.any_id() else { return };
        let known = self.items.get_mut(&id).expect("it is there");
        if known.state == ItemState::Activated {
            self.cube.transition(&self.owner, id, None, ItemState::Archived, None).expect("archived");
            known.state = ItemState::Archived;
        }
    }

    fn erase(&mut self) {
        let Some(id) = self.any_id() else { return };
        let erasure = self.cube.erase(&self.owner, &[id], None).expect("erased");
        for gone in erasure.gone() {
            self.items.remove(&gone);
            for known in self.items.values_mut() {
                known.linked.remove(&gone);
            }
            self.grants.retain(|grant| grant.item != Some(gone));
            self.foreign.push(gone);
        }
        // What lived on in an erased merge comes back to itself.
        for (id, known) in &mut self.items {
            known.state = self.cube.get(&self.owner, *id, None).expect("it is there").state;
        }
    }

    fn share(&mut self) {
        let item = if self.random.below(4) == 0 { None } else { self.any_id() };
        let subjects = [
            "beta",
            "beta/user:ann",
            "beta/agent:bot",
            "acme/user:ann",
            "acme/user:bob",
            "gamma/user:bob",
            "gamma/agent:bot",
        ];
        let subject: Subject = self.pick(&subjects).parse().expect("a subject");
        let right = self.pick(&Right::ALL);
        let hours = self.random.below(6) as i64;
        let until = (hours > 0).then(|| self.now() + hours * HOUR_MS);
        let expires_at = until.and_then(Timestamp::from_unix_ms);
        let share = Share { item, subject: subject.clone(), right, expires_at };
        let grant = self.cube.share(&self.owner, share, None).expect("shared");
        self.grants.push(KnownGrant { id: grant.id, item, subject, until });
    }

    fn unshare(&mut self) {
        if !self.grants.is_empty() {
            let place = self.random.below(self.grants.len());
            let id = self.grants[place].id;
            self.cube.unshare(&self.owner, id, None).expect("taken back");
            self.grants.retain(|grant| grant.id != id);
        }
    }

    fn random_scope(&mut self) -> Scope {
        let user = self.pick(&[None, None, Some("ann"), Some("bob")]).map(str::to_owned);
        let agent = self.pick(&[None, None, Some("bot")]).map(str::to_owned);
        Scope { user, agent, session: None }
    }

    fn compare(&mut self) {
        for reader in self.readers.clone() {
            let seen = self.seen_by(&reader);
            if self.enters(&reader) {
                self.compare_listing(&reader, &seen);
                self.compare_search(&reader, &seen);
                self.compare_walk(&reader, &seen);
            } else {
                self.is_shut_out(&reader);
            }
            self.compare_single(&reader, &seen);
        }
    }

    fn compare_listing(&mut self, reader: &Actor, seen: &BTreeSet<ItemId>) {
        let scope = self.random_scope();
        let asked: Option<Vec<ItemId>> =
            (self.random.below(3) == 0).then(|| self.items.keys().copied().chain(self.foreign.clone()).collect());
        let as_of =
            (self.random.below(3) == 0).then(|| Timestamp::from_unix_ms(self.now() + HOUR_MS).expect("a moment"));
        let limit = 1 + self.random.below(5);
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let filter = ItemFilter { scope: scope.clone(), ids: asked.clone(), ..ItemFilter::default() };
            let newest_first = self.num_words.is_multiple_of(2);
            let page = self.cube.list(reader, Listing { filter, newest_first, limit, after, as_of }).expect("listed");
            assert!(page.items.len() <= limit);
            listed.extend(page.items.into_iter().map(|item| item.id));
            after = match page.next {
                Some(next) => Some(next),
                None => break,
            };
        }
        let expected: BTreeSet<ItemId> =
            seen.iter().copied().filter(|id| scope.contains(&self.items[id].scope)).collect();
        assert_eq!(listed.len(), expected.len(), "{reader} within {scope:?}: nothing is listed twice");
        assert_eq!(BTreeSet::from_iter(listed), expected, "{reader} within {scope:?}");
    }

    fn compare_search(&mut self, reader: &Actor, seen: &BTreeSet<ItemId>) {
        let scope = self.random_scope();
        let states = self.pick(&[&[][..], &ItemState::ALL[..]]).to_vec();
        let filter = SearchFilter { scope: scope.clone(), states: states.clone(), ..SearchFilter::default() };
        let as_of =
            (self.random.below(3) == 0).then(|| Timestamp::from_unix_ms(self.now() + HOUR_MS).expect("a moment"));
        let methods = Methods { lexical: true, vector: true, graph: self.random.below(2) == 0 };
        let without: Vec<ItemId> = self.foreign.clone();
        let query = format!("report by {}", self.pick(&NAMES));
        let request = SearchRequest { filter, as_of, methods, without, ..SearchRequest::new(query, 1_000) };
        let answer = self.cube.search(reader, &request).expect("searched");
        let is_wanted = |id: &ItemId| {
            let known = &self.items[id];
            let of_state = if states.is_empty() { known.state.is_recalled() } else { states.contains(&known.state) };
            of_state && scope.contains(&known.scope)
        };
        let expected: BTreeSet<ItemId> = seen.iter().copied().filter(is_wanted).collect();
        let found: BTreeSet<ItemId> = answer.results.iter().map(|found| found.item.id).collect();
        assert_eq!(found, expected, "{reader} within {scope:?}, in {states:?}");
        assert!(answer.left_out.iter().all(|trace| seen.contains(&trace.item)), "{reader}");
        // The one word of a memory finds it, and nobody else learns that there is such a word.
        if let Some(id) = self.any_id() {
            let filter = SearchFilter { states: ItemState::ALL.to_vec(), ..SearchFilter::default() };
            let request = SearchRequest { filter, ..SearchRequest::new(self.items[&id].word.clone(), 5) };
            let found = self.cube.search(reader, &request).expect("searched").results;
            assert_eq!(found.iter().any(|found| found.item.id == id), seen.contains(&id), "{reader}: {id}");
        }
    }

    /// A walk by the model: nodes are memories that the reader sees and names that those mention.
    fn compare_walk(&mut self, reader: &Actor, seen: &BTreeSet<ItemId>) {
        let depth = self.random.below(5);
        let start_item = self.any_id();
        let start_name = self.pick(&NAMES);
        let starts: Vec<Start> =
            start_item.map(Start::Item).into_iter().chain([Start::Entity(start_name.to_owned())]).collect();
        let found = self.cube.traverse(reader, starts, (depth, 1_000), None).expect("walked");
        let mentions =
            |name: &str| seen.iter().copied().filter(|id| self.items[id].name == name).collect::<Vec<ItemId>>();
        let mut items: BTreeSet<ItemId> = start_item.into_iter().filter(|id| seen.contains(id)).collect();
        let mut names: BTreeSet<&str> = [start_name].into_iter().filter(|name| !mentions(name).is_empty()).collect();
        for _ in 0..depth {
            let (mut next_items, mut next_names) = (items.clone(), names.clone());
            for id in &items {
                next_items.extend(self.items[id].linked.iter().filter(|other| seen.contains(other)));
                next_names.insert(self.items[id].name);
            }
            names.iter().for_each(|name| next_items.extend(mentions(name)));
            (items, names) = (next_items, next_names);
        }
        let (mut found_items, mut found_names) = (BTreeSet::new(), BTreeSet::new());
        for reached in &found.reached {
            match &reached.node {
                Node::Item(item) => found_items.insert(item.id),
                Node::Entity(entity) => found_names.insert(entity.name.as_str()),
            };
            assert!(!matches!(reached.link, Link::Edge(EdgeKind::Supersedes)), "nothing was superseded");
        }
        assert_eq!(found_items, items, "{reader} from {start_item:?} and {start_name}, {depth} steps");
        assert_eq!(found_names, names, "{reader} from {start_item:?} and {start_name}, {depth} steps");
    }

    fn is_shut_out(&self, reader: &Actor) {
        let listing = Listing { limit: 10, ..Listing::default() };
        assert!(self.cube.list(reader, listing).is_err(), "{reader}");
        assert!(self.cube.search(reader, &SearchRequest::new("report", 10)).is_err(), "{reader}");
        assert!(self.cube.inspect(reader).is_err() && self.cube.verify(reader).is_err(), "{reader}");
        assert!(!self.cube.may_read(reader).expect("asked"), "{reader}");
    }

    /// Single memories: those that are seen are there, all others are answered like an id that nobody knows.
    fn compare_single(&mut self, reader: &Actor, seen: &BTreeSet<ItemId>) {
        let unknown = ItemId::new();
        let expected = answers(&self.cube, reader, unknown, unknown);
        let Some(id) = self.any_id() else { return };
        let forged = self.foreign[self.random.below(self.foreign.len())];
        assert_eq!(answers(&self.cube, reader, forged, unknown), expected, "{reader}: forged {forged}");
        if seen.contains(&id) {
            assert_eq!(self.cube.get(reader, id, None).expect("there").id, id, "{reader}");
            assert!(!self.cube.history(reader, id).expect("there").is_empty(), "{reader}");
        } else {
            assert_eq!(answers(&self.cube, reader, id, unknown), expected, "{reader}: foreign {id}");
        }
    }
}

/// What every operation on this id says, with the id taken out of it.
fn answers(cube: &MountedCube, reader: &Actor, id: ItemId, unknown: ItemId) -> Vec<String> {
    let said = |what: &str, error: Option<MemoriesError>| {
        let error = error.unwrap_or_else(|| panic!("{reader}: {what} of {id} was answered"));
        format!("{what}: {}", error.to_string().replace(&id.to_string(), "ID"))
    };
    let patch = || ItemPatch { text: Some("taken over".to_owned()), ..ItemPatch::default() };
    let derived = NewItem { source: Source::Derived { from: vec![id] }, ..NewItem::fact("derived") };
    let subject: Subject = "gamma".parse().expect("a subject");
    let share = Share { item: Some(id), subject, right: Right::Read, expires_at: None };
    let past = Timestamp::from_unix_ms(START_MS);
    vec![
        said("get", cube.get(reader, id, None).err()),
        said("get as of", cube.get(reader, id, past).err()),
        said("history", cube.history(reader, id).err()),
        said("update", cube.update(reader, id, None, patch(), None).err()),
        said("update with version", cube.update(reader, id, Some(7), patch(), None).err()),
        said("transition", cube.transition(reader, id, None, ItemState::Archived, None).err()),
        said("restore", cube.restore(reader, id, 1, None, None).err()),
        said("restore of no version", cube.restore(reader, id, 99, None, None).err()),
        said("hold", cube.hold(reader, id, Hold::Set, None).err()),
        said("merge", cube.merge(reader, &[id, unknown], NewItem::fact("merged"), None).err()),
        said("unmerge", cube.unmerge(reader, id, None).err()),
        said("redact", cube.redact(reader, id, None).err()),
        said("erase", cube.erase(reader, &[id], None).err()),
        said("share", cube.share(reader, share, None).err()),
        said("grants", cube.grants(reader, Some(id), None, 10).err()),
        said("derive", cube.add(reader, vec![derived], AddOptions::default()).err()),
    ]
}

#[test]
fn nobody_sees_what_the_model_forbids_and_everybody_what_it_allows() {
    // Side by side, since most of the time goes into waiting for the disk.
    std::thread::scope(|scope| {
        let runs = SEEDS.map(|seed| (seed, scope.spawn(move || run(seed))));
        for (seed, run) in runs {
            assert!(run.join().is_ok(), "seed {seed} failed");
        }
    });
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for step in 1..=NUM_STEPS {
        world.step();
        if step % STEPS_PER_COMPARISON == 0 {
            world.compare();
        }
    }
    assert!(world.items.len() > 5 && !world.foreign.is_empty(), "the world is too small to show anything");
}

/// Every right on one memory, and every role under a narrower name, is still no right on the whole cube.
#[test]
fn a_grant_on_one_memory_opens_nothing_of_the_cube() {
    let mut world = World::new(1);
    (0..3).for_each(|_| world.add());
    let id = world.any_id().expect("a memory");
    let beta = actor("beta", Role::Admin, None, None);
    let share =
        Share { item: Some(id), subject: "beta".parse().expect("a subject"), right: Right::Admin, expires_at: None };
    world.cube.share(&world.owner, share, None).expect("shared");
    assert_eq!(world.cube.get(&beta, id, None).expect("shared with beta").id, id);
    let target = world.folder.path().join("stolen.memcube");
    for thief in [beta, actor("acme", Role::Admin, Some("ann"), None), actor("acme", Role::User, None, None)] {
        let cube = &world.cube;
        let snapshot = "mine".parse().expect("a name");
        assert!(cube.pack(&thief, &target).is_err(), "{thief} packs");
        assert!(cube.snapshot(&thief, &snapshot).is_err() && cube.diff(&thief, &snapshot).is_err(), "{thief} copies");
        assert!(cube.audit(&thief, &memory::governance::audit::AuditFilter::default(), 10).is_err(), "{thief} audits");
        assert!(cube.verify_audit(&thief).is_err() && cube.audit_head(&thief).is_err(), "{thief} audits");
        assert!(world.memories.unmount(&thief, &cube.manifest().name).is_err(), "{thief} unmounts");
    }
    assert!(!target.exists());
}
