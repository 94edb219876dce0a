//! Mode `fast` end to end: what is kept of turns, in which words, of which kind, with which names and times.

use super::*;
use crate::ingest::{Reference, Speakers, Turn, new_items};
use crate::item::{ItemKind, Scope, Source};

fn input(turns: &[(Role, &str)]) -> ExtractionInput {
    ExtractionInput {
        turns: turns.iter().map(|(role, text)| Turn { role: *role, text: (*text).to_owned() }).collect(),
        speakers: Speakers::UserOnly,
        reference: Reference::utc("2026-03-01T10:00:00Z".parse().expect("a moment")),
        known_entities: Vec::new(),
    }
}

fn told(text: &str) -> Vec<Candidate> {
    FastExtractor.extract(&input(&[(Role::User, text)])).expect("candidates")
}

fn texts(text: &str) -> Vec<String> {
    told(text).into_iter().map(|candidate| candidate.text).collect()
}

#[test]
fn statements_are_kept_in_words_that_stay_true() {
    for (said, kept) in [
        (
            "Hi! My name is Anna, I live in Oslo and my door code is 4471. What can you do?",
            &["The user's name is Anna.", "The user lives in Oslo.", "The user's door code is 4471."][..],
        ),
        ("Please remember: Zorvan's favourite colour is teal.", &["Zorvan's favourite colour is teal."]),
        ("My wife and I live in Oslo. Thanks!", &["The user's wife and the user live in Oslo."]),
        (
            "My door code was 4471. It is now 5512.",
            &["The user's door code was 4471.", "The user's door code is now 5512."],
        ),
        (
            "My sister is called Ida. She lives in Bergen.",
            &["The user's sister is called Ida.", "Ida lives in Bergen."],
        ),
        (
            "- I like tea\n- the Vulmpru safe opens with the code 12-34",
            &["The user likes tea.", "The Vulmpru safe opens with the code 12-34."],
        ),
        ("I like tea. I like tea!", &["The user likes tea."]),
        (
            "If I forget my key, my neighbour has one.",
            &["If the user forgets the user's key, the user's neighbour has one."],
        ),
        ("What is my code?", &[]),
        ("Tell me a joke, please.", &[]),
        ("我住在奥斯陆。你好吗？", &["我住在奥斯陆。"]),
        ("猫が好きです。", &["猫が好きです。"]),
        (
            "I have a dentist appointment tomorrow at 3pm.",
            &["The user has a dentist appointment on 2 March 2026 at 3pm."],
        ),
        ("We know that the price for the Kaf tent is 12.50.", &["The price for the Kaf tent is 12.50."]),
        ("Call me Sam.", &["The user wants to be called Sam."]),
    ] {
        assert_eq!(texts(said), kept, "{said:?}");
    }
}

#[test]
fn the_statement_wordings_of_the_bundled_model_survive() {
    for (said, kept) in [
        ("I like the colour teal best.", "The user likes the colour teal best."),
        ("I play tennis.", "The user plays tennis."),
        ("I report to Vera.", "The user reports to Vera."),
        ("I have Vera as a manager.", "The user has Vera as a manager."),
        ("I must avoid nuts because of an allergy.", "The user must avoid nuts because of an allergy."),
        ("My meeting is on Monday.", "The user's meeting is on Monday."),
        ("My birthday is on 12 July.", "The user's birthday is on 12 July."),
        ("My code: 4471", "The user's code: 4471."),
        ("From now on my code is 12.", "From now on the user's code is 12."),
        ("Correction: Omar's spouse is Yubi.", "Omar's spouse is Yubi."),
        ("The bank of Omar is kagyost.", "The bank of Omar is kagyost."),
        ("Call me on 555-1234.", "The user can be called on 555-1234."),
    ] {
        assert_eq!(texts(said), [kept]);
    }
}

