//! Dates and times as people write them, absolute and relative, resolved against the moment at which they were said.

use std::ops::Range;

use jiff::civil::Date;
use regex::Captures;

use super::calendar::{
    Direction, month_name, month_number, plus_days, plus_months, spelled, week_of, weekday_from, weekday_named,
};
use super::patterns::pattern;
use super::{Reference, TimeSpan};

/// What a date does in its sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearing {
    /// Something happens then.
    At,
    /// Something holds from then on.
    Since,
    /// Something holds until then.
    Until,
    /// It comes back every week or year and is no moment.
    Recurring,
}

/// A date in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    /// Its bytes.
    pub(super) span: Range<usize>,
    /// When that is.
    pub(super) time: TimeSpan,
    /// What it does.
    pub(super) bearing: Bearing,
    /// What to write instead, where the words lose their meaning with time.
    pub(super) absolute: Option<String>,
}

const MONTHS: &str = "(january|february|march|april|may|june|july|august|september|october|november|december|\
    jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec)";
const WEEKDAYS: &str = "(monday|tuesday|wednesday|thursday|friday|saturday|sunday)";
const NUMBERS: &str = "(a|an|one|two|three|four|five|six|seven|eight|nine|ten|twelve|\\d{1,3})";

pattern!(ISO, r"\b(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?\b");
pattern!(DAY_MONTH, &format!(r"(?i)\b(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {MONTHS}\b\.?(?:,? (\d{{4}})\b)?"));
pattern!(MONTH_DAY, &format!(r"(?i)\b{MONTHS}\.? (\d{{1,2}})(?:st|nd|rd|th)?\b(?:,? (\d{{4}})\b)?"));
pattern!(MONTH_YEAR, &format!(r"(?i)\b{MONTHS}\.?,? (\d{{4}})\b"));
pattern!(MONTH_ALONE, &format!(r"(?i)\b(in|since|until|till|by|from|next|last|this|early|late|mid) {MONTHS}\b"));
pattern!(YEAR, r"(?i)\b(?:in|since|until|till|by|from|during|of|before|after) ((?:19|20|21)\d{2})\b");
pattern!(NUMERIC, r"\b(\d{1,2})([./])(\d{1,2})[./](\d{4})\b");
pattern!(
    DAY_WORD,
    r"(?i)\b(the day after tomorrow|the day before yesterday|this morning|this afternoon|this evening|last night|today|tonight|tomorrow|yesterday)\b('s|’s)?"
);
pattern!(NEXT, &format!(r"(?i)\b(next|this|last|past|coming|previous) (week|month|year|weekend|{WEEKDAYS})\b('s|’s)?"));
pattern!(AHEAD, &format!(r"(?i)\bin {NUMBERS} (day|week|month|year)s?(?:'|’)?(?: time)?\b"));
pattern!(AGO, &format!(r"(?i)\b{NUMBERS} (day|week|month|year)s? ago\b"));
pattern!(WEEKDAY, &format!(r"(?i)\b(?:(every|each|on|by|until|till|since|from|for) )?{WEEKDAYS}(s)?\b"));
pattern!(HAN, r"(\d{4})年(\d{1,2})月(?:(\d{1,2})[日号號])?");
pattern!(HAN_DAY, r"今天|今日|明後日|明天|明日|后天|後天|昨天|昨日|前天");
pattern!(CLOCK, r"(?i)^,? (?:at|um|@) (?:(\d{1,2})(?:[:.](\d{2}))? ?(am|pm|a\.m\.|p\.m\.)?\b|(noon|midnight))");
pattern!(
    BEFORE,
    r"(?i)\b(on|by|until|till|since|from|before|after|for|of|in|starting|as of|during|at|up to|through)\s+$"
);

