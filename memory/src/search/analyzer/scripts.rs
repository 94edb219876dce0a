//! Scripts whose words have no visible borders: cut into overlapping pairs of characters instead of words.

/// What a run of characters is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// Words with borders that Unicode's rules find.
    Spaced,
    /// Han and kana: pairs, and single ideographs, which are words of their own often enough.
    HanKana,
    /// Hangul: pairs and single syllables; particles are glued to the words.
    Hangul,
    /// Thai, Lao, Myanmar, Khmer: pairs. A single letter means nothing.
    SouthEastAsian,
}

impl Script {
    /// The script of a character of folded text.
    pub fn of(letter: char) -> Self {
        match letter {
            '\0'..='\u{0e00}' => Self::Spaced,
            '\u{0e01}'..='\u{0e3a}' | '\u{0e40}'..='\u{0e4e}' | '\u{0e81}'..='\u{0ece}' | '\u{0edc}'..='\u{0edf}' => {
                Self::SouthEastAsian
            }
            '\u{1000}'..='\u{103f}' | '\u{1050}'..='\u{109f}' | '\u{1780}'..='\u{17d3}' | '\u{17dc}'..='\u{17dd}' => {
                Self::SouthEastAsian
            }
            '\u{a9e0}'..='\u{a9ef}' | '\u{a9fa}'..='\u{a9fe}' | '\u{aa60}'..='\u{aa7f}' => Self::SouthEastAsian,
            '\u{1100}'..='\u{11ff}' | '\u{3131}'..='\u{318e}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}' => {
                Self::Hangul
            }
            '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3038}'..='\u{303b}' => {
                Self::HanKana
            }
            '\u{3041}'..='\u{3096}' | '\u{3099}'..='\u{309a}' | '\u{309d}'..='\u{309f}' | '\u{30a1}'..='\u{30fa}' => {
                Self::HanKana
            }
            '\u{30fc}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' => {
                Self::HanKana
            }
            '\u{f900}'..='\u{faff}' | '\u{1b000}'..='\u{1b16f}' | '\u{20000}'..='\u{323af}' => Self::HanKana,
            _ => Self::Spaced,
        }
    }

    /// Whether a single character of this script can be a word.
    pub fn has_single_words(self) -> bool {
        matches!(self, Self::HanKana | Self::Hangul)
    }
}

/// Cuts text into runs of one script each; the runs together are the text.
pub(crate) fn runs(text: &str) -> impl Iterator<Item = (Script, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let script = Script::of(rest.chars().next()?);
        // ASCII text is one run, found at the speed of a byte scan.
        let end = if rest.is_ascii() { None } else { rest.find(|letter| Script::of(letter) != script) };
        let (run, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some((script, run))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_together_are_the_text() {
        let text = "東京タワー is 333 m, ภาษาไทย and 한국어!";
        let found: Vec<_> = runs(text).collect();
        assert_eq!(found.iter().map(|(_, run)| *run).collect::<String>(), text);
        let scripts: Vec<_> = found.iter().map(|(script, _)| *script).collect();
        use Script::{HanKana, Hangul, SouthEastAsian, Spaced};
        assert_eq!(scripts, [HanKana, Spaced, SouthEastAsian, Spaced, Hangul, Spaced]);
    }
}
