//! Text made of awkward pieces, seeded and in any order, through every reader: errors are allowed, panics are not.

use std::time::Instant;

use memory::exchange::{ImportLimits, Strictness, read_json_lines, read_mem0, read_memos};
use memory::ingest::{
    ChunkSize, Chunking, Claim, DocumentFormat, DocumentLimits, ExtractionInput, Extractor, FastExtractor, Judge,
    RecalledMemory, Reference, RuleJudge, Speakers, Turn, chunk_document, drop_recalled, parse_fine_answer,
    parse_judge_answer, parse_statement, read_document,
};
use memory::item::{Scope, Source};
use memory::{ItemId, Timestamp};

const PIECES: &[&str] = &[
    "I ",
    "my ",
    "I'm ",
    "I’d ",
    "you ",
    "we ",
    "the user's ",
    "Anna's ",
    "'s ",
    "’s ",
    "s' ",
    "is ",
    "was ",
    "not ",
    "no longer ",
    "used to ",
    "and ",
    "and I ",
    ", my ",
    "; ",
    "to ",
    "code ",
    "favourite colour ",
    "4471 ",
    "12.50 ",
    "07:30 ",
    "2027-03-14 ",
    "31 February ",
    "tomorrow's ",
    "next Monday ",
    "in 2019 ",
    "since ",
    "until ",
    "every Friday ",
    "2027年3月14日",
    "明天",
    "我",
    "。",
    "ฉัน",
    "שלום ",
    "أنا ",
    "👩‍👩‍👧",
    "ß",
    "İ",
    "ǅ",
    "e\u{301}",
    "\u{200f}",
    "\u{ad}",
    "\u{a0}",
    "\"",
    "“",
    "”",
    "「",
    "<p>",
    "</p>",
    "<script>",
    "<h1>",
    "<li>",
    "&#0;",
    "&",
    "# ",
    "- ",
    "1. ",
    "> ",
    "```\n",
    "\n",
    "\n\n",
    "\t",
    "{",
    "}",
    "[",
    "]",
    "\"text\": ",
    ",",
    ": ",
    "null",
    "\\u0000",
    "{\"memory\": \"a\"}",
    "</think>",
    ". ",
    "! ",
    "? ",
    "Dr. ",
    "J. ",
    "İs ",
    "KELVIN K ",
    "has no ",
    "prefers ",
    "over ",
    "the ",
    "of ",
    "(",
    "%PDF-",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("below a usize")
    }

    fn text(&mut self) -> String {
        let num_pieces = 1 + self.below(24);
        (0..num_pieces).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }
}

fn reference() -> (Reference, Timestamp) {
    let now = "2026-03-01T10:00:00Z".parse().expect("a moment");
    (Reference::utc(now), now)
}

#[test]
fn no_order_of_awkward_pieces_makes_a_panic() {
    let (reference, now) = reference();
    for seed in 0..3000 {
        let mut random = Random(seed);
        let (one, two) = (random.text(), random.text());
        println!("seed {seed}: {one:?} {two:?}");
        let turn = |text: &str, role| Turn { role, text: text.to_owned() };
        let turns = vec![turn(&one, memory::ingest::Role::User), turn(&two, memory::ingest::Role::Assistant)];
        let input =
            ExtractionInput { turns, speakers: Speakers::UserAndAssistant, reference, known_entities: Vec::new() };
        if let Ok(candidates) = FastExtractor.extract(&input) {
            for candidate in &candidates {
                let span = candidate.span.clone().expect("rules know where");
                let said = &input.turns[candidate.turn.expect("rules know who")].text;
                assert!(said.get(span).is_some(), "a span lies on characters");
            }
            let recalled = [RecalledMemory { id: ItemId::new(), text: two.clone() }];
            let num_candidates = candidates.len();
            let filtered = drop_recalled(candidates, &recalled, &input);
            assert_eq!(filtered.news.len() + filtered.repeated.len(), num_candidates);
        }
        let _ = parse_statement(&one, &reference);
        let claim = |text: &str| Claim { text: text.to_owned(), valid_from: None, valid_to: None, recorded_at: now };
        RuleJudge.judge(&claim(&one), &claim(&two)).expect("rules always answer");
        let _ = (parse_fine_answer(&one), parse_judge_answer(&two));
        for format in DocumentFormat::ALL {
            let Ok(document) = read_document(one.as_bytes(), format, &DocumentLimits::default()) else { continue };
            let chunking = Chunking { unit: ChunkSize::Characters, size: 12, overlap: 3 };
            for item in chunk_document(&document, "d", &Scope::default(), &chunking).expect("chunks") {
                let Source::Document { start, end, .. } = item.source else { panic!("a chunk has a span") };
                assert_eq!(&document.text[start as usize..end as usize], item.text);
            }
        }
        let limits = ImportLimits::default();
        let _ = read_json_lines(one.as_bytes(), Strictness::Lenient, &limits);
        let _ = (
            read_mem0(one.as_bytes(), Strictness::Lenient, &limits),
            read_memos(two.as_bytes(), Strictness::Strict, &limits),
        );
    }
}

#[test]
fn a_conversation_of_the_greatest_size_is_read_in_seconds() {
    let (reference, _) = reference();
    let text = "I live in Oslo and my door code is 4471, by the way. What is it? ".repeat(4000);
    let start = Instant::now();
    let candidates = FastExtractor.extract(&ExtractionInput::text(text.as_str(), reference)).expect("candidates");
    println!("{} bytes in {:?}, {} candidates", text.len(), start.elapsed(), candidates.len());
    assert_eq!(candidates.len(), 2);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}
