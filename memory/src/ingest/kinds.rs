//! What sort of knowledge a sentence is, and when: preference, event, skill or fact, by its words and dates.

use super::calendar::Direction;
use super::dates::{Bearing, Mention};
use super::patterns::pattern;
use super::verbs::is_past;
use super::{Reference, TimeSpan};
use crate::Timestamp;
use crate::item::ItemKind;

pattern!(
    PREFERENCE,
    r"(?i)\b(?:likes?|loves?|prefers?|hates?|dislikes?|enjoys?|adores?|detests?|favou?rites?|preferred|fond of|fan of|can't stand|cannot stand|would rather|would like|would love|wants?|wishes|doesn't like|does not like|doesn't want|does not want|keen on)\b"
);
pattern!(COMPARES, r"(?i)\b(?:looks?|looked|feels?|felt|sounds?|tastes?|seems?|something|is|was) like\b");
pattern!(
    SKILL,
    r"(?i)^(?:to|in order to) \w+ .+(?:,| you | one | use | press | run | must | should | need)|\bhow to\b|^first,? .+\bthen\b|\bby (?:pressing|holding|running|calling|typing|clicking|turning|using|adding|mixing)\b|^(?:steps?|instructions?|recipe)\b"
);
pattern!(YEARLY, r"(?i)\b(?:birthday|anniversary|born|date of birth|opening|name day)\b");
pattern!(FUTURE, r"(?i)\b(?:will|going to|won't|plans? to|tomorrow|next|due|deadline|upcoming|is flying|are flying)\b");
pattern!(
    CHANGE_NOW,
    r"(?i)\b(?:now|currently|from now on|as of now|no longer|anymore|any more|these days|at the moment|right now|changed to)\b"
);
pattern!(
    IMPORTANT,
    r"(?i)\b(?:allerg\w+|name|called|birthday|born|code|password|pin|medication|diabet\w+|emergency|lives|married)\b"
);

/// When what a sentence tells is true and happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) valid_from: Option<Timestamp>,
    pub(super) valid_to: Option<Timestamp>,
    pub(super) event_time: Option<TimeSpan>,
}

/// Which way dates without a year lie in this sentence.
pub(super) fn direction(sentence: &str) -> Direction {
    let mut words = sentence.split(|character: char| !character.is_alphanumeric() && character != '\'');
    let is_told_as_past = words.any(|word| is_past(&word.to_lowercase()));
    if is_told_as_past && !FUTURE.is_match(sentence) { Direction::Earlier } else { Direction::Later }
}

/// The kind of a sentence in the third person.
pub(super) fn kind_of(sentence: &str, mentions: &[Mention]) -> ItemKind {
    let is_timed = mentions.iter().any(|mention| mention.bearing == Bearing::At) && !YEARLY.is_match(sentence);
    let is_past = direction(sentence) == Direction::Earlier;
    let prefers = PREFERENCE.is_match(sentence) && !COMPARES.is_match(sentence);
    if SKILL.is_match(sentence) {
        ItemKind::Skill
    } else if prefers && !(is_timed && is_past) {
        ItemKind::Preference
    } else if is_timed {
        ItemKind::Event
    } else {
        ItemKind::Fact
    }
}

/// Validity and time of happening. A coming event is true to know from now on, so only its own time lies ahead.
pub(super) fn times(sentence: &str, kind: ItemKind, mentions: &[Mention], reference: &Reference) -> Times {
    let first =
        |bearing: Bearing| mentions.iter().find(|mention| mention.bearing == bearing).map(|mention| mention.time);
    let mut times = Times {
        valid_from: first(Bearing::Since).map(|time| time.start),
        valid_to: first(Bearing::Until).map(|time| time.end),
        event_time: first(Bearing::At).filter(|_| kind == ItemKind::Event),
    };
    if let Some(happened) = times.event_time.filter(|time| time.start <= reference.now()) {
        times.valid_from.get_or_insert(happened.start);
    }
    if times.valid_from.is_none() && kind != ItemKind::Event && CHANGE_NOW.is_match(sentence) {
        times.valid_from = Some(reference.now());
    }
    // "From Friday until Monday" said on a Sunday would end before it begins; then the end is not known.
    if times.valid_from.zip(times.valid_to).is_some_and(|(from, to)| to <= from) {
        times.valid_to = None;
    }
    times
}

/// How much a memory matters before anybody has used it.
pub(super) fn salience(sentence: &str, kind: ItemKind) -> f32 {
    match kind {
        _ if IMPORTANT.is_match(sentence) => 0.7,
        ItemKind::Preference => 0.6,
        ItemKind::Fact | ItemKind::Event => 0.5,
        ItemKind::Skill | ItemKind::Document => 0.4,
    }
}
