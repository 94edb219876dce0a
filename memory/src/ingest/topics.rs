//! Topics of a sentence: a small list of words and the tags that they stand for.

use std::collections::BTreeSet;

use crate::item::NUM_LABELS_MAX;

/// Topic words and their tags.
const TOPICS: &[(&str, &str)] = &[
    ("colour", "colour"),
    ("color", "colour"),
    ("food", "food"),
    ("eat", "food"),
    ("eats", "food"),
    ("eating", "food"),
    ("cook", "food"),
    ("cooks", "food"),
    ("dish", "food"),
    ("restaurant", "food"),
    ("vegetarian", "food"),
    ("vegan", "food"),
    ("drink", "drink"),
    ("drinks", "drink"),
    ("drinking", "drink"),
    ("coffee", "drink"),
    ("tea", "drink"),
    ("lives", "home"),
    ("live", "home"),
    ("home", "home"),
    ("flat", "home"),
    ("house", "home"),
    ("apartment", "home"),
    ("address", "home"),
    ("moved", "home"),
    ("work", "work"),
    ("works", "work"),
    ("job", "work"),
    ("office", "work"),
    ("manager", "work"),
    ("boss", "work"),
    ("employer", "work"),
    ("company", "work"),
    ("colleague", "work"),
    ("project", "work"),
    ("deadline", "work"),
    ("meeting", "work"),
    ("team", "work"),
    ("wife", "family"),
    ("husband", "family"),
    ("partner", "family"),
    ("sister", "family"),
    ("brother", "family"),
    ("mother", "family"),
    ("father", "family"),
    ("son", "family"),
    ("daughter", "family"),
    ("child", "family"),
    ("children", "family"),
    ("kids", "family"),
    ("married", "family"),
    ("birthday", "birthday"),
    ("born", "birthday"),
    ("pet", "pet"),
    ("dog", "pet"),
    ("cat", "pet"),
    ("cats", "pet"),
    ("dogs", "pet"),
    ("allergic", "health"),
    ("allergy", "health"),
    ("doctor", "health"),
    ("dentist", "health"),
    ("medicine", "health"),
    ("sick", "health"),
    ("code", "access"),
    ("password", "access"),
    ("pin", "access"),
    ("username", "access"),
    ("key", "access"),
    ("phone", "contact"),
    ("telephone", "contact"),
    ("email", "contact"),
    ("e-mail", "contact"),
    ("number", "number"),
    ("sport", "sport"),
    ("football", "sport"),
    ("tennis", "sport"),
    ("running", "sport"),
    ("swimming", "sport"),
    ("music", "music"),
    ("guitar", "music"),
    ("piano", "music"),
    ("song", "music"),
    ("band", "music"),
    ("instrument", "music"),
    ("book", "books"),
    ("books", "books"),
    ("reading", "books"),
    ("film", "films"),
    ("movie", "films"),
    ("language", "language"),
    ("speaks", "language"),
    ("fluent", "language"),
    ("travel", "travel"),
    ("trip", "travel"),
    ("flight", "travel"),
    ("holiday", "travel"),
    ("vacation", "travel"),
    ("visit", "travel"),
    ("hotel", "travel"),
    ("car", "vehicle"),
    ("drives", "vehicle"),
    ("bike", "vehicle"),
    ("school", "education"),
    ("university", "education"),
    ("studies", "education"),
    ("exam", "education"),
    ("hobby", "hobby"),
    ("price", "money"),
    ("cost", "money"),
    ("costs", "money"),
    ("paid", "money"),
    ("bank", "money"),
    ("version", "software"),
    ("software", "software"),
    ("server", "software"),
    ("appointment", "appointment"),
    ("name", "name"),
];

/// The topics of a sentence; sorted, no duplicates.
pub(super) fn tags(sentence: &str) -> Vec<String> {
    let lower = sentence.to_lowercase();
    let words: BTreeSet<&str> = lower
        .split(|character: char| !character.is_alphanumeric() && character != '-')
        .filter(|word| !word.is_empty())
        .collect();
    let found: BTreeSet<&str> =
        TOPICS.iter().filter(|(word, _)| words.contains(word)).map(|(_, tag)| *tag).take(NUM_LABELS_MAX).collect();
    found.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_become_tags_once() {
        assert_eq!(tags("The user works as a nurse at the office and drinks tea."), ["drink", "work"]);
        assert_eq!(tags("界"), Vec::<String>::new());
    }
}
