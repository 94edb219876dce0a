//! What the analyzer makes of words, codes, scripts and hostile text.

use super::*;

fn document(text: &str) -> Vec<String> {
    Analyzed::of_document(text).terms().map(|(term, _)| term.to_owned()).collect()
}

/// Whether every term of the query is a term of the document.
fn finds(query: &str, text: &str) -> bool {
    let terms = document(text);
    let query = Analyzed::of_query(query);
    !query.is_empty() && query.terms().all(|(term, _)| terms.iter().any(|have| have == term))
}

#[test]
fn inflections_accents_and_possessives_find_each_other() {
    for (query, text) in [
        ("run", "She is running"),
        ("Anna", "That is Anna's bicycle."),
        ("Anna's", "anna"),
        ("creme brulee", "He likes Crème Brûlée"),
        ("DONT", "don\u{2019}t"),
        ("obrien", "Mr. O'Brien"),
        ("usa", "in the U.S.A. today"),
        ("strasse", "Lange Straße"),
        ("ПРИВЕТ", "привет"),
    ] {
        assert!(finds(query, text), "{query:?} in {text:?}");
    }
    assert!(!finds("ran", "running"));
}

#[test]
fn codes_are_found_whole_and_by_their_parts() {
    for (query, text) in [
        ("A-4417", "The code is A-4417."),
        ("a-4417", "(A\u{2011}4417)"),
        ("4417", "The code is A-4417."),
        ("4417", "The code is A4417."),
        ("2026-03-01", "due 2026-03-01T12:00"),
        ("2026-03", "due 2026-03-01"),
        ("bob@example.com", "Write to Bob@Example.com!"),
        ("example", "Write to bob@example.com"),
        ("1000", "It costs 1,000 euros"),
        ("1,000", "It costs 1,000 euros"),
        ("3.14", "pi is 3.14"),
        ("snake_case", "use snake_case here"),
        ("case", "use snake_case here"),
        ("٤٤١٧", "code 4417"),
    ] {
        assert!(finds(query, text), "{query:?} in {text:?}");
    }
    assert!(!finds("4471", "The code is A-4417."));
    assert!(!finds("441", "The code is A-4417."));
    assert!(!finds("A-4417", "B-4417 and A"));
}

#[test]
fn scripts_without_spaces_are_found_by_pairs_and_single_ideographs() {
    for (query, text) in [
        ("東京", "私は東京都に住んでいます"),
        ("猫", "黒猫が好き"),
        ("コーヒー", "彼はコーヒーを飲む"),
        ("ｺｰﾋｰ", "彼はコーヒーを飲む"),
        ("北京大学", "她在北京大学学习"),
        ("집", "집에서 일한다"),
        ("한국어", "한국어를 배운다"),
        ("ภาษา", "ฉันพูดภาษาไทย"),
        ("ភាសា", "ភាសាខ្មែរ"),
    ] {
        assert!(finds(query, text), "{query:?} in {text:?}");
    }
    assert!(!finds("京東", "東京"), "order counts");
    assert_eq!(Analyzed::of_query("東京都").num_terms(), 2);
    assert_eq!(Analyzed::of_document("東京都").len(), 2, "single ideographs beside pairs are no words");
}

#[test]
fn stop_words_stay_and_frequencies_are_counted() {
    let analyzed = Analyzed::of_document("The who and the what");
    assert_eq!(analyzed.terms().collect::<Vec<_>>(), [("and", 1), ("the", 2), ("what", 1), ("who", 1)]);
    assert_eq!(analyzed.len(), 5);
    let many = Analyzed::of_document(&"x ".repeat(1000));
    assert_eq!(many.terms().collect::<Vec<_>>(), [("x", TERM_FREQUENCY_MAX)]);
}

#[test]
fn no_text_is_syntax_and_none_breaks_the_analyzer() {
    assert_eq!(
        document("\"a\" AND (b OR -c*) NEAR/2 ^d:"),
        ["a", "and", "b", "c", "d", "near", "near/2", "or", "2"]
            .map(str::to_owned)
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    for text in
        ["", " \t\n", "\0\u{7}\u{1b}[31m", "'", "''''", "'s", "._,:;", "\u{301}\u{301}", "🦀👩‍👩‍👧", "-", "@", "\u{feff}"]
    {
        for (term, frequency) in Analyzed::of_document(text).terms() {
            assert!(!term.is_empty() && frequency > 0, "{text:?}");
        }
    }
    let long = "é".repeat(10_000) + &"漢".repeat(3) + &"\u{10ffff}".repeat(100);
    for (term, _) in Analyzed::of_document(&long).terms() {
        assert!(term.len() <= TERM_BYTES_MAX);
    }
}

#[test]
fn jaccard_is_the_share_of_common_terms() {
    let analyzed = Analyzed::of_document;
    assert_eq!(analyzed("a b c").jaccard(&analyzed("c b a a")), 1.0);
    assert_eq!(analyzed("a b c").jaccard(&analyzed("b c d")), 0.5);
    assert_eq!(analyzed("").jaccard(&analyzed("")), 0.0);
    assert_eq!(analyzed("a").jaccard(&analyzed("")), 0.0);
}
