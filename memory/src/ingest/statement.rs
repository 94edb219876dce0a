//! Simple statements taken apart by rules: of whom, which relation, what value, whether it is denied, and when.

use super::dates::number_word;
use super::patterns::pattern;
use super::person::third_person_form;
use super::relations::{COLOURS, Cardinality, VERBS, VerbSense, cardinality_of, is_known, known_nouns, relation_of};
use super::values::Value;
use super::verbs::{base_of_third_person, is_past};
use super::wording::{collapsed, without_denial, without_time};
use super::{Reference, Role, TimeSpan};

/// A longer text is no simple statement.
const STATEMENT_BYTES_MAX: usize = 400;

pattern!(
    OPENING,
    r"^(?:(?:actually|correction|update|note|fyi|by the way|as of now|from now on|now|currently|today|these days|meanwhile|in fact|we know that|i think|it is true that|user note)\s*[:,]?\s+)+"
);
pattern!(ADDS, r"\b(?:also|too|as well|additionally|another|second|besides|part-time|sometimes)\b");
pattern!(
    FILLER,
    r"\b(?:now|currently|still|actually|also|too|as well|just|recently|at the moment|these days|usually|always|really|presently|nowadays|again|definitely|already)\b"
);
pattern!(POSSESSED, r"^(.+?s?)'s? ([^':]{1,60}?)\s*(?:\b(?:is|was|are|were|has been|will be|became)\b|:|=)\s*(.+)$");
pattern!(
    CHANGED,
    r"^(.+?s?)'s? ([^':]{1,60}?) (?:has |was |is )?(?:changed|switched|updated|set|moved)(?: from .+?)? to (.+)$"
);
pattern!(OF, r"^the ([\w\- ]{1,60}?) (?:of|for) (.+?) (?:is|was|are|were|will be)\s(.+)$");
pattern!(VALUE_FIRST, r"^([^']{1,80}?) (?:is|was|are) (.+?s?)'s? ([^']{1,60})$");
pattern!(VALUE_FIRST_OF, r"^([^']{1,80}?) (?:is|was|are) the ([\w\- ]{1,60}?) (?:of|for) (.+)$");
pattern!(HAS_CALLED, r"^(.+?) (?:has|have|had|owns|own|owned) (?:a|an|one) ([\w\- ]{1,40}?) (?:called|named) (.+)$");
pattern!(HAS_NONE, r"^(.+?) (?:has|have) (?:no|not any|not a|not an|zero) ([\w\- ]{1,40})$");
pattern!(
    HAS_COUNT,
    r"^(.+?) (?:has|have|owns) (one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\d{1,4}) ([\w\- ]{1,40})$"
);
pattern!(AGE, r"^(.+?) (?:is|turned) (\d{1,3}|\w+)(?: years?)? old$");
pattern!(LIKES_BEST, r"^(.+?) (?:likes?|loves?) the (colour|color|number|food|drink) (.+?)(?: best| most)?$");
pattern!(PREFERS_OVER, r"^(.+?) prefers? (.+?) (?:over|to|more than) (?:any other (\w+)|(.+))$");
pattern!(OWNS_CAR, r"^(.+?) (?:owns?|bought|drives?) (?:a|an) (\S+(?: \S+)?) car$");
pattern!(OWNS, r"^([\w .'-]{1,60}?) owns (the .+)$");
pattern!(CALLED, r"^(.+?) (?:is|was) (?:called|known as|named) (.+)$");
pattern!(COPULA, r"^(.+?) (?:is|was|are|were) (.+)$");

/// Whether a statement says that something is, or that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polarity {
    /// It is so.
    Affirmed,
    /// It is not so, or no longer.
    Denied,
}

/// Whether a statement is about now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tense {
    /// It is so.
    Present,
    /// It was so, whatever is now.
    Past,
}

/// A statement in the form in which statements are compared: lower case, one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Of whom or what; the speaker is `user`.
    pub subject: String,
    /// Name of the relation.
    pub relation: String,
    /// Its value; `*` for any at all.
    pub value: String,
    /// Whether it is denied.
    pub polarity: Polarity,
    /// Whether it is about now.
    pub tense: Tense,
    /// The time that it names, where it names one; open ends lie at the ends of the calendar.
    pub time: Option<TimeSpan>,
    /// Whether its words say that it stands beside others ("also").
    pub is_additional: bool,
    /// Whether the relation has one value at a time.
    pub is_single_valued: bool,
}

/// What the patterns find in the words.
struct Parts {
    subject: String,
    relation: String,
    value: String,
    sense: VerbSense,
    cardinality: Option<Cardinality>,
}

