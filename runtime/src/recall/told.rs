//! What is remembered of a turn: what the user told in it, without what the prompt had recalled.
//!
//! Instructions are never remembered, recalled memories stand among them; nor is what the model says: it is made of what it
//! was told, or made up, and would come back as if somebody had told it.

use std::collections::BTreeSet;

use memory::Timestamp;
use memory::ingest::{
    Candidate, ExtractionInput, Extractor, FastExtractor, IngestError, RecalledMemory, Reference, Role, Speakers, Turn,
    drop_recalled, new_items,
};
use memory::item::Scope;
use memory::memories::ToldTurn;

use super::Recall;

/// Messages before the user's last one that say what "it" and "she" stand for.
const NUM_CONTEXT_TURNS: usize = 4;
/// A longer one is no context but a document.
const CONTEXT_BYTES_MAX: usize = 8 << 10;

/// A turn that has ended.
#[derive(Debug, Clone)]
pub struct Told {
    /// The conversation up to the answer.
    pub turns: Vec<Turn>,
    /// Whose memories come of it.
    pub scope: Scope,
    /// What the API called the answer.
    pub conversation: String,
    /// The moment that "tomorrow" counts from.
    pub said_at: Timestamp,
}

/// What the user's last message told. Empty where it told nothing, as questions do.
///
/// # Errors
/// The message is longer than one that can be read for memories.
pub fn told_turn(told: Told, recall: &Recall) -> Result<ToldTurn, IngestError> {
    let recalled: Vec<RecalledMemory> = recall
        .memories
        .iter()
        .map(|memory| RecalledMemory { id: memory.item.id, text: memory.item.text.clone() })
        .collect();
    let ids = recalled.iter().map(|memory| memory.id).collect();
    let Some(last) = told.turns.iter().rposition(|turn| turn.role == Role::User) else {
        return Ok(ToldTurn { items: Vec::new(), recalled: ids });
    };
    let is_context =
        |turn: &&Turn| matches!(turn.role, Role::User | Role::Assistant) && turn.text.len() <= CONTEXT_BYTES_MAX;
    let mut turns: Vec<Turn> =
        told.turns[..last].iter().rev().filter(is_context).take(NUM_CONTEXT_TURNS).cloned().collect();
    turns.reverse();
    turns.push(Turn { role: Role::User, text: readable(&told.turns[last].text) });
    let own = turns.len() - 1;
    for turn in &mut turns[..own] {
        turn.text = readable(&turn.text);
    }
    let names: BTreeSet<&String> = recall.memories.iter().flat_map(|memory| &memory.item.entities).collect();
    let input = ExtractionInput {
        turns,
        speakers: Speakers::UserOnly,
        reference: Reference::utc(told.said_at),
        known_entities: names.into_iter().cloned().collect(),
    };
    // What earlier messages told was remembered when they were said, if it was to be. Sentences that are repeated now count
    // as said in the earlier message, so they are read once more without it.
    let (mut candidates, earlier): (Vec<Candidate>, Vec<Candidate>) =
        FastExtractor.extract(&input)?.into_iter().partition(|candidate| candidate.turn == Some(own));
    if !earlier.is_empty() {
        let alone = ExtractionInput { turns: vec![input.turns[own].clone()], ..input.clone() };
        let is_repeated = |candidate: &Candidate| earlier.iter().any(|before| before.text == candidate.text);
        let repeated = FastExtractor.extract(&alone)?.into_iter().filter(is_repeated);
        candidates.extend(repeated.map(|candidate| Candidate { turn: Some(own), ..candidate }));
    }
    let news = drop_recalled(candidates, &recalled, &input).news;
    Ok(ToldTurn { items: new_items(news, &input, &told.scope, Some(&told.conversation)), recalled: ids })
}

/// A message without the control characters that no memory may hold.
fn readable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() && !matches!(letter, '\n' | '\t') { ' ' } else { letter })
        .collect()
}
