//! Folding: one spelling for what a reader takes as the same letters (compatibility forms, case, accents, digits).

use unicode_normalization::UnicodeNormalization;

/// The text in the form that terms are cut from: compatibility forms resolved (NFKC), lower case, accents and optional
/// vowel marks gone, decimal digits of every script as ASCII, one hyphen and one apostrophe.
///
/// Marks that tell letters apart are kept: the voicing marks of kana and the vowel signs of Indic and South-East Asian
/// scripts.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(text.len());
    for letter in text.nfkd().filter(|&letter| !is_optional_mark(letter)) {
        for lower in letter.to_lowercase() {
            push_folded(&mut folded, lower);
        }
    }
    // Decomposition took kana and Hangul syllables apart; what is left of their marks belongs to them.
    folded.nfc().collect()
}

/// Marks that writers leave out as they please, and characters that only steer the display.
fn is_optional_mark(letter: char) -> bool {
    matches!(letter,
        '\u{0300}'..='\u{036f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}'
        // Hebrew points and Arabic vowel marks, and the stretching tatweel.
        | '\u{0591}'..='\u{05bd}' | '\u{05bf}' | '\u{05c1}'..='\u{05c2}' | '\u{05c4}'..='\u{05c5}' | '\u{05c7}'
        | '\u{0610}'..='\u{061a}' | '\u{0640}' | '\u{064b}'..='\u{065f}' | '\u{0670}' | '\u{06d6}'..='\u{06dc}'
        // Soft hyphen, joiners, directional marks, byte-order mark.
        | '\u{00ad}' | '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Letters that no decomposition relates to the ones they are commonly written as.
fn push_folded(folded: &mut String, letter: char) {
    match letter {
        'ß' => folded.push_str("ss"),
        'æ' => folded.push_str("ae"),
        'œ' => folded.push_str("oe"),
        'þ' => folded.push_str("th"),
        'ø' => folded.push('o'),
        'ł' => folded.push('l'),
        'đ' | 'ð' => folded.push('d'),
        'ħ' => folded.push('h'),
        'ı' => folded.push('i'),
        'ς' => folded.push('σ'),
        '\u{2019}' | '\u{2018}' | '\u{02bc}' => folded.push('\''),
        '\u{2010}'..='\u{2013}' | '\u{2212}' => folded.push('-'),
        _ => folded.push(ascii_digit(letter).unwrap_or(letter)),
    }
}

/// Zeros of the decimal digits that NFKC leaves alone; the nine others follow each.
const ZEROS: [char; 18] = [
    '\u{0660}', '\u{06f0}', '\u{07c0}', '\u{0966}', '\u{09e6}', '\u{0a66}', '\u{0ae6}', '\u{0b66}', '\u{0be6}',
    '\u{0c66}', '\u{0ce6}', '\u{0d66}', '\u{0e50}', '\u{0ed0}', '\u{0f20}', '\u{1040}', '\u{17e0}', '\u{1810}',
];

fn ascii_digit(letter: char) -> Option<char> {
    if letter < ZEROS[0] {
        return None;
    }
    let zero = ZEROS.into_iter().find(|&zero| (zero as u32..zero as u32 + 10).contains(&(letter as u32)))?;
    char::from_digit(letter as u32 - zero as u32, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_same_letters_fold_together() {
        for (text, folded) in [
            ("Crème Brûlée", "creme brulee"),
            ("Straße STRASSE", "strasse strasse"),
            ("ＦＵＬＬ width ①", "full width 1"),
            ("ΟΔΟΣ οδος", "οδοσ οδοσ"),
            ("İstanbul ısı", "istanbul isi"),
            ("ﬁne co\u{ad}operate", "fine cooperate"),
            ("Łódź Ørsted", "lodz orsted"),
            ("٤٤١٧ ४४१७", "4417 4417"),
            ("مُحَمَّد", "محمد"),
            ("A\u{2011}4417", "a-4417"),
            ("don\u{2019}t", "don't"),
        ] {
            assert_eq!(fold(text), folded, "{text:?}");
        }
    }

    #[test]
    fn marks_that_tell_letters_apart_are_kept() {
        for text in ["がか", "パハ", "한국어", "हिन्दी", "ภาษาไทย"] {
            assert_eq!(fold(text), text.nfc().collect::<String>());
        }
    }
}
