//! Loading tokenizers, broken ones included, and encoding long and odd texts.

use std::fs;
use std::path::Path;

use super::*;

fn stories() -> Option<ModelSource> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/stories260K");
    if folder.is_dir() {
        return Some(ModelSource::Folder(folder));
    }
    println!("SKIPPED (1): ../shared/data/stories260K is not there");
    None
}

fn load(json: &[u8]) -> Result<Tokenizer, ModelError> {
    let folder = tempfile::tempdir().expect("temporary folder");
    fs::write(folder.path().join("tokenizer.json"), json).expect("write");
    Tokenizer::load(&ModelSource::Folder(folder.path().to_owned()))
}

#[test]
fn special_tokens_are_added_only_when_asked_for() {
    let Some(source) = stories() else { return };
    let tokenizer = Tokenizer::load(&source).expect("tokenizer");
    let with = tokenizer.encode("Once upon a time", SpecialTokens::Add).expect("encodes");
    let without = tokenizer.encode("Once upon a time", SpecialTokens::Skip).expect("encodes");
    assert_eq!(with[0], 1);
    assert_eq!(with[1..], without);
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos_token_id(), tokenizer.bos_token_id()), (512, Some(2), Some(1)));
    assert_eq!(tokenizer.decode(&with, SpecialText::Skip), "Once upon a time");
    assert_eq!(tokenizer.token_id("</s>"), Some(2));
    assert_eq!(tokenizer.encode("", SpecialTokens::Skip).expect("encodes"), Vec::<u32>::new());
}

#[test]
fn long_texts_encode_in_reasonable_time_and_too_long_ones_are_refused() {
    let Some(source) = stories() else { return };
    let tokenizer = Tokenizer::load(&source).expect("tokenizer");
    for text in ["a".repeat(300_000), " ".repeat(300_000), "Lily went out. ".repeat(20_000), "日".repeat(100_000)] {
        let start = std::time::Instant::now();
        let ids = tokenizer.encode(&text, SpecialTokens::Skip).expect("encodes");
        assert_eq!(tokenizer.decode(&ids, SpecialText::Keep), text);
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    }
    let error = tokenizer.encode(&"a".repeat(MAX_TEXT_BYTES + 1), SpecialTokens::Skip).expect_err("too long");
    assert!(matches!(error, ModelError::TextTooLong { .. }));
}

#[test]
fn a_missing_tokenizer_is_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let error = Tokenizer::load(&ModelSource::Folder(folder.path().to_owned())).expect_err("nothing there");
    assert!(matches!(error, ModelError::MissingFile { file: "tokenizer.json", .. }), "{error}");
}

#[test]
fn broken_tokenizers_are_typed_errors() {
    for json in
        ["", "{", "null", "[]", "{}", "{\"model\": 5}", "{\"version\": \"1.0\", \"model\": {\"type\": \"BPE\"}}"]
    {
        let error = load(json.as_bytes()).expect_err(json);
        let is_typed =
            matches!(error, ModelError::Json { .. } | ModelError::Tokenizer { .. } | ModelError::TokenizerPanic { .. });
        assert!(is_typed, "{json}: {error:?}");
    }
    let Some(ModelSource::Folder(folder)) = stories() else { return };
    let bytes = fs::read(folder.join("tokenizer.json")).expect("read");
    for len in (0..bytes.len()).step_by(bytes.len() / 60) {
        load(&bytes[..len]).expect_err("truncated");
    }
    // A vocabulary whose merges name a token that does not exist, an added token that is no object, ….
    let whole = String::from_utf8(bytes).expect("UTF-8");
    for (from, to) in [("\"<unk>\"", "5"), ("\"ByteFallback\"", "\"Byte\""), ("\"special\": true", "\"special\": 3")] {
        assert!(whole.contains(from), "{from}");
        load(whole.replace(from, to).as_bytes()).expect_err(to);
    }
}
