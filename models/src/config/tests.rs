//! Configurations as both versions of transformers write them, and every way in which they can be wrong.

use serde_json::{Value, json};

use super::*;
use crate::RopeScaling;

/// A valid Llama configuration with some fields replaced; null removes one.
fn llama(changes: Value) -> Value {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 100, "hidden_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
    });
    let fields = config.as_object_mut().expect("object");
    for (name, value) in changes.as_object().expect("object") {
        if value == "remove" {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    config
}

fn parse(config: &Value) -> Result<ModelConfig, ModelError> {
    ModelConfig::parse(config.to_string().as_bytes())
}

fn invalid_field(config: &Value) -> &'static str {
    match parse(config) {
        Err(ModelError::InvalidField { name, .. } | ModelError::MissingField { name, .. }) => name,
        Err(ModelError::InconsistentFields { name, .. }) => name,
        other => panic!("{config}: {other:?}"),
    }
}

#[test]
fn transformers_4_and_5_spell_the_same_model() {
    let four = parse(&llama(json!({"rope_scaling": {"type": "linear", "factor": 2.0}}))).expect("valid");
    let five = llama(json!({"torch_dtype": "remove", "rope_theta": "remove", "dtype": "bfloat16",
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}));
    let five = parse(&five).expect("valid");
    assert_eq!(format!("{four:?}"), format!("{five:?}"));
    assert_eq!(four.dtype, DType::BF16);
    assert_eq!(four.rope.scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn what_is_absent_or_null_gets_the_family_default() {
    let config = llama(json!({"num_key_value_heads": "remove", "head_dim": null, "rope_scaling": null,
        "torch_dtype": "remove", "tie_word_embeddings": "remove", "eos_token_id": [2, 5], "unheard_of": {"a": 1}}));
    let config = parse(&config).expect("valid");
    assert_eq!((config.num_kv_heads, config.head_dim, config.tie_word_embeddings), (4, 16, false));
    assert_eq!((config.dtype, config.eos_token_ids.as_slice()), (DType::F32, &[2, 5][..]));
    assert_eq!((config.qkv_bias, config.mlp_bias, config.qk_norm), (Bias::Absent, Bias::Absent, QkNorm::Absent));
    assert_eq!(config.layer_windows, [None, None]);
}

#[test]
fn mistral_slides_in_every_layer_unless_the_window_is_null() {
    let mistral = |window: Value| {
        let config = llama(json!({"architectures": ["MistralForCausalLM"], "sliding_window": window}));
        parse(&config).expect("valid")
    };
    assert_eq!(mistral(json!(64)).layer_windows, [Some(64), Some(64)]);
    assert_eq!(mistral(json!(64)).sliding_window, Some(64));
    assert_eq!(mistral(json!(null)).layer_windows, [None, None]);
    assert_eq!(mistral(json!("remove")).layer_windows, [Some(4096), Some(4096)]);
}

#[test]
fn qwen2_slides_from_max_window_layers_on_and_has_qkv_biases() {
    let qwen = |changes: Value| {
        let mut config = llama(json!({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 32,
            "max_window_layers": 1}));
        config.as_object_mut().expect("object").extend(changes.as_object().expect("object").clone());
        parse(&config)
    };
    let config = qwen(json!({"use_sliding_window": false})).expect("valid");
    assert_eq!((config.layer_windows.as_slice(), config.sliding_window), (&[None, None][..], None));
    assert_eq!((config.qkv_bias, config.output_bias), (Bias::Present, Bias::Absent));
    let config = qwen(json!({"use_sliding_window": true})).expect("valid");
    assert_eq!((config.layer_windows.as_slice(), config.sliding_window), (&[None, Some(32)][..], None));
    let types = json!(["sliding_attention", "full_attention"]);
    let config = qwen(json!({"use_sliding_window": true, "layer_types": types})).expect("valid");
    assert_eq!(config.layer_windows, [Some(32), None]);
    let error = qwen(json!({"use_sliding_window": false, "layer_types": types})).expect_err("no window");
    assert!(matches!(error, ModelError::InvalidField { name: "sliding_window", .. }), "{error}");
    let error = qwen(json!({"layer_types": ["full_attention"]})).expect_err("too short");
    assert!(matches!(error, ModelError::InconsistentFields { value: 1, other: 2, .. }), "{error}");
    let error = qwen(json!({"layer_types": ["full_attention", "chunked_attention"]})).expect_err("unknown");
    assert!(matches!(error, ModelError::Unsupported { name: "layer_types", .. }), "{error}");
}

#[test]
fn qwen3_has_its_own_head_size_and_head_norms() {
    let config = parse(&llama(json!({"architectures": ["Qwen3ForCausalLM"]}))).expect("valid");
    assert_eq!((config.head_dim, config.qk_norm, config.qkv_bias), (128, QkNorm::PerHead, Bias::Absent));
    let config = llama(json!({"architectures": ["Qwen3ForCausalLM"], "head_dim": 32, "hidden_size": 50,
        "attention_bias": true}));
    let config = parse(&config).expect("the hidden size need not be a multiple of the heads");
    assert_eq!((config.head_dim, config.qkv_bias, config.output_bias), (32, Bias::Present, Bias::Present));
}

#[test]
fn an_unknown_architecture_is_named_with_the_supported_ones() {
    for architecture in ["GPT2LMHeadModel", "", "llamaforcausallm"] {
        match parse(&llama(json!({"architectures": [architecture]}))) {
            Err(ModelError::UnknownArchitecture { architecture: named, supported }) => {
                assert_eq!(named, architecture);
                assert_eq!(supported, "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM");
            }
            other => panic!("{other:?}"),
        }
    }
    let by_type = parse(&llama(json!({"architectures": "remove", "model_type": "qwen3"}))).expect("valid");
    assert_eq!(by_type.family.name, "qwen3");
}

#[test]
fn what_would_be_computed_wrong_is_refused() {
    for (name, changes) in [
        ("hidden_act", json!({"hidden_act": "gelu"})),
        ("partial_rotary_factor", json!({"partial_rotary_factor": 0.5})),
        ("quantization_config.quant_method", json!({"quantization_config": {"quant_method": "gptq"}})),
        ("rope_type", json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}})),
        ("rope_parameters", json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}})),
    ] {
        match parse(&llama(changes)) {
            Err(ModelError::Unsupported { name: named, .. }) => assert_eq!(named, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let error = parse(&llama(json!({"torch_dtype": "float8_e4m3fn"}))).expect_err("no such type");
    assert!(matches!(error, ModelError::UnknownDType { name: "torch_dtype", .. }), "{error}");
}

#[test]
fn senseless_sizes_are_named() {
    for (name, value) in [
        ("vocab_size", json!(0)),
        ("vocab_size", json!(-5)),
        ("vocab_size", json!(1u64 << 40)),
        ("hidden_size", json!("64")),
        ("hidden_size", json!(64.5)),
        ("hidden_size", json!("remove")),
        ("hidden_size", json!(66)),
        ("num_hidden_layers", json!(1e30)),
        ("num_hidden_layers", json!(0)),
        ("num_attention_heads", json!(null)),
        ("num_key_value_heads", json!(0)),
        ("intermediate_size", json!(u64::MAX)),
        ("head_dim", json!(7)),
        ("head_dim", json!(0)),
        ("rms_norm_eps", json!(0.0)),
        ("rms_norm_eps", json!(2.0)),
        ("max_position_embeddings", json!(0)),
        ("tie_word_embeddings", json!("yes")),
        ("eos_token_id", json!("</s>")),
        ("eos_token_id", json!([1, -1])),
        ("architectures", json!("LlamaForCausalLM")),
        ("rope_scaling", json!(4.0)),
    ] {
        let mut changes = json!({});
        changes[name] = value;
        assert_eq!(invalid_field(&llama(changes)), name);
    }
    assert_eq!(invalid_field(&llama(json!({"num_key_value_heads": 3}))), "num_attention_heads");
    assert_eq!(invalid_field(&json!([1, 2])), "the file");
    assert!(matches!(ModelConfig::parse(b"{\"a\": "), Err(ModelError::Json { .. })));
    assert!(matches!(ModelConfig::parse(b"\xff\xfe"), Err(ModelError::Json { .. })));
}

#[test]
fn yarn_extends_the_context_and_other_kinds_do_not() {
    let context = |scaling: Value| parse(&llama(json!({"rope_scaling": scaling}))).expect("valid").context_len();
    assert_eq!(context(json!(null)), 512);
    assert_eq!(context(json!({"type": "linear", "factor": 4.0})), 512);
    assert_eq!(context(json!({"type": "yarn", "factor": 4.0})), 2048);
    assert_eq!(context(json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128})), 512);
}

#[test]
fn random_damage_never_panics() {
    let text = llama(json!({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
        "high_freq_factor": 4}}))
    .to_string()
    .into_bytes();
    let mut state = 0x5eed_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    let mut num_valid = 0;
    for _ in 0..5000 {
        let mut damaged = text.clone();
        for _ in 0..=next() % 3 {
            let index = next() % damaged.len();
            damaged[index] = b"0123456789-.,\"{}[]entf"[next() % 22];
        }
        num_valid += usize::from(ModelConfig::parse(&damaged).is_ok());
    }
    assert!(num_valid > 0 && num_valid < 5000, "{num_valid} of 5000 were valid");
}
