//! A search as clients ask for it.

use memory::ItemId;
use memory::item::Scope;
use memory::memories::{Methods, NUM_RESULTS_MAX, QUERY_BYTES_MAX, SearchFilter, SearchRequest};
use memory::search::fusion::{Floor, Fusion, Weights};
use serde_json::Value;

use super::call::Call;
use super::item_fields::{KINDS, check_text};
use super::items::STATES;
use super::values::{fraction, item_ids, list_of, moment, require_text, take_item_id};
use crate::http::error::ApiError;
use crate::http::fields::{Fields, describe, wrong_type};

/// Results where the client does not say how many.
const LIMIT_DEFAULT: usize = 10;
/// Most cubes in one search.
const NUM_CUBES_MAX: usize = 64;
/// Most kinds, states or tags in a filter.
const FILTER_LEN_MAX: usize = 64;
/// What a fusion may be.
const FUSIONS: &str = "\"reciprocal_rank\", \"convex_combination\", or one of them as an object with its parameters";

/// Everything that is read of the request.
pub struct SearchFields {
    /// Cubes by name or id; `None` for the caller's default.
    pub cubes: Vec<Option<String>>,
    /// For whom, and what results must belong to.
    pub scope: Scope,
    /// Whether results may also belong to nobody in particular.
    pub include_shared: bool,
    /// The search itself, whose filter still lacks the scope.
    pub request: SearchRequest,
    /// Tokens that all results may take together.
    pub budget_tokens: Option<usize>,
    /// Whether it is told why each result is there.
    pub trace: bool,
}

/// Reads a search.
///
/// # Errors
/// A field has a wrong value, or is unknown.
pub fn read_search(call: &mut Call) -> Result<SearchFields, ApiError> {
    let scope = call.scope()?;
    let cubes = read_cubes(call)?;
    let fields = &mut call.fields;
    let request = SearchRequest {
        query: read_query(fields)?,
        limit: fields.count("limit", 1, NUM_RESULTS_MAX)?.unwrap_or(LIMIT_DEFAULT),
        filter: SearchFilter {
            kinds: list_of(fields, "kinds", (FILTER_LEN_MAX, KINDS))?.unwrap_or_default(),
            states: list_of(fields, "states", (FILTER_LEN_MAX, STATES))?.unwrap_or_default(),
            tags_all: list_of(fields, "tags_all", (FILTER_LEN_MAX, "a text"))?.unwrap_or_default(),
            tags_any: list_of(fields, "tags_any", (FILTER_LEN_MAX, "a text"))?.unwrap_or_default(),
            scope: Scope::default(),
            valid_at: moment(fields, "valid_at")?,
        },
        as_of: moment(fields, "as_of")?,
        without: item_ids(fields, "without", NUM_RESULTS_MAX)?.unwrap_or_default(),
        instead: read_instead(fields)?,
        methods: read_methods(fields)?,
        fusion: read_fusion(fields)?,
        lambda: fraction(fields, "lambda")?.unwrap_or(1.0),
    };
    let budget_tokens = fields.count("budget_tokens", 1, i64::MAX as usize)?;
    let include_shared = fields.flag("include_shared")?.unwrap_or(false);
    let trace = fields.flag("trace")?.unwrap_or(false);
    call.finish()?;
    Ok(SearchFields { cubes, scope, include_shared, request, budget_tokens, trace })
}

fn read_cubes(call: &mut Call) -> Result<Vec<Option<String>>, ApiError> {
    let cube = call.cube_field()?;
    let cubes: Option<Vec<String>> = list_of(&mut call.fields, "cubes", (NUM_CUBES_MAX, "a cube"))?;
    match (cube, cubes) {
        (Some(_), Some(_)) => Err(ApiError::Conflict { param: "cubes", other: "cube", reason: "give one of them" }),
        (cube, None) => Ok(vec![cube]),
        (None, Some(cubes)) if cubes.is_empty() => {
            let (param, allowed) = ("cubes".to_owned(), "a list of at least one".to_owned());
            Err(ApiError::OutOfRange { param, allowed, got: "a list of 0".to_owned() })
        }
        (None, Some(mut cubes)) => {
            cubes.sort();
            cubes.dedup();
            Ok(cubes.into_iter().map(Some).collect())
        }
    }
}

fn read_query(fields: &mut Fields) -> Result<String, ApiError> {
    let query = require_text(fields, "query")?;
    if query.len() > QUERY_BYTES_MAX {
        let allowed = format!("at most {QUERY_BYTES_MAX} bytes");
        return Err(ApiError::OutOfRange { param: "query".to_owned(), allowed, got: format!("{} bytes", query.len()) });
    }
    Ok(query)
}

fn read_instead(fields: &mut Fields) -> Result<Vec<(ItemId, String)>, ApiError> {
    let Some(list) = fields.list("instead")? else { return Ok(Vec::new()) };
    if list.len() > NUM_RESULTS_MAX {
        let (allowed, got) = (format!("a list of at most {NUM_RESULTS_MAX}"), format!("a list of {}", list.len()));
        return Err(ApiError::OutOfRange { param: "instead".to_owned(), allowed, got });
    }
    let read = |(index, value): (usize, Value)| {
        let mut entry = Fields::of_value(format!("instead[{index}]"), value)?;
        let id = take_item_id(&mut entry, "id")?;
        let id = id.ok_or_else(|| ApiError::Missing { param: entry.name("id") })?;
        let param = entry.name("text");
        let text = require_text(&mut entry, "text")?;
        check_text(&param, &text)?;
        entry.finish(&[])?;
        Ok((id, text))
    };
    list.into_iter().enumerate().map(read).collect()
}

fn read_methods(fields: &mut Fields) -> Result<Methods, ApiError> {
    let names: Option<Vec<String>> = list_of(fields, "methods", (FILTER_LEN_MAX, "a text"))?;
    let Some(names) = names else { return Ok(Methods::default()) };
    let mut methods = Methods { lexical: false, vector: false, graph: false };
    for (index, name) in names.iter().enumerate() {
        match name.as_str() {
            "lexical" => methods.lexical = true,
            "vector" => methods.vector = true,
            "graph" => methods.graph = true,
            _ => {
                let (param, got) = (format!("methods[{index}]"), describe(&Value::from(name.as_str())));
                return Err(ApiError::OutOfRange { param, allowed: "one of lexical, vector, graph".to_owned(), got });
            }
        }
    }
    if names.is_empty() {
        let (param, allowed) = ("methods".to_owned(), "a list of at least one".to_owned());
        return Err(ApiError::OutOfRange { param, allowed, got: "a list of 0".to_owned() });
    }
    Ok(methods)
}

fn read_fusion(fields: &mut Fields) -> Result<Fusion, ApiError> {
    let Some(value) = fields.take("fusion") else { return Ok(Fusion::default()) };
    let refused = |got: String| ApiError::OutOfRange { param: "fusion".to_owned(), allowed: FUSIONS.to_owned(), got };
    match &value {
        Value::String(name) => match name.as_str() {
            "reciprocal_rank" => Ok(Fusion::default()),
            "convex_combination" => {
                Ok(Fusion::ConvexCombination { weights: Weights::default(), floor: Floor::Possible })
            }
            _ => Err(refused(describe(&value))),
        },
        Value::Object(_) => serde_json::from_value(value).map_err(|error| refused(format!("an object: {error}"))),
        other => Err(wrong_type("fusion".to_owned(), "a string or an object", other)),
    }
}
