//! Frequencies and angles against values that transformers 5.23 computes (`LlamaRotaryEmbedding`, head_dim 16).

use kernels::CpuOptions;
use serde_json::{Value, json};

use super::*;

fn read(config: Value) -> Result<RopeConfig, ModelError> {
    RopeConfig::read(&Fields::new("config.json", "the file", &config)?, 16, 1024)
}

fn assert_close(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        let error = (f64::from(*got) - expected).abs();
        assert!(error <= tolerance * expected.abs(), "{got} is not {expected}");
    }
}

#[test]
fn linear_frequencies_are_those_of_transformers() {
    let rope = read(json!({"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 10000.0})).expect("valid");
    let expected = [
        0.25,
        0.07905694097280502,
        0.02500000037252903,
        0.007905694656074047,
        0.0024999999441206455,
        0.0007905694656074047,
        0.0002500000118743628,
        7.905694656074047e-05,
    ];
    assert_close(&rope.inverse_frequencies(), &expected, 1e-7);
}

#[test]
fn llama3_frequencies_are_those_of_transformers() {
    let parameters = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128, "rope_theta": 500000.0});
    let expected = [
        1.0,
        0.1911264955997467,
        0.004700753837823868,
        0.0009115831344388425,
        0.00017677668074611574,
        3.428102354519069e-05,
        6.647869668086059e-06,
        1.289173155782919e-06,
    ];
    let from_5 = read(json!({"rope_parameters": parameters})).expect("valid");
    assert_close(&from_5.inverse_frequencies(), &expected, 2e-7);
    let from_4 = read(json!({"rope_scaling": parameters, "rope_theta": 500000.0})).expect("valid");
    assert_eq!(from_5, from_4);
}

#[test]
fn yarn_frequencies_and_attention_factor_are_those_of_transformers() {
    let rope = read(json!({"rope_parameters": {"rope_type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 256, "rope_theta": 10000.0}}))
    .expect("valid");
    let expected = [
        1.0,
        0.2569350600242615,
        0.0625,
        0.013834965415298939,
        0.0024999999441206455,
        0.0007905694656074047,
        0.0002500000118743628,
        7.905694656074047e-05,
    ];
    assert_close(&rope.inverse_frequencies(), &expected, 2e-7);
    assert!((rope.attention_factor() - 1.138629436111989).abs() < 1e-12);
    assert_eq!(rope.scaled_context_len(), Some(1024));
}

#[test]
fn yarn_with_every_option_is_that_of_transformers() {
    let rope = read(json!({"rope_parameters": {"rope_type": "yarn", "factor": 40.0,
        "original_max_position_embeddings": 64, "rope_theta": 10000.0, "mscale": 1.0, "mscale_all_dim": 0.707,
        "beta_fast": 16, "beta_slow": 2, "truncate": false}}))
    .expect("valid");
    let expected = [
        1.0,
        0.0981689840555191,
        0.0024999999441206455,
        0.0007905694656074047,
        0.0002500000118743628,
        7.905694656074047e-05,
        2.499999936844688e-05,
        7.905694474175107e-06,
    ];
    assert_close(&rope.inverse_frequencies(), &expected, 2e-7);
    assert!((rope.attention_factor() - 1.0857263992561355).abs() < 1e-12);
}

#[test]
fn an_explicit_attention_factor_wins_over_the_inferred_one() {
    let rope = read(json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5}}));
    assert_eq!(rope.expect("valid").attention_factor(), 1.5);
}

#[test]
fn the_table_holds_the_cosines_of_transformers_at_every_split_of_threads() {
    let rope = read(json!({"rope_theta": 10000.0})).expect("valid");
    let frequencies = rope.inverse_frequencies();
    let angles: Vec<f32> = frequencies.iter().map(|frequency| 777.0 * frequency).collect();
    let expected = [
        -0.5177181959152222,
        0.7870758771896362,
        -0.6676029562950134,
        0.8462746143341064,
        0.08388296514749527,
        -0.7747335433959961,
        0.7130201458930969,
        0.9699651002883911,
    ];
    assert_close(&angles.iter().map(|angle| angle.cos()).collect::<Vec<_>>(), &expected, 2e-4);
    for threads in [1, 3] {
        let options = CpuOptions { num_threads: std::num::NonZeroUsize::new(threads), ..CpuOptions::default() };
        let device = Device::cpu(options).expect("device");
        let table = rope.table(&device, 10).expect("table");
        assert_eq!((table.max_positions(), table.half_dim()), (10, 8));
    }
}

#[test]
fn unknown_kinds_and_wrong_values_are_refused_by_name() {
    for kind in ["dynamic", "longrope", "su", "mrope"] {
        match read(json!({"rope_scaling": {"type": kind, "factor": 2.0}})) {
            Err(ModelError::Unsupported { name: "rope_type", value, .. }) => assert_eq!(value, kind),
            other => panic!("{kind}: {other:?}"),
        }
    }
    for (name, config) in [
        ("factor", json!({"rope_scaling": {"type": "linear", "factor": 0.5}})),
        ("factor", json!({"rope_scaling": {"type": "linear", "factor": -2}})),
        ("rope_theta", json!({"rope_theta": 0})),
        ("rope_theta", json!({"rope_theta": "big"})),
        (
            "high_freq_factor",
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
            "high_freq_factor": 4}}),
        ),
        ("beta_fast", json!({"rope_scaling": {"rope_type": "yarn", "factor": 8, "beta_fast": 1, "beta_slow": 32}})),
    ] {
        match read(config) {
            Err(ModelError::InvalidField { name: named, .. }) => assert_eq!(named, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let missing = read(json!({"rope_scaling": {"type": "linear"}}));
    assert!(matches!(missing, Err(ModelError::MissingField { name: "factor", .. })), "{missing:?}");
}

#[test]
fn a_change_of_position_turns_by_the_frequencies_of_each_kind_and_has_no_amplitude() {
    let kinds = [
        json!({"rope_theta": 10000.0}),
        json!({"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 10000.0}),
        json!({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 500000.0}}),
        json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}),
    ];
    for config in kinds {
        let rope = read(config.clone()).expect("valid");
        for delta in [-1000i64, -1, 0, 1, 17, 999] {
            let angles: Vec<f64> = rope.inverse_frequencies().iter().map(|f| delta as f64 * f64::from(*f)).collect();
            let of = |part: fn(f64) -> f64| angles.iter().map(|angle| part(*angle) as f32).collect();
            let expected = KeyRotation::new(of(f64::cos), of(f64::sin)).expect("pairs");
            assert_eq!(rope.key_rotation(delta).expect("a rotation"), expected, "{config} by {delta}");
        }
    }
}

#[test]
fn kinds_whose_frequencies_depend_on_the_length_are_refused_before_any_key_could_move() {
    for (kind, more) in [
        ("dynamic", json!({"factor": 2.0})),
        ("longrope", json!({"short_factor": [1.0], "long_factor": [2.0], "original_max_position_embeddings": 64})),
        ("su", json!({"short_factor": [1.0], "long_factor": [2.0]})),
    ] {
        for name in ["rope_type", "type"] {
            let mut scaling = more.clone();
            scaling[name] = json!(kind);
            let error = read(json!({"rope_scaling": scaling})).expect_err(kind);
            assert!(matches!(error, ModelError::Unsupported { name: "rope_type", value, .. } if value == kind));
        }
    }
}
