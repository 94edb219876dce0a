//! Finds stop strings in text that arrives in pieces, and holds back what could be the beginning of one.

/// Most stop strings of a request, as in OpenAI's API.
pub const NUM_STOPS_MAX: usize = 4;
/// Longest stop string in bytes: it bounds what a stream holds back.
pub const STOP_BYTES_MAX: usize = 1024;

/// Text on its way to the client. The outcome depends on the text only, never on how it was cut into pieces.
#[derive(Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text that is not released yet: the longest suffix that could begin a stop string.
    pending: String,
}

/// What became of a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub enum Released {
    /// This much is certain; more may follow.
    Text(String),
    /// A stop string was found. This is the text before it; nothing follows.
    Stopped(String),
}

impl StopStrings {
    /// Starts with no text. Empty stop strings are refused earlier, when the request is read.
    pub fn new(stops: Vec<String>) -> Self {
        debug_assert!(stops.iter().all(|stop| !stop.is_empty()));
        Self { stops, pending: String::new() }
    }

    /// Takes the next piece and releases what cannot be part of a stop string.
    pub fn push(&mut self, piece: &str) -> Released {
        self.pending.push_str(piece);
        // The stop string that is complete first wins; of two that end together, the one that begins first.
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.pending.find(stop.as_str()).map(|start| (start + stop.len(), start)))
            .min();
        if let Some((_end, start)) = found {
            let mut text = std::mem::take(&mut self.pending);
            text.truncate(start);
            return Released::Stopped(text);
        }
        let held = self.stops.iter().map(|stop| held_len(&self.pending, stop)).max().unwrap_or(0);
        let rest = self.pending.split_off(self.pending.len() - held);
        Released::Text(std::mem::replace(&mut self.pending, rest))
    }

    /// Ends the text: what was held back is not a stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.pending)
    }
}

/// Length of the longest suffix of the text that is a beginning, but not the whole, of the stop string.
fn held_len(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    let (text, stop) = (text.as_bytes(), stop.as_bytes());
    // A beginning starts with a character's first byte, so the cut before the suffix never splits a character.
    (1..=longest).rev().find(|&len| text[text.len() - len..] == stop[..len]).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopStrings::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut text = String::new();
        for piece in pieces {
            match matcher.push(piece) {
                Released::Text(released) => text.push_str(&released),
                Released::Stopped(released) => return (text + &released, true),
            }
        }
        (text + &matcher.finish(), false)
    }

    /// The specification: look at ever longer beginnings of the text until one ends with a stop string.
    fn specification(stops: &[&str], text: &str) -> (String, bool) {
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let longest = stops.iter().filter(|&&stop| text[..end].ends_with(stop)).map(|stop| stop.len()).max();
            if let Some(len) = longest {
                return (text[..end - len].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    #[test]
    fn a_stop_string_across_pieces_is_cut_off_with_what_follows() {
        assert_eq!(run(&["STOP"], &["one S", "T", "OP two"]), ("one ".to_owned(), true));
        assert_eq!(run(&["STOP"], &["one ST", "ART"]), ("one START".to_owned(), false));
        assert_eq!(run(&["aab"], &["aa", "ab"]), ("a".to_owned(), true));
        assert_eq!(run(&[], &["any", "thing"]), ("anything".to_owned(), false));
    }

    #[test]
    fn what_may_begin_a_stop_string_is_held_back_and_nothing_else() {
        let mut matcher = StopStrings::new(vec!["\n\nUser:".to_owned()]);
        assert_eq!(matcher.push("Hello.\n"), Released::Text("Hello.".to_owned()));
        assert_eq!(matcher.push("\nUse"), Released::Text(String::new()));
        assert_eq!(matcher.push("ful"), Released::Text("\n\nUseful".to_owned()));
    }

    #[test]
    fn the_first_complete_stop_string_wins() {
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), ("a".to_owned(), true));
        assert_eq!(run(&["bc", "abc"], &["xabc"]), ("x".to_owned(), true));
    }

    #[test]
    fn every_split_of_every_text_gives_what_the_specification_says() {
        let alphabet = ["a", "b", "ä", "€"];
        let stop_sets: [&[&str]; 5] =
            [&["ab"], &["aab", "ba"], &["ä€", "€a", "b"], &["aba", "bab", "€€"], &["äa", "aää€"]];
        for number in 0..4usize.pow(6) {
            let letters: Vec<&str> = (0..6).map(|place| alphabet[number / 4usize.pow(place) % 4]).collect();
            let text = letters.concat();
            for stops in stop_sets {
                let expected = specification(stops, &text);
                for cuts in 0..32u32 {
                    let mut pieces = vec![String::new()];
                    for (place, letter) in letters.iter().enumerate() {
                        pieces.last_mut().expect("never empty").push_str(letter);
                        if place < 5 && cuts & (1 << place) != 0 {
                            pieces.push(String::new());
                        }
                    }
                    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                    assert_eq!(run(stops, &pieces), expected, "{stops:?} in {pieces:?}");
                }
            }
        }
    }
}
