//! Turns decoded pieces of text into deltas for the client: stop strings cut off, log-probabilities kept beside their text.
//!
//! Streamed and whole answers go through here alike, which is why they are equal.

use models::TokenLogprob;

use super::stop_strings::{Released, StopStrings};

/// A token that is part of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerToken {
    /// Its log-probability and the alternatives.
    pub logprob: TokenLogprob,
    /// Where its text begins, in characters from the beginning of the generated text.
    pub text_offset: usize,
}

/// What may be sent to the client.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextDelta {
    /// More text.
    pub text: String,
    /// The tokens that are complete with it.
    pub tokens: Vec<AnswerToken>,
}

impl TextDelta {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }
}

/// What became of a token.
#[derive(Debug, PartialEq)]
pub enum Assembled {
    /// The answer goes on.
    Delta(TextDelta),
    /// A stop string was found: this is the last delta.
    Stopped(TextDelta),
}

/// A token whose text has not been released as a whole.
#[derive(Debug)]
struct HeldToken {
    token: AnswerToken,
    start_bytes: usize,
    /// `None` while the token is only the beginning of a character: it goes with the text that completes it.
    end_bytes: Option<usize>,
}

/// The text of one choice while it is generated.
#[derive(Debug)]
pub struct TextAssembler {
    stops: StopStrings,
    held: Vec<HeldToken>,
    decoded_bytes: usize,
    decoded_chars: usize,
    released_bytes: usize,
}

impl TextAssembler {
    /// Starts an empty answer that ends at any of these strings.
    pub fn new(stops: Vec<String>) -> Self {
        let stops = StopStrings::new(stops);
        Self { stops, held: Vec::new(), decoded_bytes: 0, decoded_chars: 0, released_bytes: 0 }
    }

    /// Takes a token: the text that became final with it (none while a character is incomplete) and its
    /// log-probability, when those are wanted.
    pub fn push(&mut self, text: &str, logprob: Option<TokenLogprob>) -> Assembled {
        if let Some(logprob) = logprob {
            let token = AnswerToken { logprob, text_offset: self.decoded_chars };
            self.held.push(HeldToken { token, start_bytes: self.decoded_bytes, end_bytes: None });
        }
        self.decoded_bytes += text.len();
        self.decoded_chars += text.chars().count();
        if !text.is_empty() {
            for held in self.held.iter_mut().filter(|held| held.end_bytes.is_none()) {
                held.end_bytes = Some(self.decoded_bytes);
            }
        }
        match self.stops.push(text) {
            Released::Text(text) => {
                self.released_bytes += text.len();
                let num_complete = self
                    .held
                    .iter()
                    .take_while(|held| held.end_bytes.is_some_and(|end| end <= self.released_bytes))
                    .count();
                let tokens = self.held.drain(..num_complete).map(|held| held.token).collect();
                Assembled::Delta(TextDelta { text, tokens })
            }
            Released::Stopped(text) => {
                self.released_bytes += text.len();
                // A token that has text before the cut belongs to the answer, though its end was cut off.
                let end = self.released_bytes;
                let tokens = self.held.drain(..).filter(|held| held.start_bytes < end).map(|held| held.token).collect();
                Assembled::Stopped(TextDelta { text, tokens })
            }
        }
    }

    /// Ends the answer with the text that the decoder still had, and releases all that was held back.
    pub fn finish(&mut self, text: &str) -> Assembled {
        match self.push(text, None) {
            Assembled::Stopped(delta) => Assembled::Stopped(delta),
            Assembled::Delta(mut delta) => {
                delta.text.push_str(&self.stops.finish());
                delta.tokens.extend(self.held.drain(..).map(|held| held.token));
                Assembled::Delta(delta)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logprob(token: u32) -> TokenLogprob {
        TokenLogprob { token, logprob: -0.5, top: Vec::new() }
    }

    /// Feeds pieces as tokens 0, 1, 2, … and returns the deltas and whether a stop string ended it.
    fn assemble(stops: &[&str], pieces: &[&str]) -> (Vec<TextDelta>, bool) {
        let mut assembler = TextAssembler::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut deltas = Vec::new();
        for (token, piece) in (0u32..).zip(pieces) {
            match assembler.push(piece, Some(logprob(token))) {
                Assembled::Delta(delta) => deltas.push(delta),
                Assembled::Stopped(delta) => {
                    deltas.push(delta);
                    return (deltas, true);
                }
            }
        }
        let (Assembled::Delta(last) | Assembled::Stopped(last)) = assembler.finish("");
        deltas.push(last);
        (deltas, false)
    }

    fn tokens_of(delta: &TextDelta) -> Vec<(u32, usize)> {
        delta.tokens.iter().map(|token| (token.logprob.token, token.text_offset)).collect()
    }

    #[test]
    fn tokens_travel_with_their_text() {
        let (deltas, stopped) = assemble(&["END"], &["a", " E", "N", "x"]);
        assert!(!stopped);
        assert_eq!(deltas[0].text, "a");
        assert_eq!(tokens_of(&deltas[0]), [(0, 0)]);
        assert_eq!((deltas[1].text.as_str(), tokens_of(&deltas[1])), (" ", Vec::new()));
        assert_eq!((deltas[2].text.as_str(), tokens_of(&deltas[2])), ("", Vec::new()));
        assert_eq!((deltas[3].text.as_str(), tokens_of(&deltas[3])), ("ENx", vec![(1, 1), (2, 3), (3, 4)]));
    }

    #[test]
    fn tokens_of_the_stop_string_are_not_part_of_the_answer() {
        let (deltas, stopped) = assemble(&["END"], &["a", "b E", "ND", "c"]);
        assert!(stopped);
        let text: String = deltas.iter().map(|delta| delta.text.as_str()).collect();
        let tokens: Vec<(u32, usize)> = deltas.iter().flat_map(tokens_of).collect();
        assert_eq!(text, "ab ");
        assert_eq!(tokens, [(0, 0), (1, 1)]);
    }

    #[test]
    fn a_token_that_begins_a_character_goes_with_its_completion() {
        let (deltas, _) = assemble(&[], &["x", "", "", "€", "y"]);
        assert!(deltas[1].is_empty() && deltas[2].is_empty());
        assert_eq!(tokens_of(&deltas[3]), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(tokens_of(&deltas[4]), [(4, 2)]);
    }

    #[test]
    fn the_rest_of_the_decoder_can_complete_a_stop_string() {
        let mut assembler = TextAssembler::new(vec!["\u{fffd}".to_owned()]);
        assert_eq!(assembler.push("ab", None), Assembled::Delta(TextDelta { text: "ab".into(), tokens: Vec::new() }));
        assert_eq!(assembler.finish("\u{fffd}"), Assembled::Stopped(TextDelta::default()));
    }

    #[test]
    fn text_and_tokens_do_not_depend_on_the_split() {
        let text = "one ENDless EN€D of END tail";
        let letters: Vec<&str> = text.split_inclusive(|_: char| true).collect();
        let (whole, _) = assemble(&["END of", "D of END"], &[text]);
        let whole_text: String = whole.iter().map(|delta| delta.text.as_str()).collect();
        for width in 1..letters.len() {
            let pieces: Vec<String> = letters.chunks(width).map(<[&str]>::concat).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (deltas, stopped) = assemble(&["END of", "D of END"], &pieces);
            let joined: String = deltas.iter().map(|delta| delta.text.as_str()).collect();
            assert!(stopped);
            assert_eq!(joined, whole_text, "pieces of {width}");
        }
    }
}
