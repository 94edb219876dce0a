//! Mode `fast`: memories by rules alone, without a model. The same input gives the same candidates, always.

use std::collections::HashSet;
use std::ops::Range;

use super::dates::{find_dates, with_absolute_dates};
use super::entities::{entities, known_names};
use super::extract::NUM_CANDIDATES_MAX;
use super::kinds::{direction, kind_of, salience, times};
use super::patterns::pattern;
use super::person::{capitalised, third_person_form};
use super::sentences::split_sentences;
use super::topics::tags;
use super::verbs::is_finite;
use super::worth::worth_keeping;
use super::{Candidate, ExtractionInput, Extractor, IngestError, Role};

// What "it" can stand for: a possession or a thing that a sentence says something of.
pattern!(
    THING,
    r"^((?:The |[\p{Lu}][\p{L}-]+(?: \p{Lu}[\p{L}-]+)*'s )[^,;:]{1,80}?) (?:is|was|are|changed|opens|costs|runs)\b"
);
pattern!(
    PERSON,
    r"(?:^|\b(?:is|called|named) )(\p{Lu}[\p{L}'-]+(?: \p{Lu}[\p{L}-]+)*)(?:[.,!]|$| (?:likes|lives|works|is|was|has|moved|plays|speaks|drives)\b)"
);
pattern!(PRONOUN, r"^(It|That|This|She|He|They)('s)? (.*)$");
pattern!(
    SUBORDINATE,
    r"(?i)^(?:if|when|because|although|though|while|since|unless|until|before|after|whenever|as|to|in order)\b"
);

/// A memory that still says "it" or "she" is of little use on its own.
const UNRESOLVED_SALIENCE: f32 = 0.2;

/// Finds memories by rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct FastExtractor;

/// A kept sentence in the third person, with its place.
struct Kept {
    text: String,
    turn: usize,
    span: Range<usize>,
    is_resolved: bool,
}

impl Extractor for FastExtractor {
    fn extract(&self, input: &ExtractionInput) -> Result<Vec<Candidate>, IngestError> {
        input.check()?;
        let kept = kept_sentences(input)?;
        let names = known_names(&input.known_entities, kept.iter().map(|kept| kept.text.as_str()));
        let candidate = |kept: Kept| {
            let mentions = find_dates(&kept.text, &input.reference, direction(&kept.text));
            let kind = kind_of(&kept.text, &mentions);
            let times = times(&kept.text, kind, &mentions, &input.reference);
            let text = capitalised(&with_absolute_dates(&kept.text, &mentions));
            Candidate {
                kind,
                tags: tags(&text),
                entities: entities(&text, &names),
                valid_from: times.valid_from,
                valid_to: times.valid_to,
                event_time: times.event_time,
                salience: if kept.is_resolved { salience(&text, kind) } else { UNRESOLVED_SALIENCE },
                turn: Some(kept.turn),
                span: Some(kept.span),
                text,
            }
        };
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut seen = HashSet::new();
        for candidate in kept.into_iter().map(candidate) {
            // Said twice is told once.
            if seen.insert(candidate.text.trim_end_matches(['.', '!']).to_lowercase()) {
                candidates.push(candidate);
            }
        }
        Ok(candidates)
    }
}

/// Whom and what the last sentences were about.
#[derive(Default)]
struct Antecedents {
    thing: Option<String>,
    person: Option<String>,
}

fn kept_sentences(input: &ExtractionInput) -> Result<Vec<Kept>, IngestError> {
    let mut kept: Vec<Kept> = Vec::new();
    let mut antecedents = Antecedents::default();
    let remembered: Vec<usize> = input.remembered_turns().map(|(index, _)| index).collect();
    for (index, turn) in input.turns.iter().enumerate() {
        if matches!(turn.role, Role::System | Role::Tool) {
            continue;
        }
        for sentence in split_sentences(&turn.text) {
            let Some(statement) = worth_keeping(&sentence.text) else { continue };
            for clause in clauses(&statement) {
                let told = third_person_form(&capitalised(clause), turn.role);
                let (text, is_resolved) = antecedents.resolved(told);
                antecedents.note(&text);
                if remembered.binary_search(&index).is_ok() {
                    kept.push(Kept { text: ended(text), turn: index, span: sentence.span.clone(), is_resolved });
                }
                if kept.len() > NUM_CANDIDATES_MAX {
                    return Err(IngestError::TooMany { what: "memories in one text", limit: NUM_CANDIDATES_MAX });
                }
            }
        }
    }
    Ok(kept)
}

