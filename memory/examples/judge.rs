//! A judge of one's own: `cargo run -p memory --example judge`.
//!
//! It knows one thing: two sentences that differ in nothing but one number contradict each other. Of everything else it says
//! that it cannot tell, which leaves both memories as they are.

use std::error::Error;

use memory::Timestamp;
use memory::contracts::check_judge;
use memory::ingest::{Claim, IngestError, Judge, Verdict};

struct OneNumber;

/// The sentence with `#` for its number, and the number; `None` without one, or with several.
fn without_number(text: &str) -> Option<(String, String)> {
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_end_matches(['.', '!'])).collect();
    let is_number = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut numbers = words.iter().filter(|word| is_number(word));
    let number = (*numbers.next()?).to_owned();
    if numbers.next().is_some() {
        return None;
    }
    let frame: Vec<&str> = words.iter().map(|word| if is_number(word) { "#" } else { *word }).collect();
    Some((frame.join(" "), number))
}

impl Judge for OneNumber {
    fn judge(&self, older: &Claim, newer: &Claim) -> Result<Verdict, IngestError> {
        let (Some(one), Some(two)) = (without_number(&older.text), without_number(&newer.text)) else {
            return Ok(Verdict::Unknown);
        };
        if one.0 != two.0 {
            return Ok(Verdict::Unknown);
        }
        if one.1 == two.1 {
            return Ok(Verdict::Same);
        }
        // What was true until a moment stands beside what is true from then on.
        let ends_before = older.valid_to.zip(newer.valid_from).is_some_and(|(end, start)| end <= start);
        Ok(if ends_before { Verdict::Compatible } else { Verdict::Contradicts })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pair = ("The lab code is 4417.", "The lab code is 9021.");
    check_judge(&OneNumber, pair)?;
    let recorded_at = Timestamp::from_unix_ms(0).ok_or("1970 is a moment")?;
    let claim = |text: &str| Claim { text: text.to_owned(), valid_from: None, valid_to: None, recorded_at };
    let verdict = OneNumber.judge(&claim(pair.0), &claim(pair.1))?;
    println!("{:?} and {:?}: {}", pair.0, pair.1, verdict.as_str());
    println!("it keeps the contract of a judge");
    Ok(())
}
