//! Streams against the tokenizer library's own decoding, over real tokenizers and made-up rules.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::{ModelSource, SpecialTokens, Tokenizer};

/// A small generator; the seed is printed by the test that fails.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// A tokenizer with the given tokens (ids in order) and decoder; `<s>` and `</s>` come last and are special.
fn tokenizer(tokens: &[&str], decoder: Value) -> Tokenizer {
    let mut vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let mut added = Vec::new();
    for special in ["<s>", "</s>"] {
        let id = vocab.len();
        vocab.insert(special.to_owned(), json!(id));
        added.push(json!({"id": id, "content": special, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}));
    }
    let json = json!({"version": "1.0", "added_tokens": added, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true, "unk_token": null}});
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).expect("write");
    Tokenizer::load(&ModelSource::Folder(folder.path().to_owned())).expect("tokenizer")
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

fn llama_decoder() -> Value {
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})
}

const PIECES: [&str; 14] = [
    "▁Hello",
    "▁",
    "lo",
    "▁▁▁x",
    "é",
    "<0xE5>",
    "<0x8F>",
    "<0xAB>",
    "<0xF0>",
    "<0x9F>",
    "<0x98>",
    "<0x80>",
    "<0x0A>",
    "<0x20>",
];

/// Checks random lists of ids: what is pushed and the rest are exactly what the library decodes at once.
fn check_random(tokenizer: &Tokenizer, seed: u64, num_lists: usize) {
    let mut random = Random(seed);
    let vocab_size = tokenizer.vocab_size();
    for list in 0..num_lists {
        let ids: Vec<u32> = (0..random.below(40)).map(|_| random.below(vocab_size + 1) as u32).collect();
        for special in [SpecialText::Keep, SpecialText::Skip] {
            let mut stream = tokenizer.decode_stream(special, TextStart::Beginning);
            let mut pieces: Vec<String> = ids.iter().filter_map(|id| stream.push(*id)).collect();
            pieces.extend(stream.finish());
            let whole = tokenizer.decode_at_once(&ids, special);
            assert_eq!(pieces.concat(), whole, "seed {seed}, list {list}: {ids:?}");
            assert_eq!(tokenizer.decode(&ids, special), whole);
            assert_eq!(stream.finish(), None);
        }
    }
}

#[test]
fn random_pieces_stream_as_they_decode_at_once() {
    check_random(&tokenizer(&PIECES, llama_decoder()), 1, 3000);
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme});
    check_random(&tokenizer(&PIECES, metaspace("always")), 2, 500);
    check_random(&tokenizer(&PIECES, metaspace("never")), 3, 500);
    check_random(&tokenizer(&PIECES, json!({"type": "ByteFallback"})), 4, 500);
    check_random(&tokenizer(&PIECES, Value::Null), 5, 500);
    let strip_two = json!({"type": "Sequence", "decoders": [
        {"type": "Fuse"}, {"type": "Strip", "content": "▁", "start": 2, "stop": 0}]});
    check_random(&tokenizer(&PIECES, strip_two), 6, 500);
}

#[test]
fn random_bytes_stream_as_they_decode_at_once() {
    // "Ġ" is a space, "Ċ" a line break, "ð" "Ł" "ĺ" "Ģ" the bytes of an emoji, "å" "ı" "«" those of 叫, "日" is no byte.
    let tokens = ["a", "Ġb", "Ċ", "ð", "Ł", "ĺ", "Ģ", "ðŁ", "å", "ı", "«", "ı«", "ÿ", "日", "åı"];
    check_random(&tokenizer(&tokens, byte_level()), 7, 5000);
}

/// A real tokenizer from a folder, or `None` with a printed note when it is not there.
fn real(folder: &str) -> Option<Tokenizer> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if path.join("tokenizer.json").is_file() {
        return Some(Tokenizer::load(&ModelSource::Folder(path)).expect("tokenizer"));
    }
    println!("SKIPPED (1): {folder} has no tokenizer");
    None
}

#[test]
fn random_ids_of_real_tokenizers_stream_as_they_decode_at_once() {
    for folder in ["../../shared/data/stories260K", "bundled/model"] {
        if let Some(tokenizer) = real(folder) {
            check_random(&tokenizer, 8, 2000);
        }
    }
}

