//! Values of statements in one spelling, so that "July 12th" is "12 July" and "07:30" is "7.30 am"; and how two compare.

use super::calendar::month_number;
use super::dates::number_word;
use super::patterns::pattern;

pattern!(DAY_FIRST, r"^(?:on )?(?:the )?(\d{1,2})(?:st|nd|rd|th)?(?: of)? ([a-z]{3,9})\.?(?:,? (\d{4}))?$");
pattern!(MONTH_FIRST, r"^(?:on )?([a-z]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?(?:,? (\d{4}))?$");
// The spelling that `day` gives, so that a value that was read once is read the same again.
pattern!(DAY_KEY, r"^day (?:\d{4}-)?\d{2}-\d{2}$");
pattern!(ISO_DAY, r"^(?:on )?(\d{4})-(\d{2})-(\d{2})$");
pattern!(CLOCK, r"^(?:at )?(\d{1,2})(?:([:.])(\d{2}))? ?(am|pm|a\.m\.?|p\.m\.?|o'clock|h)?$");
pattern!(DIGITS, r"^\+?[\d][\d \-./()]*$");
pattern!(MONEY, r"^(?:about )?(?:([$€£]) ?([\d.,]+)|([\d.,]+) ?(dollars?|usd|euros?|eur|€|\$|£|pounds?|gbp))$");

/// A value in the spelling in which values are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    tokens: Vec<String>,
}

/// How two values stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The same.
    Equal,
    /// One says more than the other: "Oslo" and "Oslo, Norway".
    Refines,
    /// Neither.
    Different,
}

/// Words in front of which the next one belongs to a name: "New York" is no kind of "York".
const NAME_STARTS: &[&str] =
    &["new", "san", "santa", "los", "las", "saint", "st", "south", "north", "east", "west", "el"];
const FILLERS: &[&str] =
    &["the", "a", "an", "of", "in", "at", "on", "to", "for", "and", "with", "my", "his", "her", "very", "is"];
const SYNONYMS: &[(&str, &str)] = &[
    ("color", "colour"),
    ("gray", "grey"),
    ("uk", "united kingdom"),
    ("usa", "united states"),
    ("us", "united states"),
    ("nyc", "new york"),
    ("mum", "mother"),
    ("mom", "mother"),
    ("dad", "father"),
    ("flat", "apartment"),
    ("bike", "bicycle"),
    ("physician", "doctor"),
    ("soccer", "football"),
    ("aubergine", "eggplant"),
    ("programmer", "developer"),
    ("mon", "monday"),
    ("tue", "tuesday"),
    ("wed", "wednesday"),
    ("thu", "thursday"),
    ("fri", "friday"),
    ("sat", "saturday"),
    ("sun", "sunday"),
    ("mondays", "monday"),
    ("tuesdays", "tuesday"),
    ("wednesdays", "wednesday"),
    ("thursdays", "thursday"),
    ("fridays", "friday"),
    ("saturdays", "saturday"),
    ("sundays", "sunday"),
    ("peanuts", "peanut"),
    ("nuts", "nut"),
];

impl Value {
    /// The value that this text names.
    pub(super) fn of(text: &str) -> Self {
        let text = text.to_lowercase();
        let text = text.trim_matches(|character: char| {
            character.is_whitespace() || matches!(character, '"' | '“' | '”' | '.' | ',' | '!' | ';' | '\'' | '«' | '»')
        });
        let bare = ["the ", "a ", "an ", "called ", "named "]
            .iter()
            .find_map(|start| text.strip_prefix(start))
            .unwrap_or(text);
        let exact = day(bare).or_else(|| money(bare)).or_else(|| digits(bare)).or_else(|| clock(bare));
        Self { tokens: exact.map_or_else(|| words(bare), |exact| vec![exact]) }
    }

    /// Its spelling.
    pub(super) fn as_text(&self) -> String {
        self.tokens.join(" ")
    }

    /// How it stands to another value.
    pub(super) fn compare(&self, other: &Self) -> Comparison {
        let within = |few: &Self, many: &Self| few.tokens.iter().all(|token| many.tokens.contains(token));
        match (within(self, other), within(other, self)) {
            _ if self.tokens == other.tokens => Comparison::Equal,
            (true, true) => Comparison::Equal,
            (false, false) => match (self.tokens.as_slice(), other.tokens.as_slice()) {
                // A day with a year says more than the same day without one.
                ([one], [two]) if is_same_day(one, two) => Comparison::Refines,
                _ => Comparison::Different,
            },
            _ => Comparison::Refines,
        }
    }

    /// Whether both look alike: two numbers, two names of as many words. A pronoun's value must look like what it replaces.
    pub(super) fn is_shaped_like(&self, other: &Self) -> bool {
        let shape = |value: &Self| {
            let text = value.as_text();
            let has_digit = text.chars().any(|character| character.is_ascii_digit());
            (has_digit, value.tokens.len() == 1)
        };
        let (one, two) = (shape(self), shape(other));
        one.0 == two.0 && (one.1 == two.1 || !one.0)
    }
}

fn is_same_day(one: &str, two: &str) -> bool {
    let month_day = |text: &str| text.strip_prefix("day ").map(|day| day[day.len().saturating_sub(5)..].to_owned());
    one.len() != two.len() && month_day(one).is_some() && month_day(one) == month_day(two)
}