/// Takes a simple statement apart; `None` where no rule fits.
pub fn parse_statement(text: &str, reference: &Reference) -> Option<Statement> {
    if text.len() > STATEMENT_BYTES_MAX {
        return None;
    }
    let text = third_person_form(text.trim(), Role::User).to_lowercase().replace('\u{2019}', "'");
    let text = text.replace("can't stand", "hates").replace("cannot stand", "hates");
    let text = text.trim_end_matches(['.', '!', ' ']);
    let text = OPENING.replace(text, "").into_owned();
    let (text, time) = without_time(&text, reference);
    let is_additional = ADDS.is_match(&text);
    let (text, polarity, was) = without_denial(&text);
    let text = collapsed(&FILLER.replace_all(&text, " "));
    let parts = parts(&text)?;
    let subject = subject_name(&parts.subject);
    let value = if parts.value == "*" { "*".to_owned() } else { Value::of(&parts.value).as_text() };
    if subject.is_empty() || value.is_empty() || parts.relation.is_empty() {
        return None;
    }
    let denied = (polarity == Polarity::Denied) != (parts.sense == VerbSense::IsNot);
    let is_past = (was || parts.sense == VerbSense::Was) && !super::relations::is_lasting(&parts.relation);
    let cardinality = parts.cardinality.unwrap_or_else(|| cardinality_of(&parts.relation));
    Some(Statement {
        subject,
        relation: parts.relation,
        value,
        polarity: if denied { Polarity::Denied } else { Polarity::Affirmed },
        tense: if is_past { Tense::Past } else { Tense::Present },
        time,
        is_additional,
        is_single_valued: cardinality == Cardinality::One,
    })
}

fn parts(text: &str) -> Option<Parts> {
    special(text).or_else(|| possessed(text)).or_else(|| verb(text)).or_else(|| copula(text)).or_else(|| any_verb(text))
}

fn found(subject: &str, relation: String, value: &str) -> Option<Parts> {
    let value = value.trim();
    let parts = Parts {
        subject: subject.to_owned(),
        relation,
        value: value.to_owned(),
        sense: VerbSense::Is,
        cardinality: None,
    };
    (!value.is_empty() && !subject.trim().is_empty()).then_some(parts)
}

fn special(text: &str) -> Option<Parts> {
    if let Some(part) = PREFERS_OVER.captures(text) {
        if let Some(noun) = part.get(3) {
            return found(&part[1], relation_of(&format!("favourite {}", noun.as_str())), &part[2]);
        }
        let mut pair = [Value::of(&part[2]).as_text(), Value::of(part.get(4)?.as_str()).as_text()];
        pair.sort();
        let mut parts = found(&part[1], format!("prefers of {} and {}", pair[0], pair[1]), &part[2])?;
        parts.cardinality = Some(Cardinality::One);
        return Some(parts);
    }
    if let Some(part) = LIKES_BEST.captures(text) {
        let relation = relation_of(&format!("favourite {}", &part[2]));
        return found(&part[1], relation, &part[3]);
    }
    if let Some(part) = OWNS_CAR.captures(text) {
        return found(&part[1], "car".to_owned(), &part[2]);
    }
    if let Some(part) = AGE.captures(text)
        && let Some(age) = number_word(&part[2])
    {
        return found(&part[1], "age".to_owned(), &age.to_string());
    }
    if let Some(part) = HAS_NONE.captures(text) {
        let mut parts = found(&part[1], relation_of(&singular(&part[2])), "*")?;
        parts.sense = VerbSense::IsNot;
        return Some(parts);
    }
    if let Some(part) = HAS_CALLED.captures(text) {
        return found(&part[1], relation_of(part[2].trim()), &part[3]);
    }
    if let Some(part) = HAS_COUNT.captures(text)
        && part[3].ends_with(['s', 'n'])
    {
        let mut parts = found(&part[1], format!("number of {}", &part[3]), &part[2])?;
        parts.cardinality = Some(Cardinality::One);
        return Some(parts);
    }
    has_noun(text)
}

/// "Anna has the job nurse".
fn has_noun(text: &str) -> Option<Parts> {
    let (subject, rest) = text.split_once(" has the ").or_else(|| text.split_once(" have the "))?;
    let noun = known_nouns()
        .filter(|noun| rest.strip_prefix(noun).is_some_and(|rest| rest.starts_with(' ')))
        .max_by_key(|noun| noun.len());
    match noun {
        Some(noun) => found(subject, relation_of(noun), &rest[noun.len()..]),
        None => {
            let rest = rest.strip_prefix("favourite ").or_else(|| rest.strip_prefix("favorite "))?;
            let (noun, value) = rest.split_once(' ')?;
            found(subject, relation_of(&format!("favourite {noun}")), value)
        }
    }
}

fn possessed(text: &str) -> Option<Parts> {
    if let Some(part) = CHANGED.captures(text) {
        return named(&part[1], &part[2], &part[3]);
    }
    if let Some(part) = OF.captures(text) {
        return named(&part[2], &part[1], &part[3]);
    }
    if let Some(part) = POSSESSED.captures(text) {
        return named(&part[1], &part[2], &part[3]);
    }
    // The other way round only with nouns that are known, for "this is Anna's" says nothing of a relation.
    if let Some(part) = VALUE_FIRST_OF.captures(text).filter(|part| is_known(&bare_noun(&part[2]))) {
        return named(&part[3], &part[2], &part[1]);
    }
    let part = VALUE_FIRST.captures(text)?;
    let noun = bare_noun(&part[3]);
    (is_known(&relation_of(&noun)) || is_known(&noun)).then(|| named(&part[2], &part[3], &part[1])).flatten()
}