impl Antecedents {
    /// The sentence with its pronoun replaced, and whether it can stand alone.
    fn resolved(&self, sentence: String) -> (String, bool) {
        let Some(found) = PRONOUN.captures(&sentence) else { return (sentence, true) };
        let antecedent = match &found[1] {
            "She" | "He" => &self.person,
            "It" => &self.thing,
            // "That is nice" comments on more than a thing, and "they" may be anybody.
            _ => &None,
        };
        match antecedent {
            Some(antecedent) => {
                let verb = if found.get(2).is_some() { " is" } else { "" };
                (format!("{antecedent}{verb} {}", &found[3]), true)
            }
            None => (sentence, false),
        }
    }

    fn note(&mut self, sentence: &str) {
        if let Some(found) = THING.captures(sentence).filter(|found| !matches!(&found[1], "The user" | "The assistant"))
        {
            self.thing = Some(found[1].to_owned());
        }
        let is_user = |name: &str| matches!(name, "It" | "That" | "This" | "She" | "He" | "They" | "The");
        if let Some(found) = PERSON.captures_iter(sentence).find(|found| !is_user(&found[1])) {
            self.person = Some(found[1].trim_end_matches("'s").to_owned());
        }
    }
}

/// Main clauses of a sentence that say something each about the speaker: one memory holds one fact.
fn clauses(sentence: &str) -> Vec<&str> {
    const JOINTS: [&str; 9] =
        [" and I ", " and my ", " but I ", " but my ", ", I ", ", my ", "; ", ", and I'm ", " and I'm "];
    if SUBORDINATE.is_match(sentence) || sentence.contains(['"', '“']) {
        return vec![sentence];
    }
    let mut clauses = Vec::new();
    let mut rest = sentence;
    // Bounded by the sentence: each round takes off at least its first clause.
    'next: loop {
        let mut joints: Vec<usize> =
            JOINTS.iter().flat_map(|joint| rest.match_indices(joint)).map(|(at, _)| at).collect();
        joints.sort_unstable();
        for at in joints {
            let head = rest[..at].trim_end_matches([',', ' ']);
            let tail = rest[at..].trim_start_matches([',', ';', ' ']);
            let tail = tail.strip_prefix("and ").or_else(|| tail.strip_prefix("but ")).unwrap_or(tail);
            if is_clause(head) && is_clause(tail) {
                clauses.push(head);
                rest = tail;
                continue 'next;
            }
        }
        clauses.push(rest);
        return clauses;
    }
}

/// Whether there is a verb with something on both of its sides; "between my brother" and "my sister" are no clauses.
fn is_clause(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let bare =
        |word: &str| word.trim_matches(|character: char| !character.is_alphanumeric() && character != '\'').to_owned();
    let verb = words.iter().position(|word| is_finite(&bare(word)));
    let is_contracted = words.first().is_some_and(|word| word.contains('\''));
    verb.is_some_and(|index| (index > 0 || is_contracted) && index + 1 < words.len()) && !SUBORDINATE.is_match(text)
}

/// With a mark at its end.
fn ended(mut text: String) -> String {
    if text.chars().last().is_some_and(char::is_alphanumeric) {
        let is_spaceless = text
            .chars()
            .last()
            .is_some_and(|last| last as u32 >= 0x0e00 && !last.is_uppercase() && !last.is_lowercase());
        if !is_spaceless {
            text.push('.');
        }
    }
    text
}

#[cfg(test)]
#[path = "fast_tests.rs"]
mod tests;
