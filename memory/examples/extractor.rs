//! An extractor of one's own: `cargo run -p memory --example extractor`.
//!
//! It remembers what the user asks to be remembered ("Remember: …") and nothing else.

use std::error::Error;

use memory::Timestamp;
use memory::contracts::check_extractor;
use memory::ingest::{Candidate, ExtractionInput, Extractor, IngestError, Reference, new_items};
use memory::item::{ItemKind, Scope, TEXT_BYTES_MAX};

const MARK: &str = "Remember: ";

struct OnRequest;

impl Extractor for OnRequest {
    fn extract(&self, input: &ExtractionInput) -> Result<Vec<Candidate>, IngestError> {
        // Limits and control characters are the same for every extractor.
        input.check()?;
        let mut found = Vec::new();
        // Only those whose turns are remembered: neither instructions nor what a tool returned.
        for (turn, said) in input.remembered_turns() {
            for (start, _) in said.text.match_indices(MARK) {
                let start = start + MARK.len();
                let len = said.text[start..].find(['.', '\n']).unwrap_or(said.text.len() - start);
                let text = said.text[start..start + len].trim();
                if text.is_empty() || text.len() > TEXT_BYTES_MAX {
                    continue;
                }
                found.push(Candidate {
                    text: text.to_owned(),
                    kind: ItemKind::Fact,
                    tags: vec!["on request".to_owned()],
                    entities: Vec::new(),
                    valid_from: None,
                    valid_to: None,
                    event_time: None,
                    // It was asked for, so it matters.
                    salience: 0.9,
                    turn: Some(turn),
                    span: Some(start..start + len),
                });
            }
        }
        Ok(found)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    check_extractor(&OnRequest, "Remember: the lab code is 4417.")?;
    let now = Timestamp::from_unix_ms(0).ok_or("1970 is a moment")?;
    let input = ExtractionInput::text("Hello! Remember: the lab code is 4417. Nice weather.", Reference::utc(now));
    for item in new_items(OnRequest.extract(&input)?, &input, &Scope::default(), None) {
        println!("{} ({}): {}", item.kind, item.tags.join(", "), item.text);
    }
    println!("it keeps the contract of an extractor");
    Ok(())
}
