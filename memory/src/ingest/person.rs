//! The first person of a turn in a form that stays true when somebody else reads it: "I live" becomes "The user lives".

use unicode_segmentation::UnicodeSegmentation;

use super::Role;
use super::verbs::{is_adverb, is_base, is_finite, is_invariant, is_past, third_person};

/// Rewrites a sentence that this role said. Text in double quotes stays as it is. "We" is taken as the speaker: who
/// else it means is not known, and a memory about the speaker must be found as one.
pub(super) fn third_person_form(sentence: &str, role: Role) -> String {
    let (speaker, listener) = match role {
        Role::User => ("the user", "the assistant"),
        Role::Assistant => ("the assistant", "the user"),
        Role::System | Role::Tool => return sentence.to_owned(),
    };
    let mut rewriter =
        Rewriter { tokens: sentence.split_word_bounds().collect(), out: String::new(), speaker, listener };
    rewriter.run(role);
    capitalised(&rewriter.out)
}

/// The text with a capital at its beginning.
pub(super) fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}

struct Rewriter<'a> {
    tokens: Vec<&'a str>,
    out: String,
    speaker: &'static str,
    listener: &'static str,
}

/// What verb forms a following "and" may carry on with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clause {
    /// No first person subject yet.
    None,
    /// The subject's verb was put into the third person, and a second verb has to follow it.
    Conjugated,
    /// A past form, a modal or an infinitive: what follows stays.
    Other,
}

