//! The contract of an extractor: what it finds can be stored, was told by somebody who counts, and is where it says.

use super::require;
use crate::Timestamp;
use crate::ingest::{Candidate, ExtractionInput, Extractor, Reference, Role, Speakers, Turn};
use crate::item::{LABEL_BYTES_MAX, NUM_LABELS_MAX, TEXT_BYTES_MAX};

/// Checks an extractor. `told` is something that a user may say in which it is to find at least one memory.
///
/// # Errors
/// The first rule that does not hold.
pub fn check_extractor(extractor: &dyn Extractor, told: &str) -> Result<(), String> {
    let found = extract(extractor, &input(&[(Role::User, told)]))?;
    require(!found.is_empty(), || format!("it is to find a memory in {told:?}, but finds none"))?;
    for role in [Role::System, Role::Tool, Role::Assistant] {
        // An assistant counts only where it was asked for.
        let found = extract(extractor, &input(&[(role, told)]))?;
        require(found.is_empty(), || format!("what {} says is no memory, but it finds one", role.as_str()))?;
    }
    let mixed = [(Role::System, told), (Role::User, told), (Role::Assistant, told), (Role::User, told)];
    extract(extractor, &input(&mixed))?;
    extract(extractor, &ExtractionInput { speakers: Speakers::UserAndAssistant, ..input(&mixed) })?;
    for text in [
        "",
        " \n\t ",
        "?",
        "«»„“\u{200b}\u{301}",
        "🍵🍵🍵",
        "((((((((",
        "\u{5d0}\u{202e}abc",
        "'; DROP TABLE items; --",
    ] {
        extract(extractor, &input(&[(Role::User, text), (Role::User, told)]))?;
    }
    extract(extractor, &input(&[]))?;
    extract(extractor, &input(&[(Role::User, &format!("{told} ").repeat(200))]))?;
    for text in ["a\0b", "a\u{1b}[31mb"] {
        require(extractor.extract(&input(&[(Role::User, text)])).is_err(), || {
            format!("control characters are refused (ExtractionInput::check), but {text:?} is taken")
        })?;
    }
    let endless = vec![(Role::User, "a"); 100_000];
    require(extractor.extract(&input(&endless)).is_err(), || {
        "input beyond the limits is refused (ExtractionInput::check), but 100,000 turns are taken".to_owned()
    })
}

fn input(turns: &[(Role, &str)]) -> ExtractionInput {
    let now = Timestamp::from_unix_ms(1_780_000_000_000).expect("a moment of 2026: this is a bug");
    let turns = turns.iter().map(|(role, text)| Turn { role: *role, text: (*text).to_owned() }).collect();
    ExtractionInput { turns, speakers: Speakers::UserOnly, reference: Reference::utc(now), known_entities: Vec::new() }
}

/// What is found, each candidate checked by itself.
fn extract(extractor: &dyn Extractor, input: &ExtractionInput) -> Result<Vec<Candidate>, String> {
    let shown: Vec<String> = input.turns.iter().map(|turn| turn.text.chars().take(30).collect()).collect();
    let found = extractor.extract(input).map_err(|error| format!("{shown:?} is sound input, but fails: {error}"))?;
    let remembered: Vec<usize> = input.remembered_turns().map(|(index, _)| index).collect();
    let mut last_turn = 0;
    for candidate in &found {
        check_fields(candidate)?;
        let Some(turn) = candidate.turn else {
            require(candidate.span.is_none(), || "a span is of a turn, but no turn is named".to_owned())?;
            continue;
        };
        require(remembered.contains(&turn), || {
            format!("turn {turn} is none whose speaker is remembered, but {:?} is said to come from it", candidate.text)
        })?;
        require(turn >= last_turn, || "candidates come in the order in which they were told, but do not".to_owned())?;
        last_turn = turn;
        if let Some(span) = &candidate.span {
            require(input.turns[turn].text.get(span.clone()).is_some_and(|text| !text.is_empty()), || {
                format!("a span is a part of its turn's text, but {span:?} of {:?} is none", input.turns[turn].text)
            })?;
        }
    }
    Ok(found)
}

/// The rules of the store, which would refuse the memory later.
fn check_fields(candidate: &Candidate) -> Result<(), String> {
    let text = &candidate.text;
    require(!text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX, || {
        format!("a memory has 1 to {TEXT_BYTES_MAX} bytes of text, but one has {}", text.len())
    })?;
    let is_control = |character: char| character.is_control() && !matches!(character, '\t' | '\n' | '\r');
    require(!text.contains(is_control), || format!("a memory holds no control characters, but {text:?} does"))?;
    require((0.0..=1.0).contains(&candidate.salience), || {
        format!("a salience is between 0 and 1, but that of {text:?} is {}", candidate.salience)
    })?;
    for (what, labels) in [("tags", &candidate.tags), ("entities", &candidate.entities)] {
        let fits =
            |label: &String| !label.trim().is_empty() && label.len() <= LABEL_BYTES_MAX && !label.contains(is_control);
        require(labels.len() <= NUM_LABELS_MAX && labels.iter().all(fits), || {
            format!(
                "{what} are at most {NUM_LABELS_MAX}, of 1 to {LABEL_BYTES_MAX} bytes, but those of {text:?} are {labels:?}"
            )
        })?;
    }
    let ordered = candidate.valid_from.zip(candidate.valid_to).is_none_or(|(from, to)| from < to);
    let event_ordered = candidate.event_time.is_none_or(|time| time.start < time.end);
    require(ordered && event_ordered, || format!("times begin before they end, but those of {text:?} do not"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{FastExtractor, IngestError};

    /// The rules' own extractor, which then breaks a rule.
    struct Broken(&'static str);

    impl Extractor for Broken {
        fn extract(&self, input: &ExtractionInput) -> Result<Vec<Candidate>, IngestError> {
            if self.0 == "unchecked" && input.turns.iter().any(|turn| turn.text.contains('\0')) {
                return Ok(Vec::new());
            }
            let everybody = Turn { role: Role::User, text: "Anna lives in Oslo.".to_owned() };
            let mut found = FastExtractor.extract(input)?;
            for candidate in &mut found {
                match self.0 {
                    "empty" => candidate.text.clear(),
                    "salience" => candidate.salience = 1.5,
                    "span" => candidate.span = Some(0..100_000),
                    "label" => candidate.tags.push(String::new()),
                    "times" => candidate.valid_to = candidate.valid_from.or(Some(input.reference.now())),
                    _ => {}
                }
                if self.0 == "times" {
                    candidate.valid_from = candidate.valid_to;
                }
            }
            match self.0 {
                "nothing" => found.clear(),
                "tools" if input.turns.len() == 1 && input.turns[0].role == Role::Tool => {
                    found = FastExtractor.extract(&ExtractionInput { turns: vec![everybody], ..input.clone() })?;
                }
                _ => {}
            }
            Ok(found)
        }
    }

    #[test]
    fn each_broken_rule_is_found_and_the_rules_own_extractor_passes() {
        let told = "My name is Anna Berg and I live in Oslo.";
        assert_eq!(check_extractor(&FastExtractor, told), Ok(()));
        for broken in ["empty", "salience", "span", "label", "times", "nothing", "tools", "unchecked"] {
            assert!(check_extractor(&Broken(broken), told).is_err(), "{broken} is found");
        }
    }
}