/// What a pattern found, before its place in the sentence is looked at.
struct Found {
    /// First day, and one past the last.
    days: (Date, Date),
    /// With its preposition: "on 2 March 2026".
    absolute: Option<(&'static str, String)>,
    /// Whether it names no particular moment.
    recurring: bool,
}

type Finder = fn(&Captures<'_>, Date, Direction) -> Option<Found>;

/// The dates of a text in their order, none overlapping another. `direction` says where dates without a year lie.
pub(super) fn find_dates(text: &str, reference: &Reference, direction: Direction) -> Vec<Mention> {
    let Some(today) = reference.today() else { return Vec::new() };
    let finders: [(&regex::Regex, Finder); 13] = [
        (&ISO, |found, _, _| single(date(&found[1], &found[2], &found[3])?)),
        (&HAN, han),
        (&DAY_MONTH, |found, today, direction| day_of(&found[1], &found[2], found.get(3), today, direction)),
        (&MONTH_DAY, |found, today, direction| day_of(&found[2], &found[1], found.get(3), today, direction)),
        (&MONTH_YEAR, |found, _, _| month(found[2].parse().ok()?, month_number(&found[1])?)),
        (&NUMERIC, numeric),
        (&DAY_WORD, day_word),
        (&HAN_DAY, han_day),
        (&NEXT, next),
        (&AHEAD, |found, today, _| counted(&found[1], &found[2], today, 1)),
        (&AGO, |found, today, _| counted(&found[1], &found[2], today, -1)),
        (&MONTH_ALONE, month_alone),
        (&YEAR, |found, _, _| {
            let year: i16 = found[1].parse().ok()?;
            span(Date::new(year, 1, 1).ok()?, Date::new(year.checked_add(1)?, 1, 1).ok()?)
        }),
    ];
    let mut mentions: Vec<Mention> = Vec::new();
    for (regex, finder) in finders.iter().copied().chain([(&*WEEKDAY, weekday as Finder)]) {
        for captures in regex.captures_iter(text) {
            let whole = captures.get(0).expect("a match has a whole: this is a bug").range();
            if mentions.iter().any(|known| whole.start < known.span.end && known.span.start < whole.end) {
                continue;
            }
            if let Some(mention) =
                finder(&captures, today, direction).and_then(|found| place(text, whole, found, reference, regex))
            {
                mentions.push(mention);
            }
        }
    }
    mentions.sort_by_key(|mention| mention.span.start);
    mentions
}

/// The text with every date that ages written out.
pub(super) fn with_absolute_dates(text: &str, mentions: &[Mention]) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut end = 0;
    for mention in mentions {
        if let Some(absolute) = &mention.absolute {
            out.push_str(&text[end..mention.span.start]);
            out.push_str(absolute);
            end = mention.span.end;
        }
    }
    out.push_str(&text[end..]);
    out
}

fn place(
    text: &str,
    whole: Range<usize>,
    found: Found,
    reference: &Reference,
    regex: &regex::Regex,
) -> Option<Mention> {
    let own = text[whole.clone()].split_whitespace().next().unwrap_or_default().to_lowercase();
    let before = BEFORE.captures(&text[..whole.start]).map(|before| before[1].to_lowercase());
    let word = before.as_deref().unwrap_or(&own);
    let bearing = match word {
        _ if found.recurring => Bearing::Recurring,
        "since" | "from" | "starting" | "as of" => Bearing::Since,
        "until" | "till" | "up to" | "through" => Bearing::Until,
        _ => Bearing::At,
    };
    let mut time = reference.days(found.days.0, found.days.1)?;
    if let Some(clock) = CLOCK.captures(&text[whole.end..])
        && let Some(hour) = hour(&clock, found.days.0, reference)
    {
        time = hour;
    }
    let possessive = text[whole.clone()].ends_with("'s") || text[whole.clone()].ends_with("’s");
    let is_han = std::ptr::eq(regex, &*HAN_DAY);
    let absolute = found
        .absolute
        .filter(|_| !possessive)
        .map(|(preposition, date)| if before.is_some() || is_han { date } else { format!("{preposition} {date}") });
    Some(Mention { span: whole, time, bearing, absolute })
}

fn hour(clock: &Captures<'_>, day: Date, reference: &Reference) -> Option<TimeSpan> {
    if let Some(word) = clock.get(4) {
        return reference.hour(day, if word.as_str().eq_ignore_ascii_case("noon") { 12 } else { 0 }, 0);
    }
    let mut hour: i8 = clock[1].parse().ok()?;
    let minute = clock.get(2).map_or(Some(0), |minute| minute.as_str().parse().ok())?;
    match clock.get(3).map(|half| half.as_str().to_lowercase().starts_with('p')) {
        Some(true) if hour < 12 => hour += 12,
        Some(false) if hour == 12 => hour = 0,
        _ => {}
    }
    reference.hour(day, hour, minute)
}

fn date(year: &str, month: &str, day: &str) -> Option<Date> {
    Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
}

fn span(start: Date, end: Date) -> Option<Found> {
    Some(Found { days: (start, end), absolute: None, recurring: false })
}

fn single(day: Date) -> Option<Found> {
    span(day, plus_days(day, 1)?)
}

fn month(year: i16, month: i8) -> Option<Found> {
    let start = Date::new(year, month, 1).ok()?;
    span(start, plus_months(start, 1)?)
}

fn relative(start: Date, end: Date, preposition: &'static str, date: String) -> Option<Found> {
    Some(Found { days: (start, end), absolute: Some((preposition, date)), recurring: false })
}

fn han(found: &Captures<'_>, _: Date, _: Direction) -> Option<Found> {
    match found.get(3) {
        Some(day) => single(date(&found[1], &found[2], day.as_str())?),
        None => month(found[1].parse().ok()?, found[2].parse().ok()?),
    }
}

fn han_day(found: &Captures<'_>, today: Date, _: Direction) -> Option<Found> {
    let num_days = match &found[0] {
        "明天" | "明日" => 1,
        "后天" | "後天" | "明後日" => 2,
        "昨天" | "昨日" => -1,
        "前天" => -2,
        _ => 0,
    };
    let day = plus_days(today, num_days)?;
    let date = format!("{}年{}月{}日", day.year(), day.month(), day.day());
    relative(day, plus_days(day, 1)?, "", date)
}

/// A day of a month; without a year, the nearest one in the direction.
fn day_of(day: &str, name: &str, year: Option<regex::Match<'_>>, today: Date, direction: Direction) -> Option<Found> {
    let (day, month) = (day.parse().ok()?, month_number(name)?);
    if let Some(year) = year {
        return single(Date::new(year.as_str().parse().ok()?, month, day).ok()?);
    }
    // 29 February may be four years away, eight around a century.
    let years: Vec<i16> = match direction {
        Direction::Later => (0..=8).map(|num_years| today.year() + num_years).collect(),
        Direction::Earlier => (0..=8).map(|num_years| today.year() - num_years).collect(),
    };
    let fits = |date: &Date| if direction == Direction::Later { *date >= today } else { *date <= today };
    single(years.into_iter().filter_map(|year| Date::new(year, month, day).ok()).find(fits)?)
}

/// `13.2.2027` is the thirteenth; `2/13/2027` too, but `2/3/2027` could be either and is no date here.
fn numeric(found: &Captures<'_>, _: Date, _: Direction) -> Option<Found> {
    let (first, second): (i8, i8) = (found[1].parse().ok()?, found[3].parse().ok()?);
    let year = found[4].parse().ok()?;
    let (day, month) = match &found[2] {
        "." => (first, second),
        _ if first > 12 => (first, second),
        _ if second > 12 => (second, first),
        _ => return None,
    };
    single(Date::new(year, month, day).ok()?)
}

fn day_word(found: &Captures<'_>, today: Date, _: Direction) -> Option<Found> {
    let word = found[1].to_lowercase();
    let num_days = match word.as_str() {
        "tomorrow" => 1,
        "the day after tomorrow" => 2,
        "yesterday" | "last night" => -1,
        "the day before yesterday" => -2,
        _ => 0,
    };
    let day = plus_days(today, num_days)?;
    let part = match word.as_str() {
        "tonight" | "this evening" => "the evening of ",
        "this morning" => "the morning of ",
        "this afternoon" => "the afternoon of ",
        "last night" => "the night of ",
        _ => "",
    };
    relative(day, plus_days(day, 1)?, "on", format!("{part}{}", spelled(day)))
}

fn next(found: &Captures<'_>, today: Date, _: Direction) -> Option<Found> {
    let step = match found[1].to_lowercase().as_str() {
        "next" | "coming" => 1,
        "last" | "past" | "previous" => -1,
        _ => 0,
    };
    match found[2].to_lowercase().as_str() {
        "week" => {
            let start = plus_days(week_of(today)?, 7 * step)?;
            relative(start, plus_days(start, 7)?, "in", format!("the week of {}", spelled(start)))
        }
        "weekend" => {
            let start = plus_days(week_of(today)?, 5 + 7 * step)?;
            relative(start, plus_days(start, 2)?, "on", format!("the weekend of {}", spelled(start)))
        }
        "month" => {
            let start = plus_months(today.first_of_month(), step)?;
            relative(start, plus_months(start, 1)?, "in", format!("{} {}", month_name(start.month()), start.year()))
        }
        "year" => {
            let year = today.year().checked_add(i16::try_from(step).ok()?)?;
            relative(Date::new(year, 1, 1).ok()?, Date::new(year.checked_add(1)?, 1, 1).ok()?, "in", year.to_string())
        }
        name => {
            let wanted = weekday_named(name)?;
            let day = match step {
                -1 => weekday_from(today, wanted, Direction::Earlier)?,
                // "Next Friday" said on a Tuesday means the Friday of the next week to many, and so it is read here.
                1 if found[1].eq_ignore_ascii_case("next") => {
                    plus_days(week_of(today)?, 7 + i64::from(wanted.to_monday_zero_offset()))?
                }
                _ => weekday_from(plus_days(today, -1)?, wanted, Direction::Later)?,
            };
            let weekday: String = super::person::capitalised(name);
            relative(day, plus_days(day, 1)?, "on", format!("{weekday}, {}", spelled(day)))
        }
    }
}

fn counted(number: &str, unit: &str, today: Date, sign: i64) -> Option<Found> {
    let number = sign * number_word(number)?;
    match unit.to_lowercase().as_str() {
        "day" | "week" => {
            let num_days = if unit.eq_ignore_ascii_case("week") { 7 * number } else { number };
            let day = plus_days(today, num_days)?;
            relative(day, plus_days(day, 1)?, "on", spelled(day))
        }
        "month" => {
            let start = plus_months(today.first_of_month(), number)?;
            relative(start, plus_months(start, 1)?, "in", format!("{} {}", month_name(start.month()), start.year()))
        }
        _ => {
            let year = today.year().checked_add(i16::try_from(number).ok()?)?;
            relative(Date::new(year, 1, 1).ok()?, Date::new(year.checked_add(1)?, 1, 1).ok()?, "in", year.to_string())
        }
    }
}

/// The number that a word or digits name.
pub(super) fn number_word(word: &str) -> Option<i64> {
    const WORDS: [&str; 13] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let lower = word.to_lowercase();
    if matches!(lower.as_str(), "a" | "an") {
        return Some(1);
    }
    WORDS
        .iter()
        .position(|known| *known == lower)
        .and_then(|index| i64::try_from(index).ok())
        .or_else(|| lower.parse().ok())
}

fn month_alone(found: &Captures<'_>, today: Date, direction: Direction) -> Option<Found> {
    let number = month_number(&found[2])?;
    let year = today.year();
    let year = match found[1].to_lowercase().as_str() {
        "last" if number >= today.month() => year - 1,
        "next" if number <= today.month() => year + 1,
        "last" | "next" | "this" => year,
        "since" if number > today.month() => year - 1,
        "since" => year,
        _ if direction == Direction::Earlier && number > today.month() => year - 1,
        _ if direction == Direction::Later && number < today.month() => year + 1,
        _ => year,
    };
    month(year, number)
}

/// "On Friday" is the next one, or the last one in the past; "every Friday" and "Fridays" are none in particular.
fn weekday(found: &Captures<'_>, today: Date, direction: Direction) -> Option<Found> {
    let own = found.get(1).map(|own| own.as_str().to_lowercase());
    let recurring = found.get(3).is_some() || own.as_deref().is_some_and(|own| own == "every" || own == "each");
    let day = weekday_from(today, weekday_named(&found[2])?, direction)?;
    Some(Found { days: (day, plus_days(day, 1)?), absolute: None, recurring })
}

#[cfg(test)]
#[path = "dates_tests.rs"]
mod tests;