impl Rewriter<'_> {
    fn run(&mut self, role: Role) {
        let mut quoted = false;
        let mut clause = Clause::None;
        let mut index = 0;
        // "You" means the listener where it is the subject of the whole; elsewhere it is often anybody.
        let starts_with_you = self.word(0).starts_with("you");
        let addresses = starts_with_you || role == Role::Assistant;
        while index < self.tokens.len() {
            let token = self.tokens[index];
            if matches!(token, "\"" | "“" | "”") {
                quoted = if token == "\"" { !quoted } else { token == "“" };
            }
            let word = self.word(index);
            if quoted {
                self.out.push_str(token);
            } else if let Some(rest) = self.subject(index, &word, addresses) {
                index = self.verb_phrase(index + 1, &word, rest, &mut clause);
                continue;
            } else if let Some(other) = self.other_form(&word, addresses) {
                self.out.push_str(&other);
            } else if matches!(word.as_str(), "and" | "but" | "or") && clause == Clause::Conjugated {
                self.out.push_str(token);
                index = self.second_verb(index + 1);
                continue;
            } else {
                if word == "to" {
                    clause = Clause::Other;
                }
                self.out.push_str(token);
            }
            index += 1;
        }
    }

    fn word(&self, index: usize) -> String {
        self.tokens.get(index).map_or(String::new(), |token| token.to_lowercase().replace('\u{2019}', "'"))
    }

    /// Index of the next token that is not space.
    fn next(&self, mut index: usize) -> usize {
        while self.tokens.get(index).is_some_and(|token| token.trim().is_empty()) {
            index += 1;
        }
        index
    }

    /// If the word is a subject: whom it means and the verb that is contracted with it.
    fn subject(&self, index: usize, word: &str, addresses: bool) -> Option<(&'static str, Option<&'static str>)> {
        let (pronoun, contracted) = word.split_once('\'').map_or((word, None), |(pronoun, verb)| (pronoun, Some(verb)));
        let whom = match pronoun {
            "i" if !self.is_numeral(index) => self.speaker,
            "we" => self.speaker,
            "you" if addresses && self.is_subject(index) => self.listener,
            _ => return None,
        };
        let verb = match contracted {
            None => None,
            Some("m" | "re") => Some("is"),
            Some("ve") => Some("has"),
            Some("ll") => Some("will"),
            Some("d") => Some(self.contracted_d(index)),
            Some(_) => return None,
        };
        Some((whom, verb))
    }

    /// "World War I", "part I": the words before which "I" is a number.
    fn is_numeral(&self, index: usize) -> bool {
        const NUMBERED: &[&str] = &[
            "war",
            "part",
            "type",
            "class",
            "chapter",
            "volume",
            "phase",
            "level",
            "act",
            "book",
            "section",
            "appendix",
            "stage",
            "tier",
            "grade",
            "elizabeth",
            "charles",
            "element",
        ];
        self.tokens[index] == "I" && index >= 2 && NUMBERED.contains(&self.word(index - 2).as_str())
    }

    fn is_subject(&self, index: usize) -> bool {
        let next = self.word(self.next(index + 1));
        self.tokens[index].contains(['\'', '\u{2019}']) || is_finite(&next) || is_adverb(&next)
    }

    /// "I'd been" is "had", "I'd like" is "would".
    fn contracted_d(&self, index: usize) -> &'static str {
        let mut next = self.next(index + 1);
        while is_adverb(&self.word(next)) {
            next = self.next(next + 1);
        }
        let word = self.word(next);
        if word == "been" || word == "better" || (is_past(&word) && !is_base(&word)) { "had" } else { "would" }
    }

    fn verb_phrase(
        &mut self,
        start: usize,
        word: &str,
        (whom, contracted): (&'static str, Option<&'static str>),
        clause: &mut Clause,
    ) -> usize {
        // "My wife and I live": the verb has two subjects. After another clause ("I came and I saw") it has one.
        let before = self.out.trim_end().to_lowercase();
        let is_joint = word == "i" && before.ends_with(" and") && !before.split_whitespace().any(is_finite);
        self.out.push_str(whom);
        if let Some(verb) = contracted {
            self.out.push(' ');
            self.out.push_str(verb);
            *clause = Clause::Other;
            return start;
        }
        if is_joint {
            *clause = Clause::Other;
            return start;
        }
        let mut index = start;
        loop {
            let mut at = self.next(index);
            let after = self.next(at + 1);
            if self.word(at) == "no" && self.word(after) == "longer" {
                at = after;
            } else if !is_adverb(&self.word(at)) {
                break;
            }
            self.out.extend(self.tokens[index..=at].iter().copied());
            index = at + 1;
        }
        let at = self.next(index);
        let verb = self.word(at);
        let is_word = verb.chars().next().is_some_and(char::is_alphabetic);
        let is_conjunction = matches!(verb.as_str(), "and" | "or" | "but" | "who" | "that" | "to");
        if at >= self.tokens.len() || !is_word || is_conjunction {
            return index;
        }
        self.out.extend(self.tokens[index..at].iter().copied());
        let changed = third_person(&verb);
        let stays = is_invariant(&verb) || is_past(&verb) || matches!(verb.as_str(), "do" | "don't");
        *clause = if stays { Clause::Other } else { Clause::Conjugated };
        self.out.push_str(if changed == verb { self.tokens[at] } else { &changed });
        at + 1
    }

    /// "… and work as a nurse": a known verb with something after it has the same subject.
    fn second_verb(&mut self, start: usize) -> usize {
        let mut at = self.next(start);
        while is_adverb(&self.word(at)) {
            at = self.next(at + 1);
        }
        let verb = self.word(at);
        let has_object = self.next(at + 1) < self.tokens.len()
            && self.word(self.next(at + 1)).chars().next().is_some_and(char::is_alphanumeric);
        if !(is_base(&verb) || verb == "am") || !has_object {
            return start;
        }
        self.out.extend(self.tokens[start..at].iter().copied());
        self.out.push_str(&third_person(&verb));
        at + 1
    }

    fn other_form(&self, word: &str, addresses: bool) -> Option<String> {
        let speaker = self.speaker;
        Some(match word {
            "me" | "us" => speaker.to_owned(),
            "my" | "mine" | "our" | "ours" => format!("{speaker}'s"),
            "myself" | "ourselves" => "themselves".to_owned(),
            "your" | "yours" if addresses => format!("{}'s", self.listener),
            "you" if addresses => self.listener.to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_first_person_becomes_the_user() {
        for (said, stored) in [
            ("My favourite colour is teal.", "The user's favourite colour is teal."),
            ("I live in Oslo and work as a nurse.", "The user lives in Oslo and works as a nurse."),
            ("I'm allergic to nuts.", "The user is allergic to nuts."),
            ("i’ve got two cats", "The user has got two cats"),
            ("I usually don't eat meat.", "The user usually doesn't eat meat."),
            ("I moved to Bergen and bought a boat.", "The user moved to Bergen and bought a boat."),
            ("I like to hike and play tennis.", "The user likes to hike and play tennis."),
            ("I can cook and play chess.", "The user can cook and play chess."),
            ("The colour I like best is teal.", "The colour the user likes best is teal."),
            ("My wife and I live in Oslo.", "The user's wife and the user live in Oslo."),
            ("I came late and I like it.", "The user came late and the user likes it."),
            ("Anna told me that her code is 12.", "Anna told the user that her code is 12."),
            ("I wrote \"I like my dog\" on it.", "The user wrote \"I like my dog\" on it."),
            ("My book is about World War I.", "The user's book is about World War I."),
            ("I'd like to visit Japan.", "The user would like to visit Japan."),
            ("I'd been to Rome.", "The user had been to Rome."),
            ("The red car is mine.", "The red car is the user's."),
            ("Your name is Max.", "The assistant's name is Max."),
            ("To reset it you hold the button.", "To reset it you hold the button."),
            ("I no longer like tea.", "The user no longer likes tea."),
            ("Today I juggle.", "Today the user juggles."),
            ("I am a nurse and live in Oslo.", "The user is a nurse and lives in Oslo."),
            ("I have a pet called Rex.", "The user has a pet called Rex."),
            ("I am fluent in Thai.", "The user is fluent in Thai."),
            ("Our office is in Oslo.", "The user's office is in Oslo."),
        ] {
            assert_eq!(third_person_form(said, Role::User), stored);
        }
    }

    #[test]
    fn the_assistants_second_person_becomes_the_user() {
        assert_eq!(third_person_form("Your code is 12.", Role::Assistant), "The user's code is 12.");
        assert_eq!(third_person_form("You live in Oslo.", Role::Assistant), "The user lives in Oslo.");
    }
}