#[test]
fn real_tokenizers_give_back_the_text_they_encoded() {
    let text = "Hello there,  Zoë! 日本語 😀🏳️‍🌈\n\n\tcafé — 1234567 e\u{301} \u{0}\u{7f}ÿ";
    for folder in ["../../shared/data/stories260K", "bundled/model"] {
        let Some(tokenizer) = real(folder) else { continue };
        let ids = tokenizer.encode(text, SpecialTokens::Skip).expect("encodes");
        assert_eq!(tokenizer.decode(&ids, SpecialText::Keep), text, "{folder}");
        // No piece ends within a character, so replacement characters never appear.
        let mut stream = tokenizer.decode_stream(SpecialText::Keep, TextStart::Beginning);
        assert!(ids.iter().filter_map(|id| stream.push(*id)).all(|piece| !piece.contains('\u{fffd}')));
        let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
        assert!(String::from_utf8_lossy(&bytes).ends_with(text), "{folder}");
    }
}

#[test]
fn a_character_is_held_back_until_it_is_complete() {
    let tokenizer = tokenizer(&["a", "ð", "Ł", "ĺ", "Ģ"], byte_level());
    let mut stream = tokenizer.decode_stream(SpecialText::Keep, TextStart::Beginning);
    let pushed: Vec<Option<String>> = [0, 1, 2, 3, 4, 0].iter().map(|id| stream.push(*id)).collect();
    assert_eq!(pushed, [Some("a".into()), None, None, None, Some("😀".into()), Some("a".into())]);
    assert_eq!((stream.push(1), stream.push(2), stream.finish()), (None, None, Some("\u{fffd}".into())));
    // An invalid byte is replaced as soon as it is known to be invalid, and holds nothing up.
    let mut stream = tokenizer.decode_stream(SpecialText::Keep, TextStart::Beginning);
    assert_eq!((stream.push(1), stream.push(0)), (None, Some("\u{fffd}a".into())));
}

#[test]
fn a_continuation_keeps_its_leading_space() {
    let tokenizer = tokenizer(&PIECES, llama_decoder());
    let text = |start| {
        let mut stream = tokenizer.decode_stream(SpecialText::Skip, start);
        stream.push(0).expect("a word")
    };
    assert_eq!((text(TextStart::Beginning).as_str(), text(TextStart::Continuation).as_str()), ("Hello", " Hello"));
}

#[test]
fn a_long_stream_costs_the_same_for_every_token() {
    let tokenizer = tokenizer(&PIECES, llama_decoder());
    let mut stream = tokenizer.decode_stream(SpecialText::Keep, TextStart::Beginning);
    // Byte tokens without end: the worst case of a decoder that looks back.
    let start = std::time::Instant::now();
    let num_tokens = 200_000;
    for _ in 0..num_tokens {
        assert_eq!(stream.push(5), None);
    }
    assert_eq!(stream.finish().map(|text| text.chars().count()), Some(num_tokens));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn token_bytes_are_the_bytes_a_token_stands_for() {
    let pieces = tokenizer(&PIECES, llama_decoder());
    assert_eq!(pieces.token_bytes(0), b" Hello");
    assert_eq!(pieces.token_bytes(5), [0xe5]);
    assert_eq!(pieces.token_bytes(14), b"<s>");
    assert_eq!(pieces.token_bytes(99), b"");
    let bytes = tokenizer(&["Ġb", "å", "日"], byte_level());
    assert_eq!([bytes.token_bytes(0), bytes.token_bytes(1)], [b" b".to_vec(), vec![0xe5]]);
    assert_eq!(bytes.token_bytes(2), "日".as_bytes());
}

#[test]
fn the_byte_table_is_a_bijection() {
    let mut bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of_char).collect();
    bytes.sort_unstable();
    assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    assert_eq!(['Ġ', 'Ċ', 'A', 'Ń'].map(byte_of_char), [Some(b' '), Some(b'\n'), Some(b'A'), Some(0xad)]);
}

#[test]
fn decoders_that_cannot_stream_are_refused_by_name() {
    for decoder in [
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "CTC"}),
        json!({"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 0, "stop": 1}]}),
        json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}]}),
        json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}),
        json!({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
    ] {
        let error = TextRule::parse(&decoder).expect_err("cannot stream");
        assert!(matches!(error, ModelError::UnsupportedDecoder { .. }), "{error:?}");
    }
}
