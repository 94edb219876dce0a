//! The graph around a memory or a name, as far as the caller may read.

use axum::response::Response;
use memory::store::{DEPTH_MAX, Link, NUM_NODES_MAX, Node, Reached, Start};
use serde_json::{Value, json};

use super::call::{Call, ok};
use super::render;
use super::values::{item_ids, list_of, moment};
use crate::http::error::ApiError;

/// Steps and nodes where the client does not say how many.
const DEPTH_DEFAULT: usize = 2;
const NODES_DEFAULT: usize = 100;
/// Most memories or names to begin at.
const NUM_STARTS_MAX: usize = 64;

/// `GET /v1/memories/graph`
pub fn walk(mut call: Call) -> Result<Response, ApiError> {
    let actor = call.read_actor()?;
    let asked = call.cube_field()?;
    let fields = &mut call.fields;
    let items = item_ids(fields, "id", NUM_STARTS_MAX)?.unwrap_or_default();
    let names: Vec<String> = list_of(fields, "entity", (NUM_STARTS_MAX, "a text"))?.unwrap_or_default();
    let depth = fields.count("depth", 0, DEPTH_MAX)?.unwrap_or(DEPTH_DEFAULT);
    let num_nodes = fields.count("limit", 1, NUM_NODES_MAX)?.unwrap_or(NODES_DEFAULT);
    let at = moment(fields, "as_of")?;
    call.finish()?;
    let starts: Vec<Start> = items.into_iter().map(Start::Item).chain(names.into_iter().map(Start::Entity)).collect();
    if starts.is_empty() {
        return Err(ApiError::Missing { param: "id or entity".to_owned() });
    }
    let place = call.place(actor, asked.as_deref())?;
    let found = place.run(|cube, actor| cube.traverse(actor, starts, (depth, num_nodes), at))?;
    let nodes: Vec<Value> = found.reached.iter().map(node).collect();
    Ok(ok(json!({"object": "list", "data": nodes, "is_cut": found.is_cut})))
}

fn node(reached: &Reached) -> Value {
    let (link, label) = match &reached.link {
        Link::Start => ("start", None),
        Link::Edge(kind) => (kind.as_str(), None),
        Link::Mention => ("mentions", None),
        Link::Relation(label) => ("relation", Some(label)),
    };
    let mut shown = json!({"depth": reached.depth, "link": link, "label": label, "from": reached.from});
    match &reached.node {
        Node::Item(item) => shown["memory"] = render::memory(item),
        Node::Entity(entity) => shown["entity"] = json!({"id": entity.id.get(), "name": entity.name}),
    }
    shown
}
