//! Broken, truncated, contradictory and hostile weight files give typed errors, never a panic.

use std::fs;
use std::path::Path;

use kernels::{CpuOptions, Device};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{LoadOptions, Model};

/// A safetensors file with the given header and data.
fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A file of f32 tensors, every element 0.5.
fn tensors(shapes: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape) in shapes {
        let start = data.len();
        let len: usize = shape.iter().product();
        data.extend(std::iter::repeat_n(0.5f32.to_le_bytes(), len).flatten());
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    file_of(&Value::Object(header).to_string(), &data)
}

fn config() -> Value {
    json!({"architectures": ["LlamaForCausalLM"], "vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 64,
        "tie_word_embeddings": true})
}

/// Names and shapes of the tensors that [`config`] calls for.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    vec![
        ("model.embed_tokens.weight".to_owned(), vec![20, 16]),
        (layer("input_layernorm"), vec![16]),
        (layer("self_attn.q_proj"), vec![16, 16]),
        (layer("self_attn.k_proj"), vec![8, 16]),
        (layer("self_attn.v_proj"), vec![8, 16]),
        (layer("self_attn.o_proj"), vec![16, 16]),
        (layer("post_attention_layernorm"), vec![16]),
        (layer("mlp.gate_proj"), vec![24, 16]),
        (layer("mlp.up_proj"), vec![24, 16]),
        (layer("mlp.down_proj"), vec![16, 24]),
        ("model.norm.weight".to_owned(), vec![16]),
    ]
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    fs::write(folder.path().join("config.json"), config().to_string()).expect("write");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("write");
    }
    folder
}

fn load(folder: &Path) -> Result<Model, ModelError> {
    let device = Device::cpu(CpuOptions::default()).expect("device");
    Model::load(&device, &ModelSource::Folder(folder.to_owned()), LoadOptions::default())
}

fn load_error(files: &[(&str, &[u8])]) -> ModelError {
    load(folder(files).path()).err().expect("the weights are wrong")
}

#[test]
fn shards_load_as_the_same_model_as_one_file() {
    let whole = load(folder(&[(SINGLE_FILE, &tensors(&shapes()))]).path()).expect("one file");
    let (first, second) = shapes().split_at_checked(4).map(|(a, b)| (a.to_vec(), b.to_vec())).expect("11 tensors");
    let mut weight_map = serde_json::Map::new();
    for (shard, part) in [("a.safetensors", &first), ("b.safetensors", &second)] {
        weight_map.extend(part.iter().map(|(name, _)| (name.clone(), json!(shard))));
    }
    let index = json!({"metadata": {}, "weight_map": weight_map}).to_string();
    let files = [
        ("a.safetensors", &tensors(&first)[..]),
        ("b.safetensors", &tensors(&second)[..]),
        (INDEX_FILE, index.as_bytes()),
    ];
    let sharded = load(folder(&files).path()).expect("two shards");
    assert_eq!(whole.fingerprint(), sharded.fingerprint());
}

#[test]
fn the_fingerprint_follows_weights_configuration_and_type() {
    let bytes = tensors(&shapes());
    let base = load(folder(&[(SINGLE_FILE, &bytes)]).path()).expect("valid").fingerprint();
    let mut changed = bytes.clone();
    *changed.last_mut().expect("data") ^= 1;
    assert_ne!(base, load(folder(&[(SINGLE_FILE, &changed)]).path()).expect("valid").fingerprint());
    let other = folder(&[(SINGLE_FILE, &bytes)]);
    let mut config = config();
    config["rms_norm_eps"] = json!(1e-4);
    fs::write(other.path().join("config.json"), config.to_string()).expect("write");
    assert_ne!(base, load(other.path()).expect("valid").fingerprint());
    let device = Device::cpu(CpuOptions::default()).expect("device");
    let source = ModelSource::Folder(folder(&[(SINGLE_FILE, &bytes)]).keep());
    let options = LoadOptions { dtype: Some(DType::BF16), ..LoadOptions::default() };
    let narrowed = Model::load(&device, &source, options).expect("valid");
    assert_eq!(narrowed.config().dtype, DType::BF16);
    assert_ne!(base, narrowed.fingerprint());
    if let ModelSource::Folder(folder) = source {
        fs::remove_dir_all(folder).expect("clean up");
    }
}

#[test]
fn truncation_at_any_length_is_a_typed_error() {
    let bytes = tensors(&shapes());
    let step = bytes.len() / 200 + 1;
    for len in (0..bytes.len()).step_by(step).chain([1, 7, 8, 9, bytes.len() - 1]) {
        match load_error(&[(SINGLE_FILE, &bytes[..len])]) {
            ModelError::BrokenWeights { .. } => {}
            other => panic!("{len} bytes: {other:?}"),
        }
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(load_error(&[(SINGLE_FILE, &longer)]), ModelError::BrokenWeights { .. }));
}

#[test]
fn flipped_header_bytes_never_panic() {
    let bytes = tensors(&shapes());
    let header_len = u64::from_le_bytes(*bytes.first_chunk().expect("length")) as usize;
    for index in 0..8 + header_len {
        for bit in [0, 3, 6] {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << bit;
            let embedded = WeightFile::Embedded(damaged.leak());
            let mut checkpoint = Checkpoint { files: Vec::new(), tensors: HashMap::new() };
            if let Ok(tensors) = checkpoint.add(SINGLE_FILE, embedded) {
                checkpoint.tensors = tensors;
                let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
                for name in names {
                    let _ = checkpoint.tensor(&name).map(|tensor| tensor.map(|tensor| tensor.bytes.len()));
                }
            }
        }
    }
}

