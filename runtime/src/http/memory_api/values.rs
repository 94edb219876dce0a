//! Single values of the memory API: ids, moments, names, lists of them. Each error names the field and the value.

use std::collections::BTreeMap;
use std::str::FromStr;

use memory::item::{LABEL_BYTES_MAX, METADATA_BYTES_MAX, NUM_LABELS_MAX};
use memory::{ItemId, Timestamp};
use serde_json::Value;

use crate::http::error::ApiError;
use crate::http::fields::{Fields, describe, quoted, wrong_type};

/// What a moment must look like.
const MOMENT: &str = "a time in RFC 3339 with an offset, such as 2026-03-01T12:00:00Z";
/// What an id must look like.
const ID: &str = "a UUID in lower case";

/// A text as the value that it stands for.
///
/// # Errors
/// It stands for none.
pub fn parsed<T: FromStr>(param: &str, text: &str, allowed: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_refused| ApiError::OutOfRange {
        param: param.to_owned(),
        allowed: allowed.to_owned(),
        got: format!("{:?}", quoted(text)),
    })
}

/// Takes a text that stands for a value.
///
/// # Errors
/// It is no text, or stands for no value.
pub fn take<T: FromStr>(fields: &mut Fields, field: &str, allowed: &str) -> Result<Option<T>, ApiError> {
    let name = fields.name(field);
    fields.text(field)?.map(|text| parsed(&name, &text, allowed)).transpose()
}

/// Takes a text that must be there.
///
/// # Errors
/// It is not there, no text, or empty.
pub fn require_text(fields: &mut Fields, field: &str) -> Result<String, ApiError> {
    let param = fields.name(field);
    match fields.text(field)? {
        Some(text) if !text.is_empty() => Ok(text),
        Some(_empty) => Err(ApiError::OutOfRange {
            param,
            allowed: "a text of at least one character".to_owned(),
            got: "\"\"".to_owned(),
        }),
        None => Err(ApiError::Missing { param }),
    }
}

/// A moment.
///
/// # Errors
/// It is none.
pub fn moment(fields: &mut Fields, field: &str) -> Result<Option<Timestamp>, ApiError> {
    take(fields, field, MOMENT)
}

/// A field of a patch: absent, `null`, or a value.
///
/// # Errors
/// Its value is no moment.
pub fn moment_or_null(fields: &mut Fields, field: &str) -> Result<Option<Option<Timestamp>>, ApiError> {
    let name = fields.name(field);
    match fields.take_with_null(field) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(text)) => Ok(Some(Some(parsed(&name, &text, MOMENT)?))),
        Some(other) => Err(wrong_type(name, "a string or null", &other)),
    }
}

/// The id in a path.
///
/// # Errors
/// It is none.
pub fn item_id(param: &str, text: &str) -> Result<ItemId, ApiError> {
    parsed(param, text, ID)
}

/// Takes an id.
///
/// # Errors
/// It is none.
pub fn take_item_id(fields: &mut Fields, field: &str) -> Result<Option<ItemId>, ApiError> {
    take(fields, field, ID)
}

/// Takes a list of texts, of at most `most`, each standing for a value.
///
/// # Errors
/// It is no list, too long, or holds something else.
pub fn list_of<T: FromStr>(
    fields: &mut Fields,
    field: &str,
    (most, allowed): (usize, &str),
) -> Result<Option<Vec<T>>, ApiError> {
    let name = fields.name(field);
    let Some(list) = fields.list(field)? else { return Ok(None) };
    if list.len() > most {
        let allowed = format!("a list of at most {most}");
        return Err(ApiError::OutOfRange { param: name, allowed, got: format!("a list of {}", list.len()) });
    }
    let value = |(index, value): (usize, &Value)| match value {
        Value::String(text) => parsed(&format!("{name}[{index}]"), text, allowed),
        other => Err(wrong_type(format!("{name}[{index}]"), "a string", other)),
    };
    list.iter().enumerate().map(value).collect::<Result<_, _>>().map(Some)
}

/// Takes a list of ids.
///
/// # Errors
/// As [`list_of`].
pub fn item_ids(fields: &mut Fields, field: &str, most: usize) -> Result<Option<Vec<ItemId>>, ApiError> {
    list_of(fields, field, (most, ID))
}

/// Takes a list of tags or entities.
///
/// # Errors
/// As [`list_of`]; or one is longer than a label may be.
pub fn labels(fields: &mut Fields, field: &str) -> Result<Option<Vec<String>>, ApiError> {
    let name = fields.name(field);
    let labels: Option<Vec<String>> = list_of(fields, field, (NUM_LABELS_MAX, "a text"))?;
    for (index, label) in labels.iter().flatten().enumerate() {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            let (param, got) = (format!("{name}[{index}]"), format!("{} bytes", label.len()));
            return Err(ApiError::OutOfRange { param, allowed: format!("1 to {LABEL_BYTES_MAX} bytes"), got });
        }
    }
    Ok(labels)
}

/// Takes a number between 0 and 1.
///
/// # Errors
/// It is something else.
pub fn fraction(fields: &mut Fields, field: &str) -> Result<Option<f32>, ApiError> {
    let param = fields.name(field);
    match fields.number(field)? {
        Some(number) if !(0.0..=1.0).contains(&number) => {
            Err(ApiError::OutOfRange { param, allowed: "between 0 and 1".to_owned(), got: number.to_string() })
        }
        number => Ok(number.map(|number| number as f32)),
    }
}

/// Takes what the client keeps with a memory.
///
/// # Errors
/// It is no object, or too large.
pub fn metadata(fields: &mut Fields, field: &str) -> Result<Option<BTreeMap<String, Value>>, ApiError> {
    let param = fields.name(field);
    let Some(object) = fields.object(field)? else { return Ok(None) };
    let metadata: BTreeMap<String, Value> = object.into_map().into_iter().collect();
    let bytes = Value::from_iter(metadata.clone()).to_string().len();
    if bytes > METADATA_BYTES_MAX {
        let allowed = format!("an object of at most {METADATA_BYTES_MAX} bytes as JSON");
        return Err(ApiError::OutOfRange { param, allowed, got: format!("{bytes} bytes") });
    }
    Ok(Some(metadata))
}

/// Takes one of a few words.
///
/// # Errors
/// It is none of them.
pub fn choice<T: Copy>(fields: &mut Fields, field: &str, choices: &[(&str, T)]) -> Result<Option<T>, ApiError> {
    let param = fields.name(field);
    let Some(word) = fields.text(field)? else { return Ok(None) };
    match choices.iter().find(|(name, _)| *name == word) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let got = describe(&Value::String(word));
            Err(ApiError::OutOfRange { param, allowed: format!("one of {}", names.join(", ")), got })
        }
    }
}