fn day(text: &str) -> Option<String> {
    if DAY_KEY.is_match(text) {
        return Some(text.to_owned());
    }
    let spelled = |year: Option<&str>, month: i8, day: &str| {
        let day: u8 = day.parse().ok()?;
        Some(match year {
            Some(year) => format!("day {year}-{month:02}-{day:02}"),
            None => format!("day {month:02}-{day:02}"),
        })
    };
    if let Some(found) = ISO_DAY.captures(text) {
        return spelled(Some(&found[1]), found[2].parse().ok()?, &found[3]);
    }
    if let Some(found) = DAY_FIRST.captures(text) {
        return spelled(found.get(3).map(|year| year.as_str()), month_number(&found[2])?, &found[1]);
    }
    let found = MONTH_FIRST.captures(text)?;
    spelled(found.get(3).map(|year| year.as_str()), month_number(&found[1])?, &found[2])
}

fn money(text: &str) -> Option<String> {
    let found = MONEY.captures(text)?;
    let (amount, unit) = match (found.get(2), found.get(3)) {
        (Some(amount), _) => (amount.as_str(), &found[1]),
        (None, Some(amount)) => (amount.as_str(), &found[4]),
        (None, None) => return None,
    };
    let unit = match unit.chars().next()? {
        '$' | 'd' | 'u' => "usd",
        '€' | 'e' => "eur",
        _ => "gbp",
    };
    let amount = amount.replace(',', "");
    Some(format!("{} {unit}", amount.strip_suffix(".00").unwrap_or(&amount)))
}

/// Codes and phone numbers are their digits, however they are grouped; a version keeps its points.
fn digits(text: &str) -> Option<String> {
    let is_clock = text.len() <= 5 && text.contains(':');
    let is_version = text.contains('.') && !text.contains(' ');
    let is_short = text.chars().filter(char::is_ascii_digit).count() < 3;
    if !DIGITS.is_match(text) || is_clock || is_version || (is_short && text.len() > 2) {
        return None;
    }
    Some(text.chars().filter(char::is_ascii_digit).collect())
}

fn clock(text: &str) -> Option<String> {
    let found = CLOCK.captures(text)?;
    let half = found.get(4).map(|half| half.as_str());
    // "12.50" alone is an amount or a version; with "am" or a colon it is a time.
    if half.is_none() && found.get(2).map(|point| point.as_str()) != Some(":") {
        return None;
    }
    let mut hour: u8 = found[1].parse().ok()?;
    match half {
        Some(half) if half.starts_with('p') && hour < 12 => hour += 12,
        Some(half) if half.starts_with('a') && hour == 12 => hour = 0,
        _ => {}
    }
    (hour < 25).then(|| format!("at {hour:02}:{}", found.get(3).map_or("00", |minute| minute.as_str())))
}

fn words(text: &str) -> Vec<String> {
    let raw: Vec<String> = text
        .split(|character: char| character.is_whitespace() || matches!(character, ',' | ';' | '(' | ')' | '"'))
        .map(|word| {
            word.trim_matches(|character: char| matches!(character, '.' | '\'' | '"' | '“' | '”' | '!')).to_owned()
        })
        .filter(|word| !word.is_empty())
        .collect();
    let mut tokens: Vec<String> = Vec::new();
    let mut start: Option<String> = None;
    for word in &raw {
        if NAME_STARTS.contains(&word.as_str()) && start.is_none() && raw.len() > 1 {
            start = Some(word.clone());
            continue;
        }
        let word = match start.take() {
            Some(start) => format!("{start} {word}"),
            None => word.clone(),
        };
        let synonym = SYNONYMS.iter().find(|(from, _)| *from == word).map(|(_, to)| (*to).to_owned());
        let number = if word.len() > 2 { number_word(&word).map(|number| number.to_string()) } else { None };
        let number = number.filter(|_| !word.starts_with('0'));
        tokens.push(synonym.or(number).unwrap_or(word));
    }
    tokens.extend(start);
    let kept: Vec<String> = tokens.iter().filter(|word| !FILLERS.contains(&word.as_str())).cloned().collect();
    if kept.is_empty() { tokens } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(one: &str, two: &str) -> Comparison {
        Value::of(one).compare(&Value::of(two))
    }

    #[test]
    fn one_value_has_many_spellings() {
        for (one, two) in [
            ("12 July", "July 12th"),
            ("the 12th of July", "12 July"),
            ("2027-07-12", "12 July 2027"),
            ("07:30", "7.30 am"),
            ("7 pm", "19:00"),
            ("44-71", "4471"),
            ("555 12 34", "5551234"),
            ("$5", "5 dollars"),
            ("€ 5.00", "5 euros"),
            ("gray", "Grey."),
            ("a nurse", "nurse"),
            ("NYC", "New York"),
            ("\"Rex\"", "Rex"),
            ("three", "3"),
            ("Fridays", "Friday"),
        ] {
            assert_eq!(compare(one, two), Comparison::Equal, "{one:?} and {two:?}");
        }
    }

    #[test]
    fn a_spelling_is_read_as_itself() {
        for text in ["12 July", "July 12th 1990", "7 pm", "$5", "44-71", "New York", "three", "Oslo, Norway", "12.50"] {
            let value = Value::of(text);
            assert_eq!(Value::of(&value.as_text()), value, "{text:?}");
        }
    }

    #[test]
    fn more_detail_is_no_difference_and_another_value_is() {
        for (one, two) in [("Oslo", "Oslo, Norway"), ("engineer", "senior engineer"), ("12 July", "12 July 1990")] {
            assert_eq!(compare(one, two), Comparison::Refines, "{one:?} and {two:?}");
        }
        for (one, two) in [
            ("York", "New York"),
            ("4471", "4472"),
            ("12 July", "12 June"),
            ("0.10.5", "0.10.6"),
            ("1.2", "12"),
            ("7 am", "7 pm"),
            ("Anna", "Ana"),
            ("12 July 1990", "12 July 1991"),
            ("007", "7"),
        ] {
            assert_eq!(compare(one, two), Comparison::Different, "{one:?} and {two:?}");
        }
    }
}