#[test]
fn overlaps_gaps_and_overflows_are_broken_weights() {
    let tensor =
        |start: usize, end: usize, len: usize| json!({"dtype": "F32", "shape": [len], "data_offsets": [start, end]});
    for header in [
        json!({"a": tensor(0, 8, 2), "b": tensor(4, 12, 2)}),
        json!({"a": tensor(0, 4, 1), "b": tensor(8, 12, 1)}),
        json!({"a": tensor(0, 12, 2)}),
        json!({"a": tensor(8, 0, 2)}),
        json!({"a": {"dtype": "F32", "shape": [1u64 << 62, 16], "data_offsets": [0, 12]}}),
        json!({"a": {"dtype": "F99", "shape": [3], "data_offsets": [0, 12]}}),
    ] {
        let bytes = file_of(&header.to_string(), &[0; 12]);
        let error = load_error(&[(SINGLE_FILE, &bytes)]);
        assert!(matches!(error, ModelError::BrokenWeights { .. }), "{header}: {error:?}");
    }
    let huge = u64::MAX.to_le_bytes();
    assert!(matches!(load_error(&[(SINGLE_FILE, &huge)]), ModelError::WeightsHeaderTooLarge { .. }));
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    for (index, (removed, _)) in shapes().iter().enumerate() {
        let mut fewer = shapes();
        fewer.remove(index);
        match load_error(&[(SINGLE_FILE, &tensors(&fewer))]) {
            ModelError::MissingTensor { name } => assert_eq!(name, *removed),
            other => panic!("{removed}: {other:?}"),
        }
        let mut other = shapes();
        other[index].1[0] += 1;
        match load_error(&[(SINGLE_FILE, &tensors(&other))]) {
            ModelError::TensorShape { name, expected, got } => {
                assert_eq!((&name, &expected, &got), (removed, &shapes()[index].1, &other[index].1));
            }
            other => panic!("{removed}: {other:?}"),
        }
    }
}

#[test]
fn tensors_that_the_configuration_does_not_know_are_named() {
    for name in ["model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"] {
        let mut more = shapes();
        more.push((name.to_owned(), vec![16]));
        match load_error(&[(SINGLE_FILE, &tensors(&more))]) {
            ModelError::UnexpectedTensor { name: named } => assert_eq!(named, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let mut harmless = shapes();
    harmless.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), vec![4]));
    harmless.push(("score.weight".to_owned(), vec![4]));
    harmless.push(("lm_head.weight".to_owned(), vec![20, 16]));
    load(folder(&[(SINGLE_FILE, &tensors(&harmless))]).path()).expect("nothing that counts was left out");
    harmless.last_mut().expect("tensors").1 = vec![10, 32];
    let error = load_error(&[(SINGLE_FILE, &tensors(&harmless))]);
    assert!(matches!(error, ModelError::TiedTensorDiffers { .. }), "{error:?}");
}

#[test]
fn integer_weights_are_refused_by_name() {
    let mut header = serde_json::Map::new();
    header.insert(
        "model.embed_tokens.weight".into(),
        json!({"dtype": "I32", "shape": [20, 16], "data_offsets": [0, 1280]}),
    );
    match load_error(&[(SINGLE_FILE, &file_of(&Value::Object(header).to_string(), &[0; 1280]))]) {
        ModelError::TensorDType { name, got } => assert_eq!((&*name, &*got), ("model.embed_tokens.weight", "I32")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn shard_names_cannot_leave_the_folder() {
    for name in
        ["../a.safetensors", "/etc/a.safetensors", "x/a.safetensors", "..\\a.safetensors", "a.bin", ".safetensors"]
    {
        let index = json!({"weight_map": {"t": name}}).to_string();
        match load_error(&[(INDEX_FILE, index.as_bytes())]) {
            ModelError::ShardName { name: named } => assert_eq!(named, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let index = json!({"weight_map": {"t": "absent.safetensors"}}).to_string();
    assert!(matches!(load_error(&[(INDEX_FILE, index.as_bytes())]), ModelError::Kernel(_)));
    let index = json!({"weight_map": {"t": "a.safetensors"}}).to_string();
    let error = load_error(&[(INDEX_FILE, index.as_bytes()), ("a.safetensors", &tensors(&shapes()))]);
    assert!(matches!(error, ModelError::MissingTensor { name } if name == "t"));
    assert!(matches!(load_error(&[(INDEX_FILE, b"{}")]), ModelError::Json { .. }));
}

#[test]
fn a_folder_without_safetensors_says_what_is_missing() {
    assert!(matches!(load_error(&[]), ModelError::MissingFile { file: SINGLE_FILE, .. }));
    let error = load_error(&[("pytorch_model.bin", b"")]);
    assert!(matches!(error, ModelError::PickledWeights { found: "pytorch_model.bin", .. }));
    let empty = tempfile::tempdir().expect("temporary folder");
    assert!(matches!(load(empty.path()), Err(ModelError::MissingFile { file: "config.json", .. })));
    assert!(matches!(load(&empty.path().join("nowhere")), Err(ModelError::MissingFile { .. })));
}
