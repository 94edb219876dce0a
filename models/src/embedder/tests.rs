//! Embedders against transformers, independence of a text from its batch, and folders that are broken.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::text::TextTokens;
use super::*;

/// Largest difference from the reference that is tolerated; the feature of each case changes vectors by five times that.
const TOLERANCE: f32 = 1e-5;
const CASES: [&str; 5] = ["bert-mean", "bert-cls-prefixed", "bert-mean-max", "roberta-cls", "distilbert-mean"];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/embedders").join(case)
}

fn load_folder(folder: &Path) -> Result<BertEmbedder, ModelError> {
    BertEmbedder::load(&ModelSource::Folder(folder.to_owned()), EmbedderOptions::default())
}

fn load(case: &str) -> BertEmbedder {
    load_folder(&folder(case)).expect("the embedder loads")
}

/// The case's reference: text, purpose, token ids, vector.
fn reference(case: &str) -> Vec<(String, Purpose, Vec<u32>, Vec<f32>)> {
    let json = fs::read(folder(case).join("reference.json")).expect("reference");
    let value: Value = serde_json::from_slice(&json).expect("JSON");
    let entry = |entry: &Value| {
        let purpose = if entry["purpose"] == "query" { Purpose::Query } else { Purpose::Passage };
        let ids = entry["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("id") as u32);
        let vector = entry["vector"].as_array().expect("vector").iter().map(|x| x.as_f64().expect("number") as f32);
        (entry["text"].as_str().expect("text").to_owned(), purpose, ids.collect(), vector.collect())
    };
    value["entries"].as_array().expect("entries").iter().map(entry).collect()
}

/// A copy of a case that a test may damage.
fn copy(case: &str) -> tempfile::TempDir {
    let target = tempfile::tempdir().expect("temporary folder");
    fs::create_dir(target.path().join("1_Pooling")).expect("folder");
    for entry in fs::read_dir(folder(case)).expect("case").map(|entry| entry.expect("entry")) {
        if entry.path().is_file() {
            fs::copy(entry.path(), target.path().join(entry.file_name())).expect("copy");
        }
    }
    let pooling = "1_Pooling/config.json";
    fs::copy(folder(case).join(pooling), target.path().join(pooling)).expect("copy");
    target
}

/// What loading says when one field of one file has another value; `None` removes the field.
fn load_with(case: &str, file: &str, field: &str, value: Option<Value>) -> Result<BertEmbedder, ModelError> {
    let copied = copy(case);
    let path = copied.path().join(file);
    let mut document: Value = match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).expect("JSON"),
        Err(_) => json!({}),
    };
    let map = document.as_object_mut().expect("object");
    match value {
        Some(value) => map.insert(field.to_owned(), value),
        None => map.remove(field),
    };
    fs::write(&path, document.to_string()).expect("write");
    load_folder(copied.path())
}

/// Where the data of a tensor begins in a safetensors file.
fn data_start(file: &[u8], tensor: &str) -> usize {
    let header_len = u64::from_le_bytes(*file.first_chunk().expect("header")) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + header_len]).expect("JSON");
    8 + header_len + header[tensor]["data_offsets"][0].as_u64().expect("offset") as usize
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |max, x| if x <= max { max } else { x })
}

#[test]
fn vectors_and_tokens_agree_with_transformers() {
    for case in CASES {
        let embedder = load(case);
        let mut worst = 0.0f32;
        for (text, purpose, ids, expected) in reference(case) {
            let tokens = embedder.text.encode(embedder.prompts.of(purpose), &text).expect("encodes");
            assert_eq!(tokens.ids, ids, "{case}: {text:?}");
            let vectors = embedder.embed(&[&text], purpose).expect("embeds");
            assert_eq!(vectors.len(), 1);
            assert_eq!(vectors[0].len(), embedder.dim());
            worst = worst.max(largest_difference(&vectors[0], &expected));
        }
        println!("{case}: largest difference {worst:.2e}");
        assert!(worst < TOLERANCE, "{case}: {worst}");
    }
}

#[test]
fn a_vector_does_not_depend_on_the_other_texts() {
    for case in CASES {
        let embedder = load(case);
        let texts: Vec<String> = reference(case).into_iter().map(|(text, ..)| text).collect();
        // Enough texts for several batches, in another order each round.
        for step in [1, 3, 7] {
            let many: Vec<&str> = (0..97).map(|index| texts[index * step % texts.len()].as_str()).collect();
            let together = embedder.embed(&many, Purpose::Passage).expect("embeds");
            for (text, vector) in many.iter().zip(&together) {
                let alone = &embedder.embed(&[text], Purpose::Passage).expect("embeds")[0];
                assert_eq!(alone, vector, "{case}: {text:?}");
            }
        }
    }
}

