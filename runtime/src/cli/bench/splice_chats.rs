//! Chats whose answers are known: memory lines and one question each, in wordings that the bundled model was trained on, with
//! made-up names and values of the split that it never saw (`models/bundled/vocabulary.py`).

use serde::Serialize;

use super::random::Random;

/// One made-up string in this many is kept from training.
const HELD_OUT_EVERY: u32 = 8;
/// Fewest and most facts of a chat.
const NUM_FACTS: std::ops::Range<u32> = 2..15;
const REFUSAL: &str = "I do not know that yet.";
const SYLLABLES: [&str; 3] = ["b d f g k l m n p r s t v", "a e i o u", "b d f g k l m n p r s t ck nd nt rk st"];
const PREAMBLES: [&str; 4] = [
    "You are a helpful assistant with memory.",
    "Answer from the memories below.",
    "You are MemOS, a small assistant that answers from memory.",
    "Be brief and exact.",
];

/// A relation: its noun, a statement and a question of its own; `{s}` is the subject, `{x}` the value.
struct Relation {
    noun: &'static str,
    statement: &'static str,
    question: &'static str,
    value: Value,
}

#[derive(Clone, Copy)]
enum Value {
    Name,
    Word,
    Code,
}

const fn relation(noun: &'static str, statement: &'static str, question: &'static str, value: Value) -> Relation {
    Relation { noun, statement, question, value }
}

const RELATIONS: [Relation; 12] = [
    relation("favourite colour", "{s} likes the colour {x} best", "Which colour does {s} like best?", Value::Word),
    relation("home city", "{s} lives in {x}", "Where does {s} live?", Value::Name),
    relation("pet", "{s}'s pet is called {x}", "What is {s}'s pet called?", Value::Name),
    relation("employer", "{s} works for {x}", "Who does {s} work for?", Value::Name),
    relation("manager", "{s} reports to {x}", "Who does {s} report to?", Value::Name),
    relation("sister", "{s}'s sister is called {x}", "Who is {s}'s sister?", Value::Name),
    relation("brother", "{s}'s brother is called {x}", "Who is {s}'s brother?", Value::Name),
    relation("sport", "{s} plays {x}", "Which sport does {s} play?", Value::Word),
    relation("access code", "{s} uses the access code {x}", "Which access code does {s} use?", Value::Code),
    relation("room", "{s} sits in room {x}", "Which room is {s} in?", Value::Code),
    relation("project", "{s} works on project {x}", "Which project does {s} work on?", Value::Name),
    relation("hobby", "{s} enjoys {x} as a hobby", "Which hobby does {s} have?", Value::Word),
];

/// What kind of question a chat ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// One line answers it.
    Known,
    /// Two lines disagree; the later one answers it.
    Updated,
    /// No line answers it.
    Unknown,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Known, Self::Updated, Self::Unknown];
}

/// A chat in pieces, as they stand behind one another in the system turn.
pub(super) struct Chat {
    /// The system turn up to the first memory.
    pub heading: String,
    /// Memory lines, with their bullets.
    pub lines: Vec<String>,
    pub question: String,
    pub answer: String,
    pub kind: Kind,
}

