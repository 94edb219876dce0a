//! The query of an address as fields, so that query and body are read in the same way.

use axum::extract::Query;
use axum::http::Uri;
use serde_json::{Map, Value};

use crate::http::error::ApiError;
use crate::http::fields::quoted;

/// Most parameters of one query.
const NUM_PARAMETERS_MAX: usize = 256;
/// Parameters that are whole numbers.
const NUMBERS: [&str; 6] = ["limit", "depth", "from", "size", "seq", "nodes"];
/// Parameters that are `true` or `false`.
const FLAGS: [&str; 4] = ["include_shared", "newest_first", "strict", "trace"];
/// Parameters that may be given several times.
const LISTS: [&str; 5] = ["kind", "state", "tag", "entity", "id"];

/// Adds the parameters of the query to the fields of the body.
///
/// # Errors
/// A parameter is given twice, in the query or in query and body; or there are too many.
pub fn add_query(uri: &Uri, fields: &mut Map<String, Value>) -> Result<(), ApiError> {
    let Ok(Query(parameters)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        let (allowed, got) = ("name=value pairs".to_owned(), quoted(uri.query().unwrap_or_default()));
        return Err(ApiError::OutOfRange { param: "query".to_owned(), allowed, got });
    };
    if parameters.len() > NUM_PARAMETERS_MAX {
        let allowed = format!("at most {NUM_PARAMETERS_MAX} parameters");
        return Err(ApiError::OutOfRange { param: "query".to_owned(), allowed, got: parameters.len().to_string() });
    }
    let in_body = fields.len();
    for (name, text) in parameters {
        let value = typed(&name, text);
        match fields.get_mut(&name) {
            None if LISTS.contains(&name.as_str()) => {
                fields.insert(name, Value::Array(vec![value]));
            }
            None => {
                fields.insert(name, value);
            }
            Some(Value::Array(values)) if LISTS.contains(&name.as_str()) && in_body == 0 => values.push(value),
            Some(_) => {
                let (allowed, got) = ("given once".to_owned(), "more than one".to_owned());
                return Err(ApiError::OutOfRange { param: quoted(&name), allowed, got });
            }
        }
    }
    Ok(())
}

/// A parameter's text as the value that the same field has in a body. What is no number stays text, and is refused by
/// whoever asks for a number.
fn typed(name: &str, text: String) -> Value {
    if NUMBERS.contains(&name)
        && let Ok(number) = text.parse::<i64>()
    {
        return Value::from(number);
    }
    match text.as_str() {
        "true" if FLAGS.contains(&name) => Value::Bool(true),
        "false" if FLAGS.contains(&name) => Value::Bool(false),
        _ => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(query: &str, body: Value) -> Result<Value, ApiError> {
        let mut fields = body.as_object().cloned().expect("an object");
        add_query(&format!("/x?{query}").parse().expect("an address"), &mut fields)?;
        Ok(Value::Object(fields))
    }

    #[test]
    fn a_query_becomes_typed_fields() {
        let read = fields("cube=a%20b&limit=5&kind=fact&kind=event&trace=true&as_of=x", json!({})).expect("read");
        let expected = json!({"cube": "a b", "limit": 5, "kind": ["fact", "event"], "trace": true, "as_of": "x"});
        assert_eq!(read, expected);
        assert_eq!(fields("limit=five", json!({})).expect("read"), json!({"limit": "five"}));
    }

    #[test]
    fn nothing_is_given_twice() {
        for (query, body) in [("cube=a&cube=b", json!({})), ("cube=a", json!({"cube": "b"}))] {
            assert!(fields(query, body).expect_err("twice").to_string().contains("cube must be given once"));
        }
    }
}
