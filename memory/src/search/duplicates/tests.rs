//! Pairs that must not be merged, pairs that may, and that the order of asking does not matter.

use super::*;
use crate::search::random::Random;

fn compare(left: &str, right: &str) -> Verdict {
    let (left, right) = (DuplicateProfile::new(left), DuplicateProfile::new(right));
    let verdict = left.compare(&right);
    let mirrored = match right.compare(&left) {
        Verdict::Near { jaccard, fuller: Fuller::This } => Verdict::Near { jaccard, fuller: Fuller::Other },
        Verdict::Near { jaccard, fuller: Fuller::Other } => Verdict::Near { jaccard, fuller: Fuller::This },
        other => other,
    };
    assert_eq!(verdict, mirrored);
    verdict
}

#[test]
fn texts_that_say_different_things_are_distinct() {
    for (left, right) in [
        // Numbers, codes, signs, units.
        ("The code is 4417.", "The code is 4471."),
        ("The code is A-4417.", "The code is a-4417."),
        ("It was -5 degrees", "It was 5 degrees"),
        ("The rent is $900", "The rent is €900"),
        ("Growth was 5%", "Growth was 5"),
        ("She has two cats", "She has three cats"),
        ("Call 555-0100", "Call 555-0101"),
        ("Version 1.2 is out", "Version 12 is out"),
        ("The password is Hunter2", "The password is hunter2"),
        ("The password is swordfish", "The password is Swordfish"),
        ("Take .5 mg", "Take 5 mg"),
        ("It is 6' long", "It is 6\" long"),
        ("Check that x != y", "Check that x = y"),
        ("Set it to !true", "Set it to true"),
        ("The rating was 5*", "The rating was 5"),
        ("The patient has hepatitis a.", "The patient has hepatitis."),
        // Names.
        ("Anna lives in Berlin", "Anne lives in Berlin"),
        ("Anna lives in Berlin", "Anna lives in Bern"),
        ("Herr Müller called", "Herr Muller called"),
        ("He hears The Who", "He hears Who"),
        ("Ask Smith about it", "Ask Smith Jr. about it"),
        ("Alice owes Bob money", "Bob owes Alice money"),
        ("Send the US a copy", "Send us a copy"),
        // Dates and times.
        ("The meeting is on Monday at 10", "The meeting is on Tuesday at 10"),
        ("Born 2001-03-04", "Born 2001-04-03"),
        ("Due in march", "Due in may"),
        ("The shop opens at 9:30", "The shop opens at 9:03"),
        // Negation, limits, modes, tense.
        ("Anna likes coffee", "Anna does not like coffee"),
        ("You can park here", "You can't park here"),
        ("He never smokes", "He smokes"),
        ("Sie mag Kaffee", "Sie mag nicht Kaffee"),
        ("彼は肉を食べる", "彼は肉を食べない"),
        ("Anna works at Acme", "Anna worked at Acme"),
        ("Anna works at Acme", "Anna used to work at Acme"),
        ("He will come", "He would come"),
        ("Guests pay the fee", "Only guests pay the fee"),
        ("The door is open", "The door is closed"),
        ("Take it before meals", "Take it after meals"),
        ("It is safe", "It is unsafe"),
        ("Is the door open?", "Is the door open."),
        ("He likes tea", "He likes coffee"),
        ("It weighs a kilogram", "It weighs a gram"),
        ("", "The"),
        ("the", "a"),
        ("...", ".."),
    ] {
        assert_eq!(compare(left, right), Verdict::Distinct, "{left:?} and {right:?}");
    }
}

/// One more word in a text that is long enough for the share of common terms to be high.
#[test]
fn a_word_of_weight_makes_long_texts_distinct_too() {
    let words = "The quarterly report about harbour traffic lists arriving ships with cargo name port origin pilot \
                 berth crane shift crew customs seals damage weather tides delays costs comments signatures";
    let words: Vec<&str> = words.split_whitespace().collect();
    let text = words.join(" ");
    for added in
        ["not", "never", "only", "former", "17", "Bremen", "yesterday", "no", "without", "unlikely", "x", "?", "%"]
    {
        for at in 0..=words.len() {
            let mut longer = words.clone();
            longer.insert(at, added);
            assert_eq!(compare(&text, &longer.join(" ")), Verdict::Distinct, "{added:?} at {at}");
        }
    }
    let mut fuller = words.clone();
    fuller.insert(4, "yellow");
    assert!(matches!(compare(&text, &fuller.join(" ")), Verdict::Near { fuller: Fuller::Other, .. }));
    fuller[9] = "departing";
    assert_eq!(compare(&text, &fuller.join(" ")), Verdict::Distinct, "a word was exchanged");
}

#[test]
fn the_same_text_is_exact_whatever_its_spacing() {
    for (left, right) in [
        ("The code is 4417.", "  the code\tis\n4417 "),
        ("Ｆｕｌｌ width", "Full width"),
        ("Cafe\u{301}", "Café"),
        ("", " . "),
        ("東京に住む", "東京に住む"),
    ] {
        assert_eq!(compare(left, right), Verdict::Exact, "{left:?} and {right:?}");
    }
    for (left, right) in [("a b", "ab"), ("Cafe", "Café"), ("Wait..", "Wait"), ("A1", "a1"), ("Why?", "Why")] {
        assert_ne!(compare(left, right), Verdict::Exact, "{left:?} and {right:?}");
    }
}

#[test]
fn wording_that_says_nothing_is_near() {
    for (left, right) in [
        ("The user likes strong coffee.", "User likes the strong coffee!"),
        ("Anna doesn't eat meat", "Anna does not eat meat."),
        ("I’m allergic to nuts", "I am allergic to nuts"),
        ("It is (really) cold, please wait", "It is cold; wait"),
        ("The pin is \"4417\"", "The pin is 4417"),
        ("The \"blue\" key opens room 12", "The blue key opens room 12"),
    ] {
        let verdict = compare(left, right);
        assert!(
            matches!(verdict, Verdict::Near { fuller: Fuller::Neither, .. }),
            "{left:?} and {right:?}: {verdict:?}"
        );
    }
}

#[test]
fn any_exchanged_or_moved_number_is_seen_in_random_texts() {
    let mut random = Random(5);
    for _ in 0..200 {
        let mut words: Vec<String> = (0..40).map(|_| format!("word{}", ["a", "b", "c"][random.below(3)])).collect();
        let at = random.below(40);
        words[at] = random.below(10_000).to_string();
        let text = words.join(" ");
        let number = words[at].clone();
        words[at] = format!("{number}{}", random.below(10));
        assert_eq!(compare(&text, &words.join(" ")), Verdict::Distinct, "{text}");
        words.remove(at);
        assert_eq!(compare(&text, &words.join(" ")), Verdict::Distinct, "{text} without {number}");
    }
}
