//! Numbers that can be checked or have a shape of their own: payment cards, IBANs and phone numbers.

use std::ops::Range;

use regex::Regex;

const CARD_DIGITS_MIN: usize = 13;
const CARD_DIGITS_MAX: usize = 19;
const PHONE_DIGITS_MIN: usize = 9;
/// A word before it says that it is a number, so it may be a short one.
const PHONE_ANNOUNCED_DIGITS_MIN: usize = 7;
const PHONE_BARE_00_DIGITS_MIN: usize = 13;
const PHONE_DIGITS_MAX: usize = 15;

/// Candidates for phone numbers: an international number after `+` or `00`, a North American one in its usual groups,
/// or a national one after a word that announces it. One or two separators between digits, as in `(0) 30`.
pub(super) const PHONE_PATTERN: &str = concat!(
    r"(?:\+|\b00)[ (]{0,2}[1-9](?:[ ().\-/\u{a0}\u{2009}\u{202f}\u{2011}\u{2013}]{0,2}[0-9]){6,16}",
    r"|(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[.\-])[2-9][0-9]{2}[.\- ][0-9]{4}\b",
    r"|(?i:\b(?:phone|telephone|tel|telefon|mobile|mobil|cell|handy|fax|whatsapp|téléphone|teléfono)\b)",
    r"(?i:\s?(?:number|nummer|nr|no|num))?[.:\s]{0,3}(?i:is|ist)?[:\s]{0,2}",
    r"(?P<national>\(?0?[1-9](?:[ ().\-/]{0,2}[0-9]){6,13})",
);

/// Digits that stand together.
struct Group {
    range: Range<usize>,
    digits: Vec<u8>,
}

/// Payment cards: 13 to 19 digits in whole groups, each separated by one character, with a known issuer's first digits
/// and length and the check digit of Luhn (ISO/IEC 7812-1).
pub(super) fn find_cards(text: &str) -> Vec<Range<usize>> {
    let mut cards = Vec::new();
    for run in digit_runs(text) {
        let mut first = 0;
        while first < run.len() {
            match longest_card(&run[first..]) {
                Some(num_groups) => {
                    cards.push(run[first].range.start..run[first + num_groups - 1].range.end);
                    first += num_groups;
                }
                None => first += 1,
            }
        }
    }
    cards
}

/// IBANs: a country's letters and length, and the check digits of ISO 7064 (mod 97-10). Single spaces or hyphens may
/// stand between the characters.
pub(super) fn find_ibans(text: &str, start: &Regex) -> Vec<Range<usize>> {
    let mut ibans: Vec<Range<usize>> = Vec::new();
    for candidate in start.find_iter(text) {
        let is_inside = ibans.last().is_some_and(|last| candidate.start() < last.end);
        if is_inside || text[..candidate.start()].ends_with(char::is_alphanumeric) {
            continue;
        }
        let Some(len) = iban_len(&text[candidate.start()..]) else { continue };
        let mut characters = Vec::with_capacity(len);
        let mut end = candidate.start();
        let mut was_separator = false;
        for (offset, character) in text[candidate.start()..].char_indices() {
            if character.is_ascii_alphanumeric() {
                characters.push(character.to_ascii_uppercase() as u8);
                end = candidate.start() + offset + 1;
                was_separator = false;
            } else if is_separator(character) && !was_separator {
                was_separator = true;
            } else {
                break;
            }
            if characters.len() == len {
                break;
            }
        }
        let is_whole = characters.len() == len && !text[end..].starts_with(char::is_alphanumeric);
        if is_whole && iban_remainder(&characters) == 1 {
            ibans.push(candidate.start()..end);
        }
    }
    ibans
}

/// Phone numbers; see [`PHONE_PATTERN`].
pub(super) fn find_phones(text: &str, pattern: &Regex) -> Vec<Range<usize>> {
    let mut phones = Vec::new();
    for captures in pattern.captures_iter(text) {
        let whole = captures.get(0).expect("a match has its whole: this is a bug");
        let number = captures.name("national").unwrap_or(whole);
        // `1.2.3+20240506` is a version, `a+4912345678` a formula.
        let is_joined = text[..number.start()].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        if is_joined || text[number.end()..].starts_with(char::is_alphanumeric) {
            continue;
        }
        let Some(len) = phone_len(number.as_str(), captures.name("national").is_some()) else { continue };
        phones.push(number.start()..number.start() + len);
    }
    phones
}