impl Chat {
    /// The `index`-th chat of a seed; kinds alternate.
    pub fn draw(seed: u64, index: usize) -> Self {
        let kind = Kind::ALL[index % Kind::ALL.len()];
        let mut random = Random::new(seed, index as u64);
        let num_facts = random.below(NUM_FACTS) as usize;
        let names: Vec<String> = (0..num_facts / 3 + 2).map(|_| name(&mut random)).collect();
        let mut keys: Vec<(usize, usize)> =
            (0..names.len()).flat_map(|name| (0..RELATIONS.len()).map(move |relation| (name, relation))).collect();
        shuffle(&mut random, &mut keys);
        let mut facts: Vec<((usize, usize), String)> =
            keys[..num_facts].iter().map(|key| (*key, RELATIONS[key.1].value.draw(&mut random))).collect();
        let asked = random.below(0..num_facts as u32) as usize;
        let mut lines: Vec<String> = facts
            .iter()
            .map(|((name, relation), value)| RELATIONS[*relation].state(&mut random, &names[*name], value))
            .collect();
        if kind == Kind::Updated {
            let (name, relation) = facts[asked].0;
            let value = RELATIONS[relation].value.draw(&mut random);
            let line = RELATIONS[relation].update(&mut random, &names[name], &value);
            // Anywhere behind the line that it contradicts.
            let at = random.below(asked as u32 + 1..lines.len() as u32 + 1) as usize;
            lines.insert(at, line);
            facts[asked].1 = value;
        }
        let (name, relation) = if kind == Kind::Unknown { keys[num_facts] } else { facts[asked].0 };
        let (name, relation) = (&names[name], &RELATIONS[relation]);
        let answer = match kind {
            Kind::Unknown => REFUSAL.to_owned(),
            Kind::Known | Kind::Updated => format!("{name}'s {} is {}.", relation.noun, facts[asked].1),
        };
        Self {
            heading: format!("{}\n\n# Memories\n", PREAMBLES[random.below(0..PREAMBLES.len() as u32) as usize]),
            lines: lines.iter().map(|line| format!("- {}.\n", capitalised(line))).collect(),
            question: relation.ask(&mut random, name),
            answer,
            kind,
        }
    }
}

impl Relation {
    fn state(&self, random: &mut Random, subject: &str, value: &str) -> String {
        match random.below(0..4) {
            0 => format!("{subject}'s {} is {value}", self.noun),
            1 => format!("the {} of {subject} is {value}", self.noun),
            _ => self.statement.replace("{s}", subject).replace("{x}", value),
        }
    }

    fn update(&self, random: &mut Random, subject: &str, value: &str) -> String {
        match random.below(0..3) {
            0 => format!("{subject}'s {} is now {value}", self.noun),
            1 => format!("correction: {subject}'s {} is {value}", self.noun),
            _ => self.state(random, subject, value),
        }
    }

    fn ask(&self, random: &mut Random, subject: &str) -> String {
        match random.below(0..3) {
            0 => format!("What is {subject}'s {}?", self.noun),
            1 => format!("Tell me {subject}'s {}.", self.noun),
            _ => self.question.replace("{s}", subject),
        }
    }
}

impl Value {
    fn draw(self, random: &mut Random) -> String {
        match self {
            Self::Name => name(random),
            Self::Word => word(random),
            Self::Code => loop {
                let code = format!("{}", random.below(100..9999));
                if is_held_out(&code) {
                    return code;
                }
            },
        }
    }
}

fn name(random: &mut Random) -> String {
    capitalised(&word(random))
}

/// A pronounceable word of the split that training left out.
fn word(random: &mut Random) -> String {
    loop {
        let mut text = String::new();
        for part in [0, 1, 0, 1, 2] {
            let sounds: Vec<&str> = SYLLABLES[part].split(' ').collect();
            text.push_str(sounds[random.below(0..sounds.len() as u32) as usize]);
        }
        if is_held_out(&text) {
            return text;
        }
    }
}

fn is_held_out(text: &str) -> bool {
    crc32(text.to_lowercase().as_bytes()).is_multiple_of(HELD_OUT_EVERY)
}

/// CRC-32 of IEEE 802.3, as zlib computes it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn shuffle<T>(random: &mut Random, items: &mut [T]) {
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(0..at as u32 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_answer_stands_in_the_lines_and_the_later_line_wins() {
        for index in 0..300 {
            let chat = Chat::draw(7, index);
            let value = chat.answer.trim_end_matches('.').rsplit(' ').next().expect("a word").to_owned();
            let with_value = chat.lines.iter().filter(|line| line.contains(&value)).count();
            match chat.kind {
                Kind::Known | Kind::Updated => assert!(with_value > 0, "{:?}: {}", chat.lines, chat.answer),
                Kind::Unknown => assert_eq!(chat.answer, REFUSAL),
            }
            assert!(chat.lines.len() >= 2 + usize::from(chat.kind == Kind::Updated));
        }
    }
}
