//! Names in a sentence by rules: capitals, quotations, possessors and codes.

use std::collections::BTreeSet;

use super::patterns::pattern;
use crate::item::{LABEL_BYTES_MAX, NUM_LABELS_MAX};

pattern!(
    NAME,
    r"\p{Lu}[\p{L}\p{M}\p{Nd}&'’-]*(?:\.(?: \p{Lu}|\p{L}))?(?: (?:(?:of|de|da|van|von|der|den|la|le|del|al|bin|and the) )?\p{Lu}[\p{L}\p{M}\p{Nd}&'’-]*| \d{1,4}\b)*"
);
pattern!(QUOTED, "\"([^\"]{1,60})\"|“([^”]{1,60})”|「([^」]{1,60})」|«([^»]{1,60})»");
pattern!(CODE, r"\b(?:\p{L}*\d[\p{L}\d]*(?:[-_./]?[\p{L}\d]+)*|\p{Lu}{2,}[-_]?\d+)\b");
pattern!(
    AGENT,
    r"^(\p{Lu}[\p{L}'’-]+)(?:'s|’s)? (?:likes|loves|lives|works|prefers|hates|drives|speaks|plays|moved|married|said|says|owns|reports|studies|teaches|manages|leads|went|told|wants|enjoys|comes|wakes|met|called|bought|has|sits|uses)\b"
);
pattern!(POSSESSOR, r"^(\p{Lu}[\p{L}\p{M}-]+(?: \p{Lu}[\p{L}\p{M}-]+)*)(?:'s|’s)\s");

/// Words that are capitals without being names.
const NO_NAMES: &[&str] = &[
    "i",
    "i'm",
    "i've",
    "i'll",
    "i'd",
    "the",
    "a",
    "an",
    "my",
    "your",
    "our",
    "his",
    "her",
    "their",
    "its",
    "he",
    "she",
    "it",
    "they",
    "we",
    "you",
    "this",
    "that",
    "these",
    "those",
    "there",
    "here",
    "when",
    "where",
    "what",
    "who",
    "why",
    "how",
    "if",
    "in",
    "on",
    "at",
    "by",
    "for",
    "to",
    "from",
    "and",
    "but",
    "or",
    "so",
    "no",
    "not",
    "yes",
    "please",
    "user",
    "assistant",
    "today",
    "tomorrow",
    "yesterday",
    "now",
    "then",
    "also",
    "some",
    "every",
    "all",
    "each",
    "one",
    "after",
    "before",
    "since",
    "until",
    "as",
    "with",
    "without",
    "am",
    "pm",
    "ok",
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "mondays",
    "tuesdays",
    "wednesdays",
    "thursdays",
    "fridays",
    "saturdays",
    "sundays",
    "mr",
    "mrs",
    "ms",
    "dr",
];

/// Names that the whole of a text makes known: those of the caller and those that stand inside of a sentence.
pub(super) fn known_names<'a>(given: &'a [String], sentences: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = given.iter().map(|name| name.to_lowercase()).collect();
    for sentence in sentences {
        for found in NAME.find_iter(sentence).filter(|found| found.start() > 0) {
            let mut words = Vec::new();
            for word in found.as_str().split(' ') {
                words.push(word.trim_end_matches("'s").trim_end_matches("’s").to_lowercase());
            }
            names.extend(words.into_iter().filter(|word| !NO_NAMES.contains(&word.as_str())));
        }
    }
    names
}

/// The names in a sentence; sorted, no duplicates, within the limits of an item.
pub(super) fn entities(sentence: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut add = |name: &str| {
        let name =
            name.trim().trim_end_matches(['.', ',', ';', ':', '-', '\'']).trim_end_matches("'s").trim_end_matches("’s");
        let is_label = !name.is_empty() && name.len() <= LABEL_BYTES_MAX && found.len() < NUM_LABELS_MAX;
        if is_label {
            found.insert(name.to_owned());
        }
    };
    for captures in QUOTED.captures_iter(sentence) {
        let name = captures.iter().skip(1).flatten().next().map_or("", |name| name.as_str());
        if name.split_whitespace().count() <= 4 {
            add(name);
        }
    }
    for matched in NAME.find_iter(sentence) {
        // The capital inside of a code, such as "4471-B", begins no name.
        if sentence[..matched.start()].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '-' | '_'))
        {
            continue;
        }
        for name in name_parts(matched.as_str()) {
            let first = name.split(' ').next().unwrap_or_default().to_lowercase();
            let at_start = matched.start() == 0 && matched.as_str().starts_with(name);
            if !at_start || name.contains(' ') || known.contains(&first) || is_name_at_start(sentence, name) {
                add(name);
            }
        }
    }
    for matched in CODE.find_iter(sentence).filter(|matched| is_code(matched.as_str())) {
        add(matched.as_str());
    }
    found.into_iter().collect()
}

