//! The state of a terminal chat: instructions, memories, turns; and the messages that they become.

use memory::ingest::{self, Role};
use serde_json::{Value, json};

/// Heading above the memories in the system turn. The bundled model is trained on it.
const MEMORIES_HEADING: &str = "# Memories";

/// What was said and is known so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Conversation {
    system: Option<String>,
    memories: Vec<String>,
    turns: Vec<Turn>,
}

/// A question and, once it is there, its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Turn {
    user: String,
    assistant: Option<String>,
}

impl Conversation {
    /// A conversation that begins with these instructions and memories.
    pub fn new(system: Option<String>, memories: &[String]) -> Self {
        let mut conversation = Self { system, ..Self::default() };
        memories.iter().for_each(|memory| conversation.remember(memory));
        conversation
    }

    /// Replaces the instructions; an empty text removes them.
    pub fn set_system(&mut self, text: &str) {
        self.system = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    }

    /// Adds a memory behind the others: where two contradict each other, the later one holds.
    pub fn remember(&mut self, text: &str) {
        self.memories.push(one_line(text));
    }

    /// The memories, oldest first.
    pub fn memories(&self) -> &[String] {
        &self.memories
    }

    /// Forgets the turns; instructions and memories stay.
    pub fn reset(&mut self) {
        self.turns.clear();
    }

    /// The user's next message; its answer is not there yet.
    pub fn ask(&mut self, text: &str) {
        self.turns.push(Turn { user: text.to_owned(), assistant: None });
    }

    /// The answer to the last message. An empty one takes the message back, so that no turn is without an answer.
    pub fn answer(&mut self, text: &str) {
        if text.is_empty() {
            self.turns.pop();
        } else if let Some(turn) = self.turns.last_mut() {
            turn.assistant = Some(text.to_owned());
        }
    }

    /// Drops the oldest answered turn and returns what the user had said in it; `None` when only the open one is left.
    pub fn drop_oldest_turn(&mut self) -> Option<String> {
        self.turns.first()?.assistant.as_ref()?;
        Some(self.turns.remove(0).user)
    }

    /// What was said, for recalling and remembering.
    pub fn said(&self) -> Vec<ingest::Turn> {
        let said = |role, text: &String| ingest::Turn { role, text: text.clone() };
        self.turns
            .iter()
            .flat_map(|turn| {
                let answer = turn.assistant.iter().map(move |text| said(Role::Assistant, text));
                std::iter::once(said(Role::User, &turn.user)).chain(answer)
            })
            .collect()
    }

    /// The conversation as OpenAI messages: the system turn with these recalled lines, if there is anything in it, then the
    /// turns.
    pub fn messages(&self, recalled: &[String]) -> Value {
        let mut messages = Vec::with_capacity(1 + 2 * self.turns.len());
        messages.extend(self.system_turn(recalled).map(|content| json!({"role": "system", "content": content})));
        for turn in &self.turns {
            messages.push(json!({"role": "user", "content": turn.user}));
            messages.extend(turn.assistant.iter().map(|content| json!({"role": "assistant", "content": content})));
        }
        Value::Array(messages)
    }

    /// Instructions, a blank line, and the memories under their heading, one `- ` line each: those of this chat, then those
    /// of its cube.
    fn system_turn(&self, recalled: &[String]) -> Option<String> {
        let own = self.memories.iter().map(|memory| format!("- {memory}"));
        let lines: Vec<String> = own.chain(recalled.iter().cloned()).collect();
        let memories = (!lines.is_empty()).then(|| format!("{MEMORIES_HEADING}\n{}", lines.join("\n")));
        let parts: Vec<String> = self.system.iter().cloned().chain(memories).collect();
        (!parts.is_empty()).then(|| parts.join("\n\n"))
    }
}

/// A memory is one line: a line break in it would look like the end of the list.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_stand_under_their_heading_behind_the_instructions() {
        let mut conversation = Conversation::new(Some("Be brief.".to_owned()), &["Anna lives in Bern.".to_owned()]);
        conversation.remember("  Her cat\nis Tom. ");
        conversation.ask("Where?");
        let system = "Be brief.\n\n# Memories\n- Anna lives in Bern.\n- Her cat is Tom.";
        let expected = json!([{"role": "system", "content": system}, {"role": "user", "content": "Where?"}]);
        assert_eq!(conversation.messages(&[]), expected);
    }

    #[test]
    fn a_system_turn_without_content_is_not_sent() {
        let mut conversation = Conversation::new(Some("x".to_owned()), &[]);
        conversation.set_system("  ");
        conversation.ask("Hi");
        assert_eq!(conversation.messages(&[]), json!([{"role": "user", "content": "Hi"}]));
        conversation.remember("a");
        assert_eq!(conversation.messages(&[])[0]["content"], "# Memories\n- a");
        assert_eq!(conversation.messages(&["- b".to_owned()])[0]["content"], "# Memories\n- a\n- b");
    }

    #[test]
    fn a_reset_keeps_instructions_and_memories() {
        let mut conversation = Conversation::new(Some("x".to_owned()), &["m".to_owned()]);
        conversation.ask("Hi");
        conversation.answer("Hello");
        conversation.reset();
        assert_eq!(conversation.messages(&[]), json!([{"role": "system", "content": "x\n\n# Memories\n- m"}]));
    }

    #[test]
    fn turns_are_dropped_oldest_first_and_never_the_open_one() {
        let mut conversation = Conversation::default();
        for turn in 0..2 {
            conversation.ask(&format!("q{turn}"));
            conversation.answer(&format!("a{turn}"));
        }
        conversation.ask("q2");
        assert_eq!(conversation.drop_oldest_turn().as_deref(), Some("q0"));
        assert_eq!(conversation.messages(&[])[0]["content"], "q1");
        assert_eq!(conversation.drop_oldest_turn().as_deref(), Some("q1"));
        assert_eq!(conversation.drop_oldest_turn(), None);
        assert_eq!(conversation.messages(&[]), json!([{"role": "user", "content": "q2"}]));
    }

    #[test]
    fn a_message_without_an_answer_is_taken_back() {
        let mut conversation = Conversation::default();
        conversation.ask("Hi");
        conversation.answer("");
        assert_eq!(conversation.messages(&[]), json!([]));
    }
}
