//! Words as duplicates are compared by: closer to the letter than terms are, since a changed letter can change a fact.

use unicode_normalization::UnicodeNormalization;

use crate::search::analyzer::{Script, runs};

/// One word of a text: in lower case if it is an ordinary one, to the letter if it is a name, a code or a sign.
#[derive(Debug, Clone)]
pub(super) struct Word {
    text: String,
    /// Neither a name nor where a name could stand: whether it is plain is then for its letters to say.
    may_be_plain: bool,
}

/// Words are equal by their text: at the beginning of a sentence the same word may be a name.
impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Word {
    /// Whether a text may have this word more than its duplicate has. Found out when it is asked: of most texts that are
    /// compared, no word is.
    pub fn is_plain(&self) -> bool {
        self.may_be_plain && is_plain(&self.text)
    }
}

/// Words that say nothing before another word.
const ARTICLES: [&str; 3] = ["a", "an", "the"];
/// Words that say nothing by themselves.
const EMPTY_WORDS: [&str; 4] = ["also", "please", "really", "very"];

/// Contractions with what they stand for. What may stand for two things ("he's": is, has) is left as it is.
const CONTRACTIONS: [(&str, &str); 37] = [
    ("ain't", "is not"),
    ("aren't", "are not"),
    ("can't", "can not"),
    ("cannot", "can not"),
    ("couldn't", "could not"),
    ("didn't", "did not"),
    ("doesn't", "does not"),
    ("don't", "do not"),
    ("hadn't", "had not"),
    ("hasn't", "has not"),
    ("haven't", "have not"),
    ("isn't", "is not"),
    ("mustn't", "must not"),
    ("needn't", "need not"),
    ("shouldn't", "should not"),
    ("wasn't", "was not"),
    ("weren't", "were not"),
    ("won't", "will not"),
    ("wouldn't", "would not"),
    ("i'm", "i am"),
    ("i've", "i have"),
    ("i'll", "i will"),
    ("you're", "you are"),
    ("you've", "you have"),
    ("you'll", "you will"),
    ("he'll", "he will"),
    ("she'll", "she will"),
    ("it'll", "it will"),
    ("we're", "we are"),
    ("we've", "we have"),
    ("we'll", "we will"),
    ("they're", "they are"),
    ("they've", "they have"),
    ("they'll", "they will"),
    ("that'll", "that will"),
    ("there'll", "there will"),
    ("who'll", "who will"),
];

/// Words that change what is said around them: negations (of the larger European languages), limits, doubts, modes,
/// times, numbers, opposites, attributions.
const CHARGED_WORDS: &str = " \
    not no never none nobody nothing nowhere neither nor without lacks lack lacking fails failed fail refuses refused \
    nicht kein keine keinen keinem keiner nie niemals ohne weder ne pas jamais sans aucun aucune rien nunca sin nada \
    ningún ninguna non mai senza nessuno não sem nenhum niet geen nooit zonder inte ingen aldrig utan ikke aldri nie \
    bez не нет никогда без ні \
    only just merely solely except but unless if whether when while although though because instead rather than or and \
    either both all every each any some most many few several half almost nearly barely hardly scarcely about around \
    approximately roughly exactly precisely least less more fewer over under above below up down off on out in \
    may might could should would will shall must can cannot wants wanted hopes hoped plans planned intends tries tried \
    perhaps maybe possibly probably likely unlikely allegedly reportedly supposedly apparently seems seemed claims \
    claimed says said thinks thought believes believed denies denied wishes wished pretends \
    always usually often sometimes occasionally rarely seldom again still yet already anymore longer once twice ever \
    before after until till since during ago now then today yesterday tomorrow tonight morning afternoon evening noon \
    night midnight day daily week weekly weekend month monthly year yearly annually next last first second third final \
    former formerly previously earlier later early late recently currently temporarily permanently past future old new \
    ex used was were been had did be being to from of for with against by at into \
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen \
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion dozen \
    pair double triple single quarter \
    january february march april may june july august september october november december jan feb mar apr jun jul aug \
    sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun am pm \
    left right north south east west true false fake real wrong dislikes dislike hates hate avoids avoid stops stopped \
    quit cancelled canceled deleted removed disabled enabled closed open opened dead alive too so ";

/// Beginnings that turn a word into its opposite.
const OPPOSITE_PREFIXES: [&str; 8] = ["un", "non", "dis", "anti", "in", "im", "ir", "mis"];