/// A relation by its noun. "Anna's sister's name" is Anna's sister, and "Anna's dog is called" speaks of her dog.
fn named(subject: &str, noun: &str, value: &str) -> Option<Parts> {
    let value = ["called ", "named ", "on ", "at ", "in ", "by "]
        .iter()
        .find_map(|start| value.strip_prefix(start))
        .unwrap_or(value);
    let noun = bare_noun(noun);
    if noun == "name"
        && let Some((owner, relative)) = subject.rsplit_once("'s ")
    {
        return found(owner, relation_of(&bare_noun(relative)), value);
    }
    found(subject, relation_of(&noun), value)
}

fn bare_noun(noun: &str) -> String {
    let mut noun = noun.trim();
    for start in ["new ", "current ", "old ", "former ", "previous ", "ex-", "present ", "own ", "actual "] {
        noun = noun.strip_prefix(start).unwrap_or(noun);
    }
    noun.to_owned()
}

/// The earliest verb phrase of the table; of two at one place, the longer.
fn verb(text: &str) -> Option<Parts> {
    let place = |phrase: &str| {
        text.match_indices(phrase)
            .map(|(at, _)| at)
            .find(|&at| at > 0 && text[..at].ends_with(' ') && text[at + phrase.len()..].starts_with(' '))
    };
    let best = VERBS
        .iter()
        .filter_map(|(phrase, relation, sense)| Some((place(phrase)?, *phrase, *relation, *sense)))
        .min_by_key(|(at, phrase, _, _)| (*at, std::cmp::Reverse(phrase.len())));
    if let Some((at, phrase, relation, sense)) = best {
        let mut parts = found(&text[..at], relation.to_owned(), &text[at + phrase.len()..])?;
        parts.sense = sense;
        return Some(parts);
    }
    let part = OWNS.captures(text)?;
    found(&part[2], "owner".to_owned(), &part[1])
}

fn copula(text: &str) -> Option<Parts> {
    if let Some(part) = CALLED.captures(text) {
        return found(&part[1], "name".to_owned(), &part[2]);
    }
    let part = COPULA.captures(text)?;
    let (subject, value) = (&part[1], part[2].trim());
    if COLOURS.contains(&value) {
        return found(subject, "colour".to_owned(), value);
    }
    if let Some(place) =
        value.strip_prefix("in ").or_else(|| value.strip_prefix("at ")).or_else(|| value.strip_prefix("near "))
    {
        return found(subject, "location".to_owned(), place);
    }
    let mut parts = found(subject, "is".to_owned(), value)?;
    parts.cardinality = Some(if names_one_thing(subject, value) { Cardinality::One } else { Cardinality::Many });
    Some(parts)
}

/// Whether "the wifi password is …" gives the one value of a thing, and does not only describe it ("is long").
fn names_one_thing(subject: &str, value: &str) -> bool {
    const SECRETS: &[&str] = &["password", "passphrase", "code", "pin", "username", "codename"];
    const FIGURES: &[&str] = &["price", "cost", "number", "address", "version", "deadline", "height", "weight", "size"];
    let noun = subject.rsplit(' ').next().unwrap_or_default();
    let has_digit = value.chars().any(|character| character.is_ascii_digit());
    let is_one_word = !value.contains(' ');
    (SECRETS.contains(&noun) && (is_one_word || has_digit)) || (FIGURES.contains(&noun) && has_digit)
}

/// Any other verb: its relation is the verb, and only a denial speaks against it.
fn any_verb(text: &str) -> Option<Parts> {
    let words: Vec<&str> = text.split(' ').collect();
    let position = words
        .iter()
        .skip(1)
        .position(|word| base_of_third_person(word).is_some() || is_past(word) || *word == "has")?
        + 1;
    let verb = words[position];
    let relation = base_of_third_person(verb).map_or_else(|| verb.to_owned(), str::to_owned);
    let mut parts = found(&words[..position].join(" "), relation, &words[position + 1..].join(" "))?;
    parts.cardinality = Some(Cardinality::Many);
    parts.sense = if is_past(verb) { VerbSense::Was } else { VerbSense::Is };
    Some(parts)
}

fn subject_name(subject: &str) -> String {
    let subject = subject.trim().trim_end_matches("'s");
    let bare = ["the ", "a ", "an "].iter().find_map(|article| subject.strip_prefix(article)).unwrap_or(subject);
    bare.trim_matches(|character: char| !character.is_alphanumeric()).to_owned()
}

fn singular(noun: &str) -> String {
    match noun.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None if noun == "children" => "child".to_owned(),
        None if noun.ends_with("ss") => noun.to_owned(),
        None => noun.strip_suffix('s').unwrap_or(noun).to_owned(),
    }
}

#[cfg(test)]
#[path = "statement_tests.rs"]
mod tests;
