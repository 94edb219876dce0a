//! What a prompt recalled is no news: candidates that only repeat recalled memories are told apart from those that change them.

use std::collections::HashSet;

use super::contradiction::{Verdict, judge_statements};
use super::patterns::pattern;
use super::person::third_person_form;
use super::statement::{Statement, parse_statement};
use super::values::{Comparison, Value};
use super::{Candidate, ExtractionInput, Role};
use crate::ItemId;

/// A prompt holds some tens of memories; those beyond this many are not compared, which keeps a turn's cost bounded.
const NUM_RECALLED_MAX: usize = 256;

pattern!(IT_IS, r"^It(?:'s| is| was| changed to| has changed to)(?: now| actually| really)? (.+)$");
pattern!(SAID_OF, r"^(.+?) (?:is|was|changed to)(?: now| currently| still)? .+$");
pattern!(UPDATES, r"(?i)\b(?:now|again|actually|changed|back|no longer|anymore|instead|correct\w*|new)\b");

/// A memory that was in the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecalledMemory {
    /// Which.
    pub id: ItemId,
    /// What it said.
    pub text: String,
}

/// Candidates, told apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Filtered {
    /// What is new, or changes what was recalled.
    pub news: Vec<Candidate>,
    /// What only repeats, with the memories that said it already.
    pub repeated: Vec<(Candidate, Vec<ItemId>)>,
}

/// Splits candidates into news and repetitions. "It is now 5512" is completed from the memory that it changes.
pub fn drop_recalled(candidates: Vec<Candidate>, recalled: &[RecalledMemory], input: &ExtractionInput) -> Filtered {
    let memories: Vec<Memory<'_>> =
        recalled.iter().take(NUM_RECALLED_MAX).map(|memory| Memory::of(memory, input)).collect();
    let mut filtered = Filtered { news: Vec::new(), repeated: Vec::new() };
    for mut candidate in candidates {
        if let Some(text) = completed(&candidate.text, &memories) {
            candidate.text = text;
            candidate.salience = candidate.salience.max(0.5);
        }
        let role = candidate.turn.and_then(|turn| input.turns.get(turn)).map_or(Role::User, |turn| turn.role);
        let sources = repeated_memories(&candidate, role, &memories, input);
        if sources.is_empty() {
            filtered.news.push(candidate);
        } else {
            filtered.repeated.push((candidate, sources));
        }
    }
    filtered
}

struct Memory<'a> {
    source: &'a RecalledMemory,
    words: Vec<String>,
    statement: Option<Statement>,
}

impl<'a> Memory<'a> {
    fn of(source: &'a RecalledMemory, input: &ExtractionInput) -> Self {
        let statement = parse_statement(&source.text, &input.reference);
        Self { words: content_words(&source.text), statement, source }
    }
}

