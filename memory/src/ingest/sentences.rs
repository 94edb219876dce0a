//! Text into sentences by Unicode's rules, with what those rules do not know: abbreviations, quotations, lists, wrapped lines.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::patterns::pattern;

/// A longer sentence is cut between words, so that no line of a log becomes one memory.
const SENTENCE_BYTES_MAX: usize = 2000;
/// A line is taken to go on in the next one if it is at least this long; people break short lines on purpose.
const WRAPPED_LINE_CHARACTERS_MIN: usize = 50;
/// How many pieces an open quotation may hold together.
const QUOTED_PIECES_MAX: usize = 6;

/// Abbreviations that a name or a number follows, in lower case and without their last point.
const ABBREVIATIONS: &[&str] = &[
    "dr", "mr", "mrs", "ms", "prof", "st", "mt", "no", "nr", "vs", "e.g", "i.e", "cf", "fig", "approx", "ca", "jan",
    "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "gen", "col", "capt", "sgt", "rev",
    "hon", "sr", "jr", "dept", "ave", "rd", "vol", "ed", "eq", "sec", "ch", "pp", "tel", "ext", "al",
];

pattern!(BULLET, r"^[ \t]*(?:[-*+•‣▪–—]|\d{1,3}[.)]|\(?[a-zA-Z]\)|#{1,6}|>)[ \t]+(?:\[[ xX]\][ \t]+)?");

/// One sentence of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// Its words, on one line, without list marks.
    pub text: String,
    /// Its bytes in the text it comes from.
    pub span: Range<usize>,
}

/// The sentences of a text in their order. Code between fences is left out.
pub fn split_sentences(text: &str) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    for block in blocks(text) {
        // The same length in bytes, so that offsets stay true.
        let line = text[block.clone()].replace(['\n', '\r', '\t'], " ");
        for span in bounds(&line) {
            push(&mut sentences, text, block.start + span.start..block.start + span.end);
        }
    }
    sentences
}

/// Paragraphs, list entries and lines: runs of lines inside of which sentences may go on.
fn blocks(text: &str) -> Vec<Range<usize>> {
    let mut blocks: Vec<Range<usize>> = Vec::new();
    let mut goes_on = false;
    let mut fenced = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let span = start..start + line.trim_end().len();
        start += line.len();
        let content = line.trim();
        if content.starts_with("```") || content.starts_with("~~~") {
            fenced = !fenced;
            goes_on = false;
            continue;
        }
        if fenced || content.is_empty() {
            goes_on = false;
            continue;
        }
        let bullet = BULLET.find(&text[span.clone()]).map(|found| found.end());
        let starts_small = content.chars().next().is_some_and(char::is_lowercase);
        match blocks.last_mut() {
            Some(last) if goes_on && bullet.is_none() && starts_small => last.end = span.end,
            _ => blocks.push(span.start + bullet.unwrap_or(0)..span.end),
        }
        let ends = content.ends_with(['.', '!', '?', ':', ';', '。', '！', '？', '…']);
        goes_on = !ends && content.chars().count() >= WRAPPED_LINE_CHARACTERS_MIN;
    }
    blocks
}

/// Unicode's sentence bounds (UAX 29), joined where an abbreviation or an open quotation made one too many.
fn bounds(line: &str) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    let mut num_pieces = 0;
    for (start, piece) in line.split_sentence_bound_indices() {
        let end = start + piece.len();
        match joined.last_mut() {
            Some(last) if goes_on(&line[last.clone()], num_pieces) => {
                last.end = end;
                num_pieces += 1;
            }
            _ => {
                joined.push(start..end);
                num_pieces = 1;
            }
        }
    }
    joined
}

fn goes_on(piece: &str, num_pieces: usize) -> bool {
    let trimmed = piece.trim_end();
    if num_pieces < QUOTED_PIECES_MAX && trimmed.len() < SENTENCE_BYTES_MAX && is_quotation_open(trimmed) {
        return true;
    }
    let Some(stem) = trimmed.strip_suffix('.') else { return false };
    let word = stem.rsplit(|character: char| character.is_whitespace() || character == '(').next().unwrap_or_default();
    let lower = word.to_lowercase();
    let mut characters = word.chars();
    // "J. R. Hansen": a single capital is an initial, but "I" is a word.
    let is_initial =
        characters.next().is_some_and(|first| first.is_uppercase() && first != 'I') && characters.next().is_none();
    // An entry of a list that lost its bullet: "1." alone.
    let is_number_alone = word == stem.trim() && word.chars().all(|digit| digit.is_ascii_digit()) && !word.is_empty();
    ABBREVIATIONS.contains(&lower.as_str()) || is_initial || is_number_alone
}