#[test]
fn kinds_names_tags_and_times_follow_the_words() {
    let candidate = |text: &str| told(text).into_iter().next().unwrap_or_else(|| panic!("nothing kept of {text:?}"));
    let likes = candidate("I love hiking in Norway.");
    assert_eq!((likes.kind, likes.entities.as_slice()), (ItemKind::Preference, &["Norway".to_owned()][..]));
    let met = candidate("I met Rosa in Paris yesterday.");
    assert_eq!((met.kind, met.entities.as_slice()), (ItemKind::Event, &["Paris".to_owned(), "Rosa".to_owned()][..]));
    assert_eq!(met.valid_from.map(|moment| moment.to_string()).as_deref(), Some("2026-02-28T00:00:00.000Z"));
    let coming = candidate("I fly to Lima on 12 July.");
    assert_eq!((coming.kind, coming.valid_from), (ItemKind::Event, None));
    assert_eq!(coming.event_time.map(|time| time.start.to_string()).as_deref(), Some("2026-07-12T00:00:00.000Z"));
    let since = candidate("I have lived in Oslo since 2019.");
    assert_eq!((since.kind, since.event_time), (ItemKind::Fact, None));
    assert_eq!(since.valid_from.map(|moment| moment.to_string()).as_deref(), Some("2019-01-01T00:00:00.000Z"));
    let until = candidate("My room is 12 until 5 March 2026.");
    assert_eq!(until.valid_to.map(|moment| moment.to_string()).as_deref(), Some("2026-03-06T00:00:00.000Z"));
    assert_eq!(candidate("To reset the router, hold the button for ten seconds.").kind, ItemKind::Skill);
    let born = candidate("I was born on 3 May 1990.");
    assert_eq!((born.kind, born.event_time), (ItemKind::Fact, None));
    let code = candidate("Zorvan's door code is 44-71-B.");
    assert_eq!(
        (code.entities.as_slice(), code.tags.as_slice()),
        (&["44-71-B".to_owned(), "Zorvan".to_owned()][..], &["access".to_owned()][..])
    );
    assert_eq!(
        candidate("I now live in Bergen.").valid_from.map(|moment| moment.to_string()).as_deref(),
        Some("2026-03-01T10:00:00.000Z")
    );
}

#[test]
fn only_those_who_count_are_remembered_but_what_others_said_explains_it() {
    let turns = [
        (Role::System, "# Memories\n- The user's door code is 4471."),
        (Role::User, "What is my door code?"),
        (Role::Assistant, "Your door code is 4471."),
        (Role::Tool, "The door was opened."),
        (Role::User, "Actually, it is now 5512."),
    ];
    let mut input = input(&turns);
    let candidates = FastExtractor.extract(&input).expect("candidates");
    assert_eq!(candidates.len(), 1);
    assert_eq!((candidates[0].text.as_str(), candidates[0].turn), ("The user's door code is now 5512.", Some(4)));
    input.speakers = Speakers::UserAndAssistant;
    let candidates = FastExtractor.extract(&input).expect("candidates");
    assert_eq!(candidates[0].text, "The user's door code is 4471.");
    let items = new_items(candidates, &input, &Scope::default(), Some("c1"));
    assert_eq!(items[0].source, Source::Message { conversation: "c1".to_owned(), role: "assistant".to_owned() });
}

#[test]
fn spans_address_the_turn_and_the_same_input_gives_the_same_candidates() {
    let text = "Hello!\n\n* My cat is called Tom.  Thanks.\nI work at Kaf; I drive a Volvo.";
    let first = told(text);
    assert_eq!(first, told(text));
    for candidate in &first {
        assert!(text.get(candidate.span.clone().expect("a span")).is_some_and(|part| part.starts_with(['M', 'I'])));
    }
    assert_eq!(first.len(), 3);
}

#[test]
fn hostile_turns_are_errors_or_candidates_within_limits() {
    assert!(matches!(
        FastExtractor.extract(&input(&[(Role::User, "a\u{0}b")])),
        Err(IngestError::ControlCharacter { .. })
    ));
    let large = "a ".repeat(600 << 10);
    assert!(matches!(FastExtractor.extract(&input(&[(Role::User, &large)])), Err(IngestError::TooLarge { .. })));
    let many = vec![(Role::User, "x"); 1001];
    assert!(matches!(FastExtractor.extract(&input(&many)), Err(IngestError::TooMany { .. })));
    for text in [
        "I ".repeat(20_000),
        "my ".repeat(20_000),
        "\"".repeat(20_000),
        "I like tea and I ".repeat(5_000),
        "((((".repeat(5_000),
        "'; DROP TABLE items; --".to_owned(),
        "אני אוהב תה מאוד.".to_owned(),
        "🎉🎉🎉".to_owned(),
        "a.".repeat(20_000),
        "1. ".repeat(10_000),
        "I’m “quoted” I'd’ve 'n'".to_owned(),
        "’s ’s is ’s".to_owned(),
        "It's It's. It's it.".to_owned(),
    ] {
        for candidate in told(&text) {
            assert!(candidate.text.len() <= 16_384 && !candidate.text.is_empty());
        }
    }
}
