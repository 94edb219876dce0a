//! Typed, range-checked access to the fields of a JSON configuration file; every error names file, field and value.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::ModelError;

/// Longest excerpt of a value that an error shows.
const MAX_SHOWN_CHARS: usize = 80;

/// The fields of one JSON object.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    file: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which `name` (a file or a field) holds.
    pub fn new(file: &'static str, name: &'static str, value: &'a Value) -> Result<Self, ModelError> {
        match value {
            Value::Object(map) => Ok(Self { file, map }),
            other => Err(ModelError::InvalidField { file, name, value: shortened(other), expected: "an object" }),
        }
    }

    /// The field's value; null counts as absent.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The field's value as it stands, null included.
    pub fn raw(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name)
    }

    /// The field as an object.
    pub fn object(&self, name: &'static str) -> Result<Option<Self>, ModelError> {
        self.get(name).map(|value| Self::new(self.file, name, value)).transpose()
    }

    /// The field as a whole number in `range`. `4.0` counts as 4.
    pub fn count(&self, name: &'static str, range: RangeInclusive<usize>) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        whole(value)
            .filter(|count| range.contains(count))
            .map(Some)
            .ok_or_else(|| self.invalid(name, "a whole number of a sensible size"))
    }

    /// Like [`count`](Self::count), for a field that must be there.
    pub fn required_count(&self, name: &'static str, range: RangeInclusive<usize>) -> Result<usize, ModelError> {
        self.count(name, range)?.ok_or(ModelError::MissingField { file: self.file, name })
    }

    /// The field as a finite number that is more than zero.
    pub fn positive(&self, name: &'static str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value
            .as_f64()
            .filter(|number| number.is_finite() && *number > 0.0)
            .map(Some)
            .ok_or_else(|| self.invalid(name, "a number above 0"))
    }

    /// The field as a finite number.
    pub fn number(&self, name: &'static str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_f64().filter(|number| number.is_finite()).map(Some).ok_or_else(|| self.invalid(name, "a number"))
    }

    /// Like [`positive`](Self::positive), for a field that must be there.
    pub fn required_positive(&self, name: &'static str) -> Result<f64, ModelError> {
        self.positive(name)?.ok_or(ModelError::MissingField { file: self.file, name })
    }

    /// The field as true or false.
    pub fn flag(&self, name: &'static str) -> Result<Option<bool>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.invalid(name, "true or false"))
    }

    /// The field as text.
    pub fn text(&self, name: &'static str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(name, "a string"))
    }

    /// The field as a list.
    pub fn list(&self, name: &'static str) -> Result<Option<&'a [Value]>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_array().map(|list| Some(list.as_slice())).ok_or_else(|| self.invalid(name, "a list"))
    }

    /// The field as one token id or a list of them.
    pub fn token_ids(&self, name: &'static str) -> Result<Vec<u32>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let id = |value: &Value| whole(value).and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(id).collect::<Option<Vec<u32>>>(),
            single => id(single).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.invalid(name, "a token id or a list of token ids"))
    }

    /// The error for a value that is not allowed.
    pub fn invalid(&self, name: &'static str, expected: &'static str) -> ModelError {
        let value = self.map.get(name).map_or_else(|| "absent".to_owned(), shortened);
        ModelError::InvalidField { file: self.file, name, value, expected }
    }

    /// The error for a field that is not there.
    pub fn missing(&self, name: &'static str) -> ModelError {
        ModelError::MissingField { file: self.file, name }
    }
}

/// A JSON number without a fraction, as a count.
fn whole(value: &Value) -> Option<usize> {
    let integer = value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        let is_exact = number >= 0.0 && number.fract() == 0.0 && number < (1u64 << 53) as f64;
        is_exact.then_some(number as u64)
    });
    usize::try_from(integer?).ok()
}

/// A value as JSON, cut to what fits into a message.
pub(crate) fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