/// The text in the form whose hash is compared: compatibility forms, spacing, the first letter's case and one full stop
/// at the end do not count. Case within the text does: it may be that of a code.
pub(super) fn normalise(text: &str) -> String {
    let composed: String = text.nfkc().collect();
    let mut normal = composed.split_whitespace().collect::<Vec<_>>().join(" ");
    // An ellipsis is no full stop.
    if normal.ends_with('.') && !normal.ends_with("..") {
        normal.pop();
    }
    let first_word = normal.split(' ').next().unwrap_or("");
    // "McKay" and "A-4417" are to the letter, "The" is not.
    let is_ordinary = first_word.chars().skip(1).all(|letter| letter.is_lowercase());
    match normal.chars().next() {
        Some(first) if is_ordinary => first.to_lowercase().chain(normal.chars().skip(1)).collect(),
        _ => normal,
    }
}

/// The words of a text without the empty ones.
pub(super) fn words_of(text: &str) -> Vec<Word> {
    let normal =
        normalise(text).replace(['\u{2019}', '\u{2018}'], "'").replace(['\u{2010}', '\u{2011}', '\u{2212}'], "-");
    let mut words = Vec::new();
    let mut starts_sentence = true;
    let mut pieces = normal.split(' ').peekable();
    while let Some(piece) = pieces.next() {
        let stripped = strip(piece);
        // "hepatitis a." has a letter where "a dog" has an article.
        let is_article = ARTICLES.iter().any(|article| is_spelled(stripped, article, starts_sentence))
            && piece.ends_with(stripped)
            && pieces.peek().is_some();
        if !stripped.is_empty() && !is_article {
            // A capital at the beginning of a sentence says nothing, within one or within a word it makes a name.
            let num_ordinary = usize::from(starts_sentence);
            let is_name = stripped.chars().skip(num_ordinary).any(char::is_uppercase);
            push(
                &mut words,
                stripped,
                match (is_name, starts_sentence) {
                    (true, _) => Capitals::OfName,
                    (false, true) => Capitals::OfSentence,
                    (false, false) => Capitals::None,
                },
            );
        }
        starts_sentence = piece.trim_end_matches(['"', '\'', ')']).ends_with(['.', '!', ':', '?']);
    }
    words
}

/// Whether this is that word, with a capital only where a sentence begins: "The Who" is a name.
fn is_spelled(text: &str, lower: &str, starts_sentence: bool) -> bool {
    text == lower || starts_sentence && text.eq_ignore_ascii_case(lower)
}

/// A piece without the punctuation around it that does not change what it says. What looks like punctuation often does:
/// `.5`, `6"`, `!=`, `why?`, `-5`, `5%`.
fn strip(piece: &str) -> &str {
    if !piece.contains(char::is_alphanumeric) {
        let is_empty = piece.chars().all(|letter| is_opening(letter) || is_closing(letter));
        return if is_empty { "" } else { piece };
    }
    let inner = piece.trim_start_matches(is_opening);
    let is_quoted = piece.starts_with(is_quote);
    let mut stripped = inner;
    while let Some(rest) = stripped.strip_suffix(is_closing) {
        // Feet and inches.
        if !is_quoted && stripped.ends_with(is_quote) && rest.ends_with(|letter: char| letter.is_numeric()) {
            break;
        }
        stripped = rest;
    }
    stripped
}

/// What the capitals of a word mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Capitals {
    None,
    OfSentence,
    OfName,
}

fn push(words: &mut Vec<Word>, piece: &str, capitals: Capitals) {
    if capitals == Capitals::OfName {
        return words.push(Word { text: piece.to_owned(), may_be_plain: false });
    }
    let lower = piece.to_lowercase();
    if EMPTY_WORDS.contains(&lower.as_str()) {
        return;
    }
    if let Some((_, long)) = CONTRACTIONS.iter().find(|(short, _)| *short == lower) {
        words.extend(long.split(' ').map(|text| Word { text: text.to_owned(), may_be_plain: false }));
        return;
    }
    // At the beginning of a sentence a name looks like any word, so it may not be missing from the other text either.
    words.push(Word { text: lower, may_be_plain: capitals == Capitals::None });
}

/// Whether a word in lower case is an ordinary one: of three letters and more, in a script with words, nothing else in
/// it, and of no known weight.
fn is_plain(lower: &str) -> bool {
    let is_of_letters = lower.chars().all(|letter| letter.is_alphabetic());
    let has_words = runs(lower).all(|(script, _)| script == Script::Spaced);
    is_of_letters
        && has_words
        && lower.chars().count() > 2
        && !CHARGED_WORDS.split(' ').any(|charged| charged == lower)
        && !OPPOSITE_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

fn is_quote(letter: char) -> bool {
    matches!(letter, '"' | '\'' | '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{ab}' | '\u{bb}')
}

fn is_opening(letter: char) -> bool {
    is_quote(letter) || matches!(letter, '(' | '[' | '`' | '\u{a1}' | '\u{bf}')
}

fn is_closing(letter: char) -> bool {
    is_quote(letter) || matches!(letter, '.' | ',' | ';' | ':' | '!' | ')' | ']' | '`' | '\u{2026}')
}
