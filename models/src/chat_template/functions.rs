//! What chat templates expect of their environment beyond plain Jinja: Python's printing, JSON and string methods.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use serde_json::Value as Json;

/// An environment set up as transformers sets up Jinja for chat templates.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .expect("default delimiters: this is a bug"),
    );
    // Prompts are no HTML, whatever a template is called.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // Errors must not quote variables: they hold the conversation.
    environment.set_debug(false);
    environment.set_formatter(python_formatter);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    // As in Jinja: none is not iterable, which templates ask before they look at a message's content.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: String| strftime(&format, unix_seconds()));
    environment
}

/// What a template said with `raise_exception`, if that is why it failed.
pub(super) fn raised(error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return Some(message.clone());
        }
        cause = current.source();
    }
    None
}

/// Replaces `{% generation %}` and `{% endgeneration %}`, which mark answers for training, by blocks without effect.
pub(super) fn without_generation_tags(template: &str) -> String {
    let mut result = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        result.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let name = tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['}', '%', '-', '+']).trim();
        match name {
            "generation" => result.push_str(&tag.replacen(name, "if true", 1)),
            "endgeneration" => result.push_str(&tag.replacen(name, "endif", 1)),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

/// The source of errors made by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "the template raised an exception").with_source(Raised(message)))
}

/// Prints constants as Python does.
fn python_formatter(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(text).map_err(Error::from)
}

/// Python's `json.dumps` with its defaults in transformers: nothing escaped for HTML, non-ASCII characters kept.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let failed =
        |source| Error::new(ErrorKind::InvalidOperation, "the value cannot be written as JSON").with_source(source);
    let mut json = serde_json::to_value(value).map_err(failed)?;
    let separators: Option<(String, String)> = match options.get::<Option<Vec<String>>>("separators")? {
        Some(pair) => match <[String; 2]>::try_from(pair) {
            Ok([item, key]) => Some((item, key)),
            Err(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators must be a pair")),
        },
        None => None,
    };
    let indent: Option<usize> = options.get("indent")?;
    let is_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    if options.get::<Option<bool>>("sort_keys")?.unwrap_or(false) {
        json.sort_all_objects();
    }
    options.assert_all_used()?;
    let (item, key) = separators.unwrap_or_else(|| (if indent.is_some() { "," } else { ", " }.into(), ": ".into()));
    let mut writer = JsonWriter { out: String::new(), item, key, indent, is_ascii };
    writer.value(&json, 0);
    Ok(writer.out)
}

/// Writes JSON the way Python's `json` module spaces it.
struct JsonWriter {
    out: String,
    /// Between items.
    item: String,
    /// Between key and value.
    key: String,
    /// Spaces of a level; `None`: all on one line.
    indent: Option<usize>,
    /// Whether characters beyond ASCII are escaped.
    is_ascii: bool,
}

impl JsonWriter {
    fn value(&mut self, value: &Json, depth: usize) {
        match value {
            Json::Null => self.out.push_str("null"),
            Json::Bool(flag) => self.out.push_str(if *flag { "true" } else { "false" }),
            Json::Number(number) => self.out.push_str(&python_number(number)),
            Json::String(text) => self.text(text),
            Json::Array(items) if items.is_empty() => self.out.push_str("[]"),
            Json::Array(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.begin_item(index, depth + 1);
                    self.value(item, depth + 1);
                }
                self.new_line(depth);
                self.out.push(']');
            }
            Json::Object(fields) if fields.is_empty() => self.out.push_str("{}"),
            Json::Object(fields) => {
                self.out.push('{');
                for (index, (name, field)) in fields.iter().enumerate() {
                    self.begin_item(index, depth + 1);
                    self.text(name);
                    self.out.push_str(&self.key);
                    self.value(field, depth + 1);
                }
                self.new_line(depth);
                self.out.push('}');
            }
        }
    }

    fn begin_item(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push_str(&self.item);
        }
        self.new_line(depth);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.is_ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(self.out, "\\u{unit:04x}").expect("writing to a string cannot fail: this is a bug");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A number as Python prints it: exponents have a sign and at least two digits.
fn python_number(number: &serde_json::Number) -> String {
    let text = number.to_string();
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent.trim_start_matches('+')),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment (seconds since 1970, UTC) in the codes of C's `strftime` that templates use; other codes stay as they are.
fn strftime(format: &str, unix_seconds: i64) -> String {
    let days = unix_seconds.div_euclid(86_400);
    let second_of_day = unix_seconds.rem_euclid(86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let weekday = WEEKDAYS[(days + 4).rem_euclid(7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let is_unpadded = after.starts_with('-');
        let after = after.strip_prefix('-').unwrap_or(after);
        let Some(code) = after.chars().next() else {
            out.push('%');
            return out;
        };
        let number = |value: i64| if is_unpadded { value.to_string() } else { format!("{value:02}") };
        match code {
            'Y' => out.push_str(&year.to_string()),
            'y' => out.push_str(&number(year % 100)),
            'm' => out.push_str(&number(month)),
            'd' => out.push_str(&number(day)),
            'e' => out.push_str(&format!("{day:2}")),
            'H' => out.push_str(&number(hour)),
            'I' => out.push_str(&number((hour + 11) % 12 + 1)),
            'M' => out.push_str(&number(minute)),
            'S' => out.push_str(&number(second)),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'B' => out.push_str(month_name),
            'b' | 'h' => out.push_str(&month_name[..3]),
            'A' => out.push_str(weekday),
            'a' => out.push_str(&weekday[..3]),
            'F' => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            'T' => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            'Z' => out.push_str("UTC"),
            'z' => out.push_str("+0000"),
            '%' => out.push('%'),
            other => {
                out.push('%');
                out.push(other);
            }
        }
        rest = &after[code.len_utf8()..];
    }
    out.push_str(rest);
    out
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_in_the_usual_codes() {
        // 2024-02-29 13:05:09 UTC, a Thursday.
        let moment = 1_709_211_909;
        assert_eq!(strftime("%d %b %Y", moment), "29 Feb 2024");
        assert_eq!(strftime("%A, %B %-d, %Y %I:%M %p", moment), "Thursday, February 29, 2024 01:05 PM");
        assert_eq!(strftime("%F %T %% %Q %", moment), "2024-02-29 13:05:09 % %Q %");
        assert_eq!(strftime("%Y-%m-%d", 0), "1970-01-01");
        assert_eq!(strftime("%Y-%m-%d", -1), "1969-12-31");
    }

    #[test]
    fn generation_tags_become_blocks_without_effect_and_keep_their_whitespace_control() {
        let template = "a{%- generation -%} b {%- endgeneration %}c{% if x %}{% endif %}";
        assert_eq!(without_generation_tags(template), "a{%- if true -%} b {%- endif %}c{% if x %}{% endif %}");
        assert_eq!(without_generation_tags("{% generation"), "{% if true");
    }
}