/// A sentence about "it", said of the recalled thing whose value looks like the one that it gives.
fn completed(text: &str, memories: &[Memory<'_>]) -> Option<String> {
    let found = IT_IS.captures(text)?;
    let value = Value::of(&found[1]);
    let memory = memories.iter().find(|memory| {
        memory.statement.as_ref().is_some_and(|statement| {
            let known = Value::of(&statement.value);
            statement.is_single_valued && known.is_shaped_like(&value)
        })
    })?;
    let subject = SAID_OF.captures(&memory.source.text)?.get(1)?.as_str().to_owned();
    Some(format!("{subject}{}", &text["It".len()..]))
}

fn repeated_memories(
    candidate: &Candidate,
    role: Role,
    memories: &[Memory<'_>],
    input: &ExtractionInput,
) -> Vec<ItemId> {
    let words = content_words(&candidate.text);
    let statement = parse_statement(&candidate.text, &input.reference);
    let said_by: Vec<&Memory<'_>> =
        memories.iter().filter(|memory| repeats(&words, statement.as_ref(), memory)).collect();
    if !said_by.is_empty() {
        // "It is 4471 again" repeats an old memory and changes a newer one, so it is news.
        let changes = UPDATES.is_match(&candidate.text)
            && memories.iter().any(|memory| verdict(statement.as_ref(), memory) == Some(Verdict::Contradicts));
        return if changes { Vec::new() } else { said_by.iter().map(|memory| memory.source.id).collect() };
    }
    // An assistant weaves several memories into one sentence; what they cover together is nothing new either.
    if role == Role::Assistant && !words.is_empty() {
        let known: HashSet<&String> = memories.iter().flat_map(|memory| &memory.words).collect();
        if words.iter().all(|word| known.contains(word)) {
            let used = |memory: &&Memory<'_>| memory.words.iter().any(|word| words.contains(word));
            return memories.iter().filter(used).map(|memory| memory.source.id).collect();
        }
    }
    Vec::new()
}

fn verdict(statement: Option<&Statement>, memory: &Memory<'_>) -> Option<Verdict> {
    Some(judge_statements(memory.statement.as_ref()?, statement?))
}

fn repeats(words: &[String], statement: Option<&Statement>, memory: &Memory<'_>) -> bool {
    if words.is_empty() {
        return false;
    }
    if let (Some(told), Some(known)) = (statement, memory.statement.as_ref()) {
        if told.subject != known.subject {
            return false;
        }
        if told.relation == known.relation {
            return match judge_statements(known, told) {
                Verdict::Same => true,
                // Less than what is known already.
                Verdict::Compatible => {
                    let is_less = Value::of(&told.value).compare(&Value::of(&known.value)) == Comparison::Refines
                        && told.value.len() < known.value.len();
                    is_less && told.polarity == known.polarity && told.tense == known.tense
                }
                Verdict::Contradicts | Verdict::Unknown => false,
            };
        }
    }
    let num_denials = |words: &[String]| words.iter().filter(|word| *word == "not").count();
    num_denials(words) == num_denials(&memory.words) && is_subsequence(words, &memory.words)
}

/// Whether the words come in this order among the others: "Anna manages Bob" does not repeat "Bob manages Anna".
fn is_subsequence(words: &[String], among: &[String]) -> bool {
    let mut among = among.iter();
    words.iter().all(|word| among.any(|other| other == word))
}

/// Words that carry content, in their order, in the third person.
pub(super) fn content_words(text: &str) -> Vec<String> {
    const EMPTY: &[&str] = &[
        "the",
        "a",
        "an",
        "is",
        "are",
        "was",
        "were",
        "be",
        "am",
        "do",
        "does",
        "of",
        "to",
        "that",
        "this",
        "it",
        "and",
        "in",
        "on",
        "at",
        "for",
        "with",
        "as",
        "so",
        "you",
        "i",
        "yes",
        "know",
        "knows",
        "remember",
        "according",
        "memory",
        "now",
        "currently",
        "still",
        "actually",
        "also",
        "assistant",
        "has",
        "have",
        "called",
        "named",
        "s",
        "told",
        "said",
    ];
    let text = third_person_form(text, Role::User).to_lowercase().replace('\u{2019}', "'").replace("n't", " not");
    text.split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty() && !EMPTY.contains(word))
        .map(|word| match word {
            "never" | "no" | "longer" | "anymore" => "not".to_owned(),
            "favorite" => "favourite".to_owned(),
            "color" => "colour".to_owned(),
            word => word.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Extractor, FastExtractor, Reference, Speakers, Turn};

    fn filtered(memories: &[&str], turns: &[(Role, &str)]) -> (Vec<String>, usize) {
        let recalled: Vec<RecalledMemory> =
            memories.iter().map(|text| RecalledMemory { id: ItemId::new(), text: (*text).to_owned() }).collect();
        let reference = Reference::utc("2026-03-01T10:00:00Z".parse().expect("a moment"));
        let turns = turns.iter().map(|(role, text)| Turn { role: *role, text: (*text).to_owned() }).collect();
        let input =
            ExtractionInput { turns, speakers: Speakers::UserAndAssistant, reference, known_entities: Vec::new() };
        let candidates = FastExtractor.extract(&input).expect("candidates");
        let filtered = drop_recalled(candidates, &recalled, &input);
        assert!(filtered.repeated.iter().all(|(_, sources)| !sources.is_empty()));
        (filtered.news.into_iter().map(|candidate| candidate.text).collect(), filtered.repeated.len())
    }

    #[test]
    fn what_repeats_a_recalled_memory_is_no_news() {
        let memories =
            ["The user's favourite colour is teal.", "The user lives in Oslo, Norway.", "User likes green tea"];
        for turn in [
            (Role::User, "My favorite color is teal."),
            (Role::User, "Teal is my favourite colour."),
            (Role::User, "As I said, I live in Oslo."),
            (Role::Assistant, "Your favourite colour is teal."),
            (Role::Assistant, "You live in Oslo, and your favourite colour is teal."),
            (Role::User, "I still like green tea."),
        ] {
            assert_eq!(filtered(&memories, &[turn]).0, Vec::<String>::new(), "{turn:?}");
        }
    }

    #[test]
    fn updates_and_news_are_kept() {
        let memories = ["The user's door code is 4471.", "Anna manages Bob.", "The user likes tea."];
        for (said, kept) in [
            ("Actually, it is now 5512.", "The user's door code is now 5512."),
            ("My door code is 5512.", "The user's door code is 5512."),
            ("Bob manages Anna.", "Bob manages Anna."),
            ("I no longer like tea.", "The user no longer likes tea."),
            ("I like coffee.", "The user likes coffee."),
            ("Anna likes tea.", "Anna likes tea."),
        ] {
            assert_eq!(filtered(&memories, &[(Role::User, said)]).0, [kept]);
        }
    }

    #[test]
    fn a_return_to_an_old_value_is_news() {
        let memories = ["The user's door code is 4471.", "The user's door code is now 5512."];
        assert_eq!(
            filtered(&memories, &[(Role::User, "My door code is 4471 again.")]).0,
            ["The user's door code is 4471 again."]
        );
        assert_eq!(filtered(&memories, &[(Role::User, "My door code is 5512.")]).1, 1);
    }

    #[test]
    fn without_memories_everything_is_news() {
        assert_eq!(filtered(&[], &[(Role::User, "My code is 12. I like tea.")]).0.len(), 2);
    }
}
