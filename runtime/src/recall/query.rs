//! What is searched for: the last thing that the user said, with the one before where it cannot be understood alone.

use memory::ingest::{Role, Turn};

/// Longest query in characters; of a longer message the end counts, where questions usually stand.
const QUERY_CHARS_MAX: usize = 2_000;
/// A message of fewer words leans on the one before it.
const NUM_WORDS_ALONE: usize = 3;
/// Words that stand for something that was named before.
const PRONOUNS: &[&str] = &[
    "it", "its", "he", "him", "his", "she", "her", "hers", "they", "them", "their", "theirs", "that", "this", "these",
    "those", "there", "one", "ones", "former", "latter", "same",
];

/// The query of a conversation; `None` where the user has said nothing.
pub fn query_of(turns: &[Turn]) -> Option<String> {
    let mut said = turns.iter().rev().filter(|turn| turn.role == Role::User).map(|turn| turn.text.trim());
    let last = said.next().filter(|text| !text.is_empty())?;
    let query = match said.next().filter(|_| leans_on_context(last)) {
        Some(before) => format!("{}\n{last}", end_of(before, QUERY_CHARS_MAX / 2)),
        None => last.to_owned(),
    };
    Some(end_of(&query, QUERY_CHARS_MAX).to_owned())
}

fn leans_on_context(text: &str) -> bool {
    let mut num_words = 0;
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        num_words += 1;
        if PRONOUNS.contains(&word.to_lowercase().as_str()) {
            return true;
        }
    }
    num_words < NUM_WORDS_ALONE
}

/// The last characters of a text.
fn end_of(text: &str, num_chars: usize) -> &str {
    match num_chars.checked_sub(1).and_then(|last| text.char_indices().rev().nth(last)) {
        Some((start, _)) => &text[start..],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(said: &[(Role, &str)]) -> Option<String> {
        let turns: Vec<Turn> = said.iter().map(|(role, text)| Turn { role: *role, text: (*text).to_owned() }).collect();
        query_of(&turns)
    }

    #[test]
    fn a_question_that_stands_alone_is_the_query() {
        let said = [(Role::User, "I like Oslo."), (Role::Assistant, "Noted."), (Role::User, "Where does Zorvan live?")];
        assert_eq!(query(&said).as_deref(), Some("Where does Zorvan live?"));
    }

    #[test]
    fn a_short_or_pronominal_message_takes_the_one_before_with_it() {
        for last in ["And Velka?", "What does he like?", "Why?"] {
            let said = [(Role::User, "Where does Zorvan live?"), (Role::Assistant, "Oslo."), (Role::User, last)];
            assert_eq!(query(&said), Some(format!("Where does Zorvan live?\n{last}")));
        }
        assert_eq!(query(&[(Role::User, "Why?")]).as_deref(), Some("Why?"));
    }

    #[test]
    fn without_a_message_of_the_user_nothing_is_searched() {
        assert_eq!(query(&[(Role::System, "Be brief."), (Role::Assistant, "Hello.")]), None);
        assert_eq!(query(&[(Role::User, " \n ")]), None);
    }

    #[test]
    fn of_a_long_message_the_end_counts() {
        let long = format!("{}Where does Zorvan live?", "ä ".repeat(5_000));
        let query = query(&[(Role::User, &long)]).expect("a query");
        assert_eq!(query.chars().count(), QUERY_CHARS_MAX);
        assert!(query.ends_with("Where does Zorvan live?"));
    }
}
