//! A JSON object read field by field: each value is checked for type and range, and what nobody asked for is refused by name.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Longest piece of a wrong value that is repeated to the client.
const QUOTED_LEN_MAX: usize = 64;

/// The fields of one object that have not been read yet.
#[derive(Debug)]
pub struct Fields {
    /// Where the object is in the body: empty for the body itself, `messages[2]`, `stream_options`.
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The fields of the body.
    pub fn of_body(map: Map<String, Value>) -> Self {
        Self { path: String::new(), map }
    }

    /// The fields of an object inside the body.
    ///
    /// # Errors
    /// The value is not an object.
    pub fn of_value(path: String, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            other => Err(wrong_type(path, "an object", &other)),
        }
    }

    /// A field's full name, as errors report it.
    pub fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// Takes a field out; `null` counts as absent, as OpenAI's clients send it.
    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field).filter(|value| !value.is_null())
    }

    /// Takes a field out where `null` means something else than its absence.
    pub fn take_with_null(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field)
    }

    /// Takes a field that must be there.
    ///
    /// # Errors
    /// It is not there.
    pub fn require(&mut self, field: &str) -> Result<Value, ApiError> {
        self.take(field).ok_or_else(|| ApiError::Missing { param: self.name(field) })
    }

    /// Takes a number.
    ///
    /// # Errors
    /// It is something else.
    pub fn number(&mut self, field: &str) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(wrong_type(self.name(field), "a number", &value)),
        }
    }

    /// Takes a whole number between two bounds, both included.
    ///
    /// # Errors
    /// It is something else, or outside the bounds.
    pub fn integer(&mut self, field: &str, least: i64, greatest: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        integer_of(&self.name(field), &value, least, greatest).map(Some)
    }

    /// Takes a count: a whole number between two bounds, both included.
    ///
    /// # Errors
    /// It is something else, or outside the bounds.
    pub fn count(&mut self, field: &str, least: usize, greatest: usize) -> Result<Option<usize>, ApiError> {
        let bound = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let number = self.integer(field, bound(least), bound(greatest))?;
        // Within bounds that are counts themselves, so the conversion cannot fail.
        Ok(number.and_then(|number| usize::try_from(number).ok()))
    }

    /// Takes `true` or `false`.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&mut self, field: &str) -> Result<Option<bool>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong_type(self.name(field), "true or false", &other)),
        }
    }

    /// Takes a string.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(self.name(field), "a string", &other)),
        }
    }

    /// Takes a list.
    ///
    /// # Errors
    /// It is something else.
    pub fn list(&mut self, field: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(wrong_type(self.name(field), "a list", &other)),
        }
    }

    /// Takes an object.
    ///
    /// # Errors
    /// It is something else.
    pub fn object(&mut self, field: &str) -> Result<Option<Fields>, ApiError> {
        let path = self.name(field);
        self.take(field).map(|value| Self::of_value(path, value)).transpose()
    }

    /// What is left, for objects that are passed on as they are.
    pub fn into_map(self) -> Map<String, Value> {
        self.map
    }

    /// Refuses a field of OpenAI's API that this server does not implement, unless it is absent or has the value
    /// that means "do nothing".
    ///
    /// # Errors
    /// It asks for something.
    pub fn refuse(&mut self, field: &str, harmless: &Value, reason: &'static str) -> Result<(), ApiError> {
        match self.take(field) {
            Some(value) if value != *harmless => Err(ApiError::Unsupported { param: self.name(field), reason }),
            _ => Ok(()),
        }
    }

    /// Ends the reading: every field that is left must be one of those that are ignored.
    ///
    /// # Errors
    /// A field is left that nothing here knows.
    pub fn finish(self, ignored: &[&str]) -> Result<(), ApiError> {
        let unknown = self.map.iter().find(|(field, value)| !value.is_null() && !ignored.contains(&field.as_str()));
        match unknown {
            Some((field, _value)) => Err(ApiError::UnknownField { param: quoted(&self.name(field)) }),
            None => Ok(()),
        }
    }
}

/// A whole number between two bounds, both included.
///
/// # Errors
/// It is something else, or outside the bounds.
pub fn integer_of(param: &str, value: &Value, least: i64, greatest: i64) -> Result<i64, ApiError> {
    let out_of_range = || ApiError::OutOfRange {
        param: param.to_owned(),
        allowed: if greatest == i64::MAX {
            format!("a whole number of at least {least}")
        } else {
            format!("a whole number between {least} and {greatest}")
        },
        got: describe(value),
    };
    match value.as_i64() {
        Some(number) if (least..=greatest).contains(&number) => Ok(number),
        Some(_) => Err(out_of_range()),
        None if value.is_number() => Err(out_of_range()),
        None => Err(wrong_type(param.to_owned(), "a whole number", value)),
    }
}

/// The error for a value of the wrong type.
pub fn wrong_type(param: String, expected: &'static str, got: &Value) -> ApiError {
    ApiError::WrongType { param, expected, got: describe(got) }
}

/// A value as errors name it: numbers as they are, strings quoted and cut, larger things by their kind.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{:?}", quoted(text)),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A client's text, cut to a length that is fit for an error message.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_LEN_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of_value(String::new(), value).expect("an object")
    }

    #[test]
    fn null_counts_as_absent() {
        let mut body = fields(json!({"seed": null, "user": null}));
        assert_eq!(body.integer("seed", 0, 1).expect("absent"), None);
        body.finish(&[]).expect("nothing left");
    }

    #[test]
    fn wrong_types_and_ranges_name_field_and_value() {
        let message = |result: Result<Option<i64>, ApiError>| result.expect_err("wrong").to_string();
        let mut body = fields(json!({"n": 0, "m": "two", "k": 1.5, "huge": 1e300, "big": u64::MAX}));
        assert_eq!(message(body.integer("n", 1, 8)), "n must be a whole number between 1 and 8, got 0");
        assert_eq!(message(body.integer("m", 1, 8)), "m must be a whole number, got \"two\"");
        assert_eq!(message(body.integer("k", 1, 8)), "k must be a whole number between 1 and 8, got 1.5");
        assert_eq!(message(body.integer("huge", 1, i64::MAX)), "huge must be a whole number of at least 1, got 1e+300");
        assert!(message(body.integer("big", 1, i64::MAX)).ends_with("got 18446744073709551615"));
    }

    #[test]
    fn unknown_fields_are_refused_with_their_path() {
        let mut body = fields(json!({"stream_options": {"include": true}}));
        let options = body.object("stream_options").expect("an object").expect("there");
        assert_eq!(options.finish(&[]).expect_err("unknown").to_string(), "unknown field stream_options.include");
        fields(json!({"user": "me"})).finish(&["user"]).expect("ignored");
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let text = "ä".repeat(1000);
        assert_eq!(describe(&json!(text)).chars().count(), QUOTED_LEN_MAX + 3);
    }
}