#[test]
fn vectors_have_length_one_and_no_texts_give_none() {
    let embedder = load("bert-mean-max");
    assert_eq!(embedder.dim(), 48);
    let vectors = embedder.embed(&["a", "", "🙂"], Purpose::Query).expect("embeds");
    for vector in &vectors {
        let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        assert!((square - 1.0).abs() < 1e-6, "{square}");
    }
    assert!(embedder.embed(&[], Purpose::Query).expect("nothing to do").is_empty());
}

#[test]
fn long_texts_are_cut_as_if_they_were_encoded_whole() {
    for case in ["bert-mean", "roberta-cls"] {
        let embedder = load(case);
        let json = fs::read(folder(case).join("tokenizer.json")).expect("read");
        let library = crate::tokenizer::parse_library(&json).expect("tokenizer");
        let spaces = format!("a{}b", " ".repeat(9000));
        for text in ["the keys of the old house, ".repeat(3000), "日本語".repeat(3000), spaces] {
            let whole = library.encode_fast(text.trim(), true).expect("encodes");
            let (last, content) = whole.get_ids().split_last().expect("special tokens");
            let mut expected = content[..content.len().min(embedder.max_tokens() - 1)].to_vec();
            expected.push(*last);
            assert_eq!(embedder.text.encode("", &text).expect("encodes").ids, expected, "{case}");
            assert_eq!(embedder.count_tokens(&text).expect("counts"), whole.get_ids().len(), "{case}");
        }
    }
}