fn is_quotation_open(text: &str) -> bool {
    let count = |wanted: char| text.chars().filter(|&character| character == wanted).count();
    count('"') % 2 == 1 || count('“') > count('”') || count('「') > count('」') || count('«') > count('»')
}

fn push(sentences: &mut Vec<Sentence>, text: &str, span: Range<usize>) {
    let raw = &text[span.clone()];
    let start = span.start + (raw.len() - raw.trim_start().len());
    let span = start..start + raw.trim().len();
    if span.is_empty() {
        return;
    }
    if span.len() <= SENTENCE_BYTES_MAX {
        sentences.push(sentence(text, span));
        return;
    }
    let mut piece = span.start..span.start;
    for (offset, word) in text[span.clone()].split_word_bound_indices() {
        let end = span.start + offset + word.len();
        if end - piece.start > SENTENCE_BYTES_MAX && !piece.is_empty() {
            sentences.push(sentence(text, piece.clone()));
            piece.start = piece.end;
        }
        piece.end = end;
        // A word without bounds, such as a long code: it is cut between characters.
        while piece.len() > SENTENCE_BYTES_MAX {
            let mut cut = piece.start + SENTENCE_BYTES_MAX;
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            sentences.push(sentence(text, piece.start..cut));
            piece.start = cut;
        }
    }
    if !piece.is_empty() {
        sentences.push(sentence(text, piece));
    }
}

fn sentence(text: &str, span: Range<usize>) -> Sentence {
    Sentence { text: text[span.clone()].split_whitespace().collect::<Vec<_>>().join(" "), span }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let sentences = split_sentences(text);
        for sentence in &sentences {
            assert_eq!(text[sentence.span.clone()].split_whitespace().collect::<Vec<_>>().join(" "), sentence.text);
        }
        sentences.into_iter().map(|sentence| sentence.text).collect()
    }

    #[test]
    fn abbreviations_initials_and_numbers_do_not_end_a_sentence() {
        assert_eq!(
            texts("I saw Dr. Hansen at 3.30 p.m. today. J. R. Ewing paid $5.50 to St. Mary's, No. 7. Then I left."),
            ["I saw Dr. Hansen at 3.30 p.m. today.", "J. R. Ewing paid $5.50 to St. Mary's, No. 7.", "Then I left."]
        );
    }

    #[test]
    fn a_quotation_stays_with_the_sentence_that_opens_it() {
        assert_eq!(
            texts("Anna said \"I like it. I want more.\" Then she left. “One. Two.” was the title."),
            ["Anna said \"I like it. I want more.\"", "Then she left.", "“One. Two.” was the title."]
        );
    }

    #[test]
    fn list_entries_and_short_lines_are_sentences_and_wrapped_lines_are_not() {
        let text = "- I like tea\n* [x] I own a boat\n2) My code is 4471\n\nmy name is anna\ni live in oslo\n\
                    This line is long enough to have been wrapped by an\neditor at some column. Next.\n```\nlet x = 1;\n```";
        assert_eq!(
            texts(text),
            [
                "I like tea",
                "I own a boat",
                "My code is 4471",
                "my name is anna",
                "i live in oslo",
                "This line is long enough to have been wrapped by an editor at some column.",
                "Next.",
            ]
        );
    }

    #[test]
    fn other_scripts_are_split_where_their_marks_are() {
        assert_eq!(texts("我住在奥斯陆。我喜欢茶！你呢？"), ["我住在奥斯陆。", "我喜欢茶！", "你呢？"]);
        assert_eq!(texts("私は東京に住んでいます。猫が好きです。").len(), 2);
        assert_eq!(texts("ฉันอาศัยอยู่ในกรุงเทพ").len(), 1);
        assert_eq!(texts("אני גר באוסלו. אני אוהב תה.").len(), 2);
        assert_eq!(texts("أين تسكن؟ أنا أسكن في أوسلو.").len(), 2);
        assert_eq!(texts("I like 🍵! 👩‍👩‍👧 is us!"), ["I like 🍵!", "👩‍👩‍👧 is us!"]);
    }

    #[test]
    fn an_enormous_line_is_cut_and_nothing_of_it_is_lost() {
        for text in ["word ".repeat(20_000), "界".repeat(30_000), "x".repeat(30_000)] {
            let sentences = split_sentences(&text);
            assert!(sentences.iter().all(|sentence| sentence.text.len() <= SENTENCE_BYTES_MAX));
            let kept: usize = sentences.iter().map(|sentence| sentence.text.replace(' ', "").len()).sum();
            assert_eq!(kept, text.replace(' ', "").len());
        }
    }
}