/// How much of the candidate is the number: whole groups of digits, no more than a number has, so that a code which
/// follows is left alone. `None` when that is too little.
fn phone_len(candidate: &str, is_announced: bool) -> Option<usize> {
    let is_north_american = candidate.starts_with("+1") || candidate.starts_with("001");
    let prefix_len = if candidate.starts_with("00") { 2 } else { 0 };
    let digits_max = prefix_len + if is_north_american { 11 } else { PHONE_DIGITS_MAX };
    let bytes = candidate.as_bytes();
    let (mut num_digits, mut fitting) = (0, None);
    for (index, byte) in bytes.iter().enumerate() {
        if !byte.is_ascii_digit() {
            continue;
        }
        num_digits += 1;
        let ends_group = !bytes.get(index + 1).is_some_and(u8::is_ascii_digit);
        if num_digits <= digits_max && ends_group {
            fitting = Some((index + 1, num_digits));
        }
    }
    let (len, num_digits) = fitting?;
    let is_one_group = candidate[..len].bytes().all(|byte| byte.is_ascii_digit());
    // A bare run of digits that begins with 00 is more often a padded number; only a long one is dialled.
    let digits_min = match (is_announced, prefix_len) {
        (true, _) => PHONE_ANNOUNCED_DIGITS_MIN,
        (false, 2) if is_one_group => PHONE_BARE_00_DIGITS_MIN,
        (false, prefix_len) => prefix_len + PHONE_DIGITS_MIN,
    };
    (num_digits >= digits_min).then_some(len)
}

/// Groups of digits that single separators join. A digit of any script counts by its value.
fn digit_runs(text: &str) -> Vec<Vec<Group>> {
    let mut runs: Vec<Vec<Group>> = Vec::new();
    let mut run: Vec<Group> = Vec::new();
    // Whether the next digit continues the last group, begins the next one, or begins a new run.
    let (mut num_separators, mut is_joined) = (0, false);
    for (offset, character) in text.char_indices() {
        if let Some(digit) = digit_value(character) {
            let end = offset + character.len_utf8();
            match run.last_mut() {
                Some(group) if num_separators == 0 => {
                    group.range.end = end;
                    group.digits.push(digit);
                }
                _ if is_joined => {}
                _ => run.push(Group { range: offset..end, digits: vec![digit] }),
            }
            num_separators = 0;
            continue;
        }
        // Letters around digits make them a part of an identifier.
        let is_letter = character.is_alphanumeric();
        if is_letter && num_separators == 0 {
            run.pop();
        }
        num_separators += 1;
        if num_separators > 1 || !is_separator(character) {
            if !run.is_empty() {
                runs.push(std::mem::take(&mut run));
            }
            num_separators = 0;
        }
        is_joined = is_letter;
    }
    runs.push(run);
    runs
}

fn longest_card(groups: &[Group]) -> Option<usize> {
    let mut digits = Vec::with_capacity(CARD_DIGITS_MAX);
    let mut longest = None;
    for (index, group) in groups.iter().enumerate() {
        digits.extend_from_slice(&group.digits);
        if digits.len() > CARD_DIGITS_MAX {
            break;
        }
        let is_candidate = digits.len() >= CARD_DIGITS_MIN && is_grouped_like_a_card(&groups[..=index]);
        if is_candidate && has_issuer(&digits) && passes_luhn(&digits) {
            longest = Some(index + 1);
        }
    }
    longest
}

/// Cards are written in groups of three or more digits, of which the last may be short, or digit by digit (pair by
/// pair) all through. Lists of small numbers are neither.
fn is_grouped_like_a_card(groups: &[Group]) -> bool {
    let len = |group: &Group| group.digits.len();
    let (Some(first), Some((_, before_last))) = (groups.first(), groups.split_last()) else { return false };
    before_last.iter().all(|group| len(group) >= 3) || groups.iter().all(|group| len(group) == len(first))
}