/// "Anna's Volvo" are two names, "Anna" and "Volvo"; words that are capitals only by grammar fall away.
fn name_parts(run: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = None;
    let mut end = 0;
    let mut position = 0;
    for word in run.split(' ') {
        let bare = word.trim_end_matches("'s").trim_end_matches("’s");
        let is_name = !NO_NAMES.contains(&bare.to_lowercase().as_str()) && bare.chars().any(char::is_alphanumeric);
        let joins =
            matches!(word, "of" | "de" | "da" | "van" | "von" | "der" | "den" | "la" | "le" | "del" | "al" | "bin");
        if is_name && (start.is_some() || !joins) {
            start.get_or_insert(position);
            end = if joins { end } else { position + bare.len() };
        }
        let closes = !is_name || bare.len() < word.len();
        if closes && let Some(begin) = start.take() {
            parts.push(&run[begin..end]);
        }
        position += word.len() + 1;
    }
    if let Some(begin) = start {
        parts.push(&run[begin..end]);
    }
    // A lone number after something that was no name.
    parts.retain(|part| part.chars().any(char::is_alphabetic));
    parts
}

fn is_name_at_start(sentence: &str, name: &str) -> bool {
    let agent = AGENT.captures(sentence).is_some_and(|found| &found[1] == name);
    let possessor = POSSESSOR.captures(sentence).is_some_and(|found| &found[1] == name);
    let inner_capital =
        name.chars().skip(1).any(char::is_uppercase) || name.chars().any(|digit| digit.is_ascii_digit());
    agent || possessor || inner_capital
}

/// Letters and digits together, or four digits and more that are no year of our time.
fn is_code(word: &str) -> bool {
    let num_digits = word.chars().filter(char::is_ascii_digit).count();
    let has_letter = word.chars().any(char::is_alphabetic);
    let is_year = word.len() == 4 && (word.starts_with("19") || word.starts_with("20")) && !has_letter;
    let is_date = word.len() == 10 && word.matches('-').count() == 2 && num_digits == 8;
    let is_ordinal = has_letter
        && word.trim_start_matches(|digit: char| digit.is_ascii_digit()).len() <= 2
        && ["st", "nd", "rd", "th", "am", "pm", "h", "x", "kg", "km", "cm", "m", "g", "s"]
            .contains(&word.trim_start_matches(|digit: char| digit.is_ascii_digit()).to_lowercase().as_str());
    num_digits > 0 && !is_year && !is_date && !is_ordinal && (has_letter && word.len() >= 3 || num_digits >= 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sentence: &str) -> Vec<String> {
        entities(sentence, &BTreeSet::new())
    }

    #[test]
    fn names_inside_of_a_sentence_are_entities_and_its_first_word_is_not() {
        assert_eq!(of("The user lives in New York with Anna Berg."), ["Anna Berg", "New York"]);
        assert_eq!(of("Tea is nice."), Vec::<String>::new());
        assert_eq!(of("Zorvan's favourite colour is teal."), ["Zorvan"]);
        assert_eq!(of("Anna likes tea."), ["Anna"]);
        assert_eq!(of("The user met Anna's Volvo dealer on Monday in March."), ["Anna", "Volvo"]);
        assert_eq!(of("The user read \"the long walk\" by Stephen King."), ["Stephen King", "the long walk"]);
        assert_eq!(of("The code of the safe is 4471-B and the version is 2026."), ["4471-B"]);
        assert_eq!(of("The user works at the University of Oslo."), ["University of Oslo"]);
        assert_eq!(of("The user drives a Volvo V60."), ["V60", "Volvo V60"]);
    }

    #[test]
    fn a_known_name_counts_at_the_start() {
        let known = known_names(&["Tea".to_owned()], ["I met Rosa."].into_iter());
        assert_eq!(entities("Tea is nice.", &known), ["Tea"]);
        assert_eq!(entities("Rosa is nice.", &known), ["Rosa"]);
    }

    #[test]
    fn labels_stay_within_their_limits() {
        let many: String = (0..200).map(|number| format!(" in Town{number}x and")).collect();
        assert!(of(&format!("The user lived{many}")).len() <= NUM_LABELS_MAX);
        let long = format!("The user met {}", "Aa".repeat(1000));
        assert!(of(&long).iter().all(|name| name.len() <= LABEL_BYTES_MAX));
    }
}
