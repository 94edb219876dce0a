//! Statements: the wordings that the bundled model was trained on, and the ones that people use.

use super::*;

fn parsed(text: &str) -> Option<Statement> {
    parse_statement(text, &Reference::utc("2026-03-01T10:00:00Z".parse().expect("a moment")))
}

#[test]
fn one_relation_has_many_wordings() {
    for (text, subject, relation, value) in [
        ("Anna's favourite colour is teal.", "anna", "favourite colour", "teal"),
        ("My favorite color is teal", "user", "favourite colour", "teal"),
        ("Teal is Anna's favourite colour.", "anna", "favourite colour", "teal"),
        ("The favourite colour of Anna is teal.", "anna", "favourite colour", "teal"),
        ("Anna's favourite colour: teal", "anna", "favourite colour", "teal"),
        ("Anna has the favourite colour teal.", "anna", "favourite colour", "teal"),
        ("Anna likes the colour teal best.", "anna", "favourite colour", "teal"),
        ("Anna prefers teal over any other colour.", "anna", "favourite colour", "teal"),
        ("Now Anna's favourite colour is teal.", "anna", "favourite colour", "teal"),
        ("Correction: Anna's favourite colour is teal.", "anna", "favourite colour", "teal"),
        ("Anna's favourite colour changed to teal.", "anna", "favourite colour", "teal"),
        ("Anna's new favourite colour is teal.", "anna", "favourite colour", "teal"),
        ("From now on Anna's favourite colour is teal.", "anna", "favourite colour", "teal"),
        ("I live in Oslo.", "user", "home city", "oslo"),
        ("Anna now works as a nurse.", "anna", "job", "nurse"),
        ("Anna's profession is nurse.", "anna", "job", "nurse"),
        ("Anna's sister's name is Ida.", "anna", "sister", "ida"),
        ("Anna has a sister called Ida.", "anna", "sister", "ida"),
        ("Anna's sister's job is nurse.", "anna's sister", "job", "nurse"),
        ("James' room is 12.", "james", "room", "12"),
        ("The Kaf safe opens with the code 44-71.", "kaf safe", "door code", "4471"),
        ("The price for the Kaf tent is 12.50.", "kaf tent", "price", "12.50"),
        ("Vera owns the Kaf tent.", "kaf tent", "owner", "vera"),
        ("Anna is 34 years old.", "anna", "age", "34"),
        ("Anna has three children.", "anna", "number of children", "3"),
        ("The door is red.", "door", "colour", "red"),
        ("Bob is the manager of Anna.", "anna", "manager", "bob"),
    ] {
        let statement = parsed(text).unwrap_or_else(|| panic!("{text:?} is not understood"));
        let found = (statement.subject.as_str(), statement.relation.as_str(), statement.value.as_str());
        assert_eq!(found, (subject, relation, value), "{text:?}");
        assert_eq!((statement.polarity, statement.tense), (Polarity::Affirmed, Tense::Present), "{text:?}");
    }
}

#[test]
fn denials_and_past_are_told_apart() {
    for (text, relation, value, polarity, tense) in [
        ("Anna does not like tea.", "likes", "tea", Polarity::Denied, Tense::Present),
        ("Anna hates tea.", "likes", "tea", Polarity::Denied, Tense::Present),
        ("Anna doesn't hate tea.", "likes", "tea", Polarity::Affirmed, Tense::Present),
        ("Anna no longer lives in Oslo.", "home city", "oslo", Polarity::Denied, Tense::Present),
        ("Anna used to live in Oslo.", "home city", "oslo", Polarity::Denied, Tense::Present),
        ("Anna lived in Oslo.", "home city", "oslo", Polarity::Affirmed, Tense::Past),
        ("Anna stopped playing tennis.", "plays", "tennis", Polarity::Denied, Tense::Present),
        ("Anna's boss isn't Bob.", "manager", "bob", Polarity::Denied, Tense::Present),
        ("Anna's boss was Bob.", "manager", "bob", Polarity::Affirmed, Tense::Past),
        ("Anna's former boss is Bob.", "manager", "bob", Polarity::Affirmed, Tense::Past),
        ("Anna's birthplace was Oslo.", "birthplace", "oslo", Polarity::Affirmed, Tense::Present),
        ("Anna has no pets.", "pet", "*", Polarity::Denied, Tense::Present),
    ] {
        let statement = parsed(text).unwrap_or_else(|| panic!("{text:?} is not understood"));
        assert_eq!(
            (statement.relation.as_str(), statement.value.as_str(), statement.polarity, statement.tense),
            (relation, value, polarity, tense),
            "{text:?}"
        );
    }
}

#[test]
fn times_are_taken_out_and_dates_that_are_values_stay() {
    let lived = parsed("In 2019 Anna lived in Oslo.").expect("a statement");
    assert_eq!((lived.subject.as_str(), lived.value.as_str()), ("anna", "oslo"));
    assert_eq!(lived.time.map(|time| time.start.to_string()).as_deref(), Some("2019-01-01T00:00:00.000Z"));
    let works = parsed("Anna works at Kaf since March 2024.").expect("a statement");
    assert_eq!((works.value.as_str(), works.time.is_some()), ("kaf", true));
    let birthday = parsed("Anna's birthday is on July 12th.").expect("a statement");
    assert_eq!((birthday.value.as_str(), birthday.time), ("day 07-12", None));
}

#[test]
fn what_is_no_simple_statement_is_none_and_nothing_panics() {
    for text in ["", "Hello", "is", "'s is", "the of is", "…", "界", "Anna", "\u{2019}s", "has the ", "no longer"] {
        assert_eq!(parsed(text), None, "{text:?}");
    }
    for text in ["'s 's 's is is", "s's s is s's", "is is is", "the of of is is"] {
        let _ = parsed(text);
    }
    assert_eq!(parsed(&"Anna's code is 1 ".repeat(1000)), None);
}
