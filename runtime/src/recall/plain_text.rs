//! Memories are data: a text of any origin becomes one line that holds no token by which a prompt is structured.

use std::collections::HashSet;
use std::sync::Arc;

use models::{SpecialTokens, Tokenizer};

/// Breaking one mark can only put together another that has a space in it; such marks are rare, and then the text is taken
/// apart for good.
const NUM_PASSES: usize = 4;

/// Makes texts harmless for one tokenizer.
#[derive(Debug, Clone)]
pub struct PlainText {
    tokenizer: Arc<Tokenizer>,
    ids: HashSet<u32>,
    marks: Vec<String>,
}

impl PlainText {
    /// For prompts of this tokenizer.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        let (ids, mut marks): (HashSet<u32>, Vec<String>) = tokenizer.structural_tokens().into_iter().unzip();
        // The longer ones first, so that a mark inside another does not leave the rest of it whole.
        marks.sort_by_key(|mark| std::cmp::Reverse(mark.len()));
        Self { tokenizer, ids, marks }
    }

    /// The text as one line without structure: white space and control characters become single spaces, and what spells a
    /// token that structures prompts is spelled apart (`<|end|>` becomes `< |end|>`). `None` where nothing of it can be
    /// shown safely.
    pub fn line(&self, text: &str) -> Option<String> {
        let mut line = one_line(text);
        for _ in 0..NUM_PASSES {
            if self.is_plain(&line)? {
                return Some(line).filter(|line| !line.is_empty());
            }
            for mark in self.marks.iter().filter(|mark| mark.chars().count() > 1) {
                if line.contains(mark.as_str()) {
                    let second = mark.char_indices().nth(1).map_or(mark.len(), |(second, _)| second);
                    line = line.replace(mark.as_str(), &format!("{} {}", &mark[..second], &mark[second..]));
                }
            }
        }
        // A normalizer makes a mark of what does not look like one, such as `＜|end|＞`.
        let words_only = |letter: char| if letter.is_alphanumeric() { letter } else { ' ' };
        let line = one_line(&line.chars().map(words_only).collect::<String>());
        (self.is_plain(&line)? && !line.is_empty()).then_some(line)
    }

    /// Tokens that a text takes in a prompt. One that cannot be encoded takes more than any budget.
    pub fn num_tokens(&self, text: &str) -> usize {
        self.tokenizer.encode(text, SpecialTokens::Skip).map_or(usize::MAX, |tokens| tokens.len())
    }

    /// Whether none of its tokens structures a prompt; `None` where it cannot be encoded.
    fn is_plain(&self, line: &str) -> Option<bool> {
        let tokens = self.tokenizer.encode(line, SpecialTokens::Skip).ok()?;
        Some(!tokens.iter().any(|token| self.ids.contains(token)))
    }
}

fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}