#[test]
fn huge_texts_are_cut_in_reasonable_time() {
    let embedder = load("bert-mean");
    let start = std::time::Instant::now();
    for text in ["memory ".repeat(1_500_000), "m".repeat(10_000_000), " ".repeat(10_000_000)] {
        let vector = &embedder.embed(&[&text], Purpose::Passage).expect("embeds")[0];
        assert_eq!(vector.len(), 32);
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    let error = embedder.count_tokens(&"m".repeat(crate::tokenizer::MAX_TEXT_BYTES + 1)).expect_err("too long");
    assert!(matches!(error, ModelError::TextTooLong { .. }), "{error}");
}

#[test]
fn too_many_texts_are_refused() {
    let error = load("bert-mean").embed(&vec![""; MAX_TEXTS + 1], Purpose::Query).expect_err("too many");
    assert!(matches!(error, ModelError::TooManyTexts { max: MAX_TEXTS, .. }), "{error}");
}

#[test]
fn the_id_names_whatever_changes_a_vector() {
    let id = load("bert-mean").id();
    assert_eq!(id, load_folder(copy("bert-mean").path()).expect("loads").id());
    assert_eq!(id.to_string().len(), 64);
    let changes = [
        ("1_Pooling/config.json", "pooling_mode_max_tokens", json!(true)),
        ("config.json", "hidden_act", json!("relu")),
        ("config.json", "layer_norm_eps", json!(1e-6)),
        ("config.json", "num_attention_heads", json!(2)),
        ("config_sentence_transformers.json", "prompts", json!({"query": "q: "})),
        ("sentence_bert_config.json", "max_seq_length", json!(23)),
        ("sentence_bert_config.json", "do_lower_case", json!(true)),
        ("tokenizer.json", "normalizer", Value::Null),
    ];
    let mut ids = vec![id];
    for (file, field, value) in changes {
        ids.push(load_with("bert-mean", file, field, Some(value)).expect("loads").id());
    }
    let copied = copy("bert-mean");
    let path = copied.path().join("model.safetensors");
    let mut bytes = fs::read(&path).expect("read");
    let offset = data_start(&bytes, "encoder.layer.1.output.dense.weight");
    bytes[offset] ^= 1;
    fs::write(&path, bytes).expect("write");
    ids.push(load_folder(copied.path()).expect("loads").id());
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn prompts_of_the_caller_replace_those_of_the_files() {
    let with_prompts = load("bert-cls-prefixed");
    assert_eq!(with_prompts.prompts().query, "query: ");
    let options = EmbedderOptions { prompts: Some(Prompts::default()) };
    let source = ModelSource::Folder(folder("bert-cls-prefixed"));
    let without = BertEmbedder::load(&source, options).expect("loads");
    assert_ne!(without.id(), with_prompts.id());
    let by_hand = without.embed(&["query: a key"], Purpose::Passage).expect("embeds");
    assert_eq!(by_hand, with_prompts.embed(&["a key"], Purpose::Query).expect("embeds"));
    assert_ne!(by_hand, with_prompts.embed(&["a key"], Purpose::Passage).expect("embeds"));
    let prompts = Prompts { query: "q".repeat(5000), passage: String::new() };
    let error = BertEmbedder::load(&source, EmbedderOptions { prompts: Some(prompts) }).expect_err("long prompt");
    assert!(matches!(error, ModelError::TextTooLong { .. }), "{error}");
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let copied = copy("bert-mean");
        fs::remove_file(copied.path().join(file)).expect("remove");
        let error = load_folder(copied.path()).expect_err(file);
        assert!(matches!(error, ModelError::MissingFile { file: named, .. } if named == file), "{error}");
    }
    // What sentence-transformers adds may be missing: then it is the mean over at most as many tokens as there are positions.
    let copied = copy("bert-mean");
    for file in ["modules.json", "sentence_bert_config.json", "1_Pooling/config.json"] {
        fs::remove_file(copied.path().join(file)).expect("remove");
    }
    assert_eq!(load_folder(copied.path()).expect("loads").max_tokens(), 40);
}

#[test]
fn every_value_that_cannot_be_right_is_a_typed_error() {
    let huge = json!(1u64 << 60);
    let cases = [
        ("config.json", "model_type", Some(json!("modernbert"))),
        ("config.json", "model_type", Some(json!(3))),
        ("config.json", "hidden_size", None),
        ("config.json", "hidden_size", Some(json!(0))),
        ("config.json", "hidden_size", Some(json!(28))),
        ("config.json", "hidden_size", Some(huge.clone())),
        ("config.json", "num_attention_heads", Some(json!(5))),
        ("config.json", "num_hidden_layers", Some(json!(1))),
        ("config.json", "num_hidden_layers", Some(json!(3))),
        ("config.json", "intermediate_size", Some(json!(49))),
        ("config.json", "vocab_size", Some(json!(201))),
        ("config.json", "max_position_embeddings", Some(json!(39))),
        ("config.json", "max_position_embeddings", Some(json!("40"))),
        ("config.json", "type_vocab_size", Some(json!(1))),
        ("config.json", "layer_norm_eps", Some(json!(-1e-12))),
        ("config.json", "layer_norm_eps", Some(json!(1.5))),
        ("config.json", "hidden_act", Some(json!("mish"))),
        ("config.json", "position_embedding_type", Some(json!("relative_key"))),
        ("config.json", "is_decoder", Some(json!(true))),
        ("config.json", "quantization_config", Some(json!({"quant_method": "bitsandbytes"}))),
        ("sentence_bert_config.json", "max_seq_length", Some(json!(0))),
        ("sentence_bert_config.json", "max_seq_length", Some(json!(2))),
        ("sentence_bert_config.json", "max_seq_length", Some(huge)),
        ("sentence_bert_config.json", "do_lower_case", Some(json!("no"))),
        ("1_Pooling/config.json", "word_embedding_dimension", Some(json!(33))),
        ("1_Pooling/config.json", "pooling_mode_lasttoken", Some(json!(true))),
        ("1_Pooling/config.json", "pooling_mode_cls_token", Some(json!(1))),
        ("1_Pooling/config.json", "pooling_mode", Some(json!("median"))),
        ("1_Pooling/config.json", "pooling_mode", Some(json!([]))),
        ("config_sentence_transformers.json", "prompts", Some(json!(["query: "]))),
        ("config_sentence_transformers.json", "prompts", Some(json!({"query": 3}))),
        ("tokenizer.json", "model", Some(json!({"type": "WordPiece"}))),
    ];
    for (file, field, value) in cases {
        let shown = format!("{file} {field} {value:?}");
        let error = load_with("bert-mean", file, field, value).expect_err(&shown);
        assert!(!matches!(error, ModelError::Tensor { .. }), "{shown}: {error:?}");
        println!("{shown}: {error}");
    }
    let error = load_with("bert-mean", "config.json", "model_type", Some(json!("modernbert"))).expect_err("unknown");
    assert!(error.to_string().contains("modernbert") && error.to_string().contains("xlm-roberta"), "{error}");
}

#[test]
fn pipelines_with_more_than_encoder_pooling_and_norm_are_refused() {
    let refused = [
        json!([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]),
        json!([{"type": "sentence_transformers.models.Pooling", "path": "../elsewhere"}]),
        json!([{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]),
        json!([{"path": ""}]),
        json!(["Transformer"]),
        json!({"type": "Transformer"}),
    ];
    for modules in refused {
        let copied = copy("bert-mean");
        fs::write(copied.path().join("modules.json"), modules.to_string()).expect("write");
        let error = load_folder(copied.path()).expect_err("refused");
        let is_typed = matches!(
            error,
            ModelError::UnsupportedEmbedding { .. } | ModelError::InvalidField { .. } | ModelError::MissingField { .. }
        );
        assert!(is_typed, "{modules}: {error:?}");
    }
    let error = load_with("bert-cls-prefixed", "1_Pooling/config.json", "include_prompt", Some(json!(false)));
    assert!(matches!(error, Err(ModelError::UnsupportedEmbedding { name: "include_prompt", .. })));
}

#[test]
fn weights_that_are_no_numbers_or_cut_off_are_refused() {
    let path = |copied: &tempfile::TempDir| copied.path().join("model.safetensors");
    let whole = fs::read(folder("bert-mean").join("model.safetensors")).expect("read");
    for (tensor, value) in [
        ("embeddings.word_embeddings.weight", f32::NAN),
        ("encoder.layer.0.attention.self.key.bias", f32::INFINITY),
        ("encoder.layer.1.output.dense.weight", f32::NEG_INFINITY),
    ] {
        let copied = copy("bert-mean");
        let mut bytes = whole.clone();
        let start = data_start(&bytes, tensor) + 20;
        bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
        fs::write(path(&copied), bytes).expect("write");
        let error = load_folder(copied.path()).expect_err("not finite");
        assert!(matches!(&error, ModelError::NotFiniteWeight { name, index: 5, .. } if name == tensor), "{error:?}");
    }
    for len in (0..whole.len()).step_by(whole.len() / 40) {
        let copied = copy("bert-mean");
        fs::write(path(&copied), &whole[..len]).expect("write");
        load_folder(copied.path()).expect_err("cut off");
    }
}

#[test]
fn a_model_without_direction_and_a_foreign_tokenizer_are_typed_errors() {
    let copied = copy("bert-mean");
    let path = copied.path().join("model.safetensors");
    let mut bytes = fs::read(&path).expect("read");
    let header_len = u64::from_le_bytes(*bytes.first_chunk().expect("header")) as usize;
    bytes[8 + header_len..].fill(0);
    fs::write(&path, bytes).expect("write");
    let error = load_folder(copied.path()).expect("loads").embed(&["a", "b"], Purpose::Query).expect_err("zero");
    assert!(matches!(error, ModelError::NoDirection { text: 0, length: 0.0 }), "{error:?}");

    // The larger vocabulary has tokens that the smaller model has no embedding of.
    let copied = copy("distilbert-mean");
    fs::copy(folder("bert-mean").join("tokenizer.json"), copied.path().join("tokenizer.json")).expect("copy");
    let embedder = load_folder(copied.path()).expect("loads");
    let error = embedder.embed(&["Where are the keys?"], Purpose::Query).expect_err("foreign token");
    assert!(matches!(error, ModelError::BatchValue { array: "token_ids", limit: 160, .. }), "{error:?}");
}

#[test]
fn the_encoder_refuses_texts_and_types_beyond_its_tables() {
    let embedder = load("bert-mean");
    let mut batch = PackedTexts::default();
    batch.push(&TextTokens { ids: vec![2; 41], type_ids: vec![0; 41] });
    let error = embedder.encoder.forward(&batch).expect_err("too long");
    assert!(matches!(error, ModelError::BatchLength { expected: 40, got: 41, .. }), "{error:?}");
    let mut batch = PackedTexts::default();
    batch.push(&TextTokens { ids: vec![2, 3], type_ids: vec![0, 2] });
    let error = embedder.encoder.forward(&batch).expect_err("no such type");
    assert!(matches!(error, ModelError::BatchValue { array: "token_type_ids", index: 1, .. }), "{error:?}");
}

#[test]
fn a_single_token_has_the_same_state_alone_and_among_others() {
    let embedder = load("bert-mean");
    let one = TextTokens { ids: vec![7], type_ids: vec![0] };
    let mut alone = PackedTexts::default();
    alone.push(&one);
    let mut many = PackedTexts::default();
    (0..5).for_each(|_| many.push(&one));
    let alone = embedder.encoder.forward(&alone).expect("computes");
    assert_eq!(embedder.encoder.forward(&many).expect("computes"), alone.repeat(5));
}