/// Whether first digits and length are those of a card network.
fn has_issuer(digits: &[u8]) -> bool {
    let first = |count: usize| digits[..count].iter().fold(0_u32, |value, digit| value * 10 + u32::from(*digit));
    let len = digits.len();
    match (first(1), first(2), first(4)) {
        (4, _, _) => matches!(len, 13 | 16 | 19),
        (_, 51..=55, _) | (_, _, 2221..=2720) => len == 16,
        (_, 34 | 37, _) => len == 15,
        (_, 30 | 36 | 38 | 39, _) => matches!(len, 14 | 16 | 19),
        (_, _, 3528..=3589) => (16..=19).contains(&len),
        (_, _, 2200..=2204) => (16..=19).contains(&len),
        (_, 50 | 56..=69, _) => (13..=19).contains(&len),
        _ => false,
    }
}

fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, &digit)| {
            let value = u32::from(digit);
            if index % 2 == 0 { value } else { value * 2 / 10 + value * 2 % 10 }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn iban_remainder(characters: &[u8]) -> u32 {
    let (front, rest) = characters.split_at(4);
    rest.iter().chain(front).fold(0, |remainder, &character| match character {
        b'0'..=b'9' => (remainder * 10 + u32::from(character - b'0')) % 97,
        _ => (remainder * 100 + u32::from(character - b'A') + 10) % 97,
    })
}

/// Length of an IBAN of the country that the text begins with (ISO 13616 registry).
fn iban_len(text: &str) -> Option<usize> {
    let country = text.get(..2)?.to_ascii_uppercase();
    let len = match country.as_str() {
        "NO" => 15,
        "BE" => 16,
        "DK" | "FI" | "FK" | "FO" | "GL" | "NL" | "SD" => 18,
        "MK" | "SI" => 19,
        "AT" | "BA" | "EE" | "KZ" | "LT" | "LU" | "MN" | "XK" => 20,
        "CH" | "HR" | "LI" | "LV" => 21,
        "BG" | "BH" | "CR" | "DE" | "GB" | "GE" | "IE" | "ME" | "RS" | "VA" => 22,
        "AE" | "GI" | "IL" | "IQ" | "OM" | "SO" | "TL" => 23,
        "AD" | "CZ" | "ES" | "MD" | "PK" | "RO" | "SA" | "SE" | "SK" | "TN" | "VG" => 24,
        "LY" | "PT" | "ST" => 25,
        "IS" | "TR" => 26,
        "BI" | "DJ" | "FR" | "GR" | "IT" | "MC" | "MR" | "SM" => 27,
        "AL" | "AZ" | "BY" | "CY" | "DO" | "GT" | "HN" | "HU" | "LB" | "NI" | "PL" | "SV" => 28,
        "BR" | "EG" | "PS" | "QA" | "UA" => 29,
        "JO" | "KW" | "MU" | "YE" => 30,
        "MT" | "SC" => 31,
        "LC" => 32,
        "RU" => 33,
        _ => return None,
    };
    Some(len)
}

/// A space, hyphen, dot, or one of their relatives that look or act like them.
fn is_separator(character: char) -> bool {
    matches!(
        character,
        ' ' | '-' | '.' | '\u{a0}' | '\u{2009}' | '\u{200b}' | '\u{202f}' | '\u{2060}' | '\u{2010}'..='\u{2015}'
    )
}

/// The value of a decimal digit of a widely used script: their ten digits follow each other in Unicode.
fn digit_value(character: char) -> Option<u8> {
    const ZEROS: [char; 12] = [
        '0', '\u{660}', '\u{6f0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{be6}', '\u{c66}', '\u{e50}',
        '\u{ed0}', '\u{ff10}',
    ];
    let code = u32::from(character);
    let distance = ZEROS.into_iter().filter_map(|zero| code.checked_sub(u32::from(zero))).find(|value| *value < 10)?;
    u8::try_from(distance).ok()
}
