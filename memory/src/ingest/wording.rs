//! What the words of a statement say about its time and its denial, taken out of them so that the rest can be matched.

use super::calendar::Direction;
use super::dates::{Bearing, find_dates};
use super::patterns::pattern;
use super::statement::Polarity;
use super::verbs::third_person;
use super::{Reference, TimeSpan};
use crate::Timestamp;

/// The ends of the calendar in milliseconds since 1970, which stand for "since ever" and "until ever".
const EVER_MS: i64 = -377_705_023_201_000;
const NEVER_MS: i64 = 253_402_207_200_000;

pattern!(DENIES, r"\b(?:no longer|not|never|n't|anymore|any more)\b|n't\b");
pattern!(AUXILIARY, r"\b(does|do|did) (?:not|never) (\w+)|\b(doesn't|don't|didn't) (\w+)");
pattern!(STOPPED, r"\b(?:has )?(?:stopped|quit|gave up|given up) (\w+ing)\b");
pattern!(USED_TO, r"\bused to (\w+)\b");

/// The text without the time that it holds at ("in 2019", "since March 2024"), and that time. Dates that are values,
/// such as birthdays and deadlines, stay.
pub(super) fn without_time(text: &str, reference: &Reference) -> (String, Option<TimeSpan>) {
    let (Some(ever), Some(never)) = (Timestamp::from_unix_ms(EVER_MS), Timestamp::from_unix_ms(NEVER_MS)) else {
        return (text.to_owned(), None);
    };
    for mention in find_dates(text, reference, Direction::Earlier) {
        let words = &text[mention.span.clone()];
        let starts_inside =
            ["in ", "since ", "until ", "till ", "from ", "during "].iter().find(|start| words.starts_with(**start));
        let before = text[..mention.span.start].trim_end();
        let starts_before = ["in", "since", "until", "till", "from", "during"]
            .iter()
            .find(|word| before.rsplit(' ').next() == Some(**word));
        if (starts_inside.is_none() && starts_before.is_none())
            || text.contains("born")
            || mention.bearing == Bearing::Recurring
        {
            continue;
        }
        let start = starts_before.map_or(mention.span.start, |word| before.len() - word.len());
        let rest =
            collapsed(&format!("{} {}", &text[..start], text[mention.span.end..].trim_start_matches([',', ' '])));
        let time = match mention.bearing {
            Bearing::Since => TimeSpan { start: mention.time.start, end: never },
            Bearing::Until => TimeSpan { start: ever, end: mention.time.end },
            Bearing::At | Bearing::Recurring => mention.time,
        };
        return (rest.trim_end_matches(',').to_owned(), Some(time));
    }
    (text.to_owned(), None)
}

/// The text with its denial taken out, and whether its verb stood in the past.
pub(super) fn without_denial(text: &str) -> (String, Polarity, bool) {
    if let Some(found) = USED_TO.captures(text) {
        let verb = match &found[1] {
            "be" => "is".to_owned(),
            verb => third_person(verb),
        };
        // What used to be is told because it is so no more.
        return (USED_TO.replace(text, verb.as_str()).into_owned(), Polarity::Denied, false);
    }
    if let Some(found) = STOPPED.captures(text)
        && let Some(verb) = verb_of_gerund(&found[1])
    {
        return (STOPPED.replace(text, third_person(&verb).as_str()).into_owned(), Polarity::Denied, false);
    }
    let past_copula = text.contains(" was ") || text.contains(" were ") || text.contains(" wasn't ");
    let former = ["former ", "ex-", "previous ", "old "].iter().any(|word| text.contains(&format!("'s {word}")));
    if !DENIES.is_match(text) {
        return (text.to_owned(), Polarity::Affirmed, past_copula || former);
    }
    let (mut out, mut was) = (text.to_owned(), past_copula || former);
    if let Some(found) = AUXILIARY.captures(text) {
        let auxiliary = found.get(1).or_else(|| found.get(3)).map_or("", |word| word.as_str());
        let verb = found.get(2).or_else(|| found.get(4)).map_or("", |word| word.as_str());
        was |= auxiliary.starts_with("did");
        out = AUXILIARY.replace(text, third_person(verb).as_str()).into_owned();
    }
    for (from, to) in [
        ("isn't", "is"),
        ("aren't", "are"),
        ("wasn't", "was"),
        ("weren't", "were"),
        ("hasn't", "has"),
        ("can't", "can"),
        ("cannot", "can"),
        (" no longer", ""),
        (" not", ""),
        (" never", ""),
        (" anymore", ""),
        (" any more", ""),
        (" any ", " a "),
    ] {
        out = out.replace(from, to);
    }
    (out, Polarity::Denied, was)
}

fn verb_of_gerund(gerund: &str) -> Option<String> {
    let stem = gerund.strip_suffix("ing")?;
    let doubled = stem.chars().rev().nth(1) == stem.chars().last();
    let candidates =
        [format!("{stem}e"), stem.to_owned(), stem[..stem.len().saturating_sub(usize::from(doubled))].to_owned()];
    candidates.into_iter().find(|candidate| super::verbs::is_base(candidate))
}

/// On one line with single spaces.
pub(super) fn collapsed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ,", ",")
}
