//! Prints what this crate's parts cost: loading and naming a 134M-parameter model, and choosing a token from 151,936.
//!
//! `cargo run --release -p models --example figures`

use std::time::{Duration, Instant};

use kernels::{CpuOptions, DType, Device};
use models::{
    ChatInput, ChatTemplate, Continuation, LoadFormat, LoadOptions, Model, ModelSource, Sampler, SamplingParams,
    log_softmax_top,
};
use serde_json::json;

/// The shape of SmolLM-135M.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 576,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
    "torch_dtype": "bfloat16"}"#;
const VOCAB_SIZE: usize = 151_936;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::cpu(CpuOptions::default())?;
    println!("{}", device.describe());
    let folder = std::env::temp_dir().join(format!("models-figures-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("config.json"), CONFIG)?;
    let source = ModelSource::Folder(folder.clone());
    let start = Instant::now();
    let options = LoadOptions { format: LoadFormat::Dummy { seed: 1 }, ..LoadOptions::default() };
    let model = Model::load(&device, &source, options)?;
    report("dummy model, 134M parameters, bf16", start.elapsed());
    drop(model);
    std::fs::write(folder.join("model.safetensors"), checkpoint())?;
    for label in ["first", "second"] {
        let start = Instant::now();
        Model::load(&device, &source, LoadOptions::default())?;
        report(&format!("checkpoint, 269 MB: map, check, pack, fingerprint ({label})"), start.elapsed());
    }
    let bytes = std::fs::read(folder.join("model.safetensors"))?;
    let start = Instant::now();
    std::hint::black_box(blake3::hash(&bytes));
    report("of these: BLAKE3 of 269 MB on one thread", start.elapsed());
    std::fs::remove_dir_all(&folder)?;
    sampling()?;
    template()
}

/// A checkpoint of the shape with arbitrary small weights.
fn checkpoint() -> Vec<u8> {
    let mut shapes =
        vec![("model.embed_tokens.weight".to_owned(), vec![49_152, 576]), ("model.norm.weight".to_owned(), vec![576])];
    for layer in 0..30 {
        for (name, shape) in [
            ("self_attn.q_proj", vec![576, 576]),
            ("self_attn.k_proj", vec![192, 576]),
            ("self_attn.v_proj", vec![192, 576]),
            ("self_attn.o_proj", vec![576, 576]),
            ("mlp.gate_proj", vec![1536, 576]),
            ("mlp.up_proj", vec![1536, 576]),
            ("mlp.down_proj", vec![576, 1536]),
            ("input_layernorm", vec![576]),
            ("post_attention_layernorm", vec![576]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let start = end;
        end += shape.iter().product::<usize>() * DType::BF16.size_bytes();
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend((0..end).map(|index| if index % 2 == 0 { (index / 2 * 31 % 256) as u8 } else { 0x3c }));
    bytes
}

fn sampling() -> Result<(), Box<dyn std::error::Error>> {
    let logits: Vec<f32> =
        (0..VOCAB_SIZE as u32).map(|id| (id.wrapping_mul(2_654_435_761) >> 8) as f32 / 1_048_576.0 - 8.0).collect();
    let base = || SamplingParams { seed: Some(1), ..SamplingParams::default() };
    for (name, params) in [
        ("greedy", SamplingParams::greedy()),
        ("temperature 1", base()),
        ("top_k 20", SamplingParams { top_k: Some(20), ..base() }),
        ("top_k 1000", SamplingParams { top_k: Some(1000), ..base() }),
        ("top_p 0.9", SamplingParams { top_p: 0.9, ..base() }),
        ("top_k 20, top_p 0.95", SamplingParams { top_k: Some(20), top_p: 0.95, ..base() }),
        ("min_p 0.05", SamplingParams { min_p: 0.05, ..base() }),
    ] {
        let mut sampler = Sampler::new(params, &[], VOCAB_SIZE)?;
        let start = Instant::now();
        for _ in 0..100 {
            std::hint::black_box(sampler.sample(&logits)?);
        }
        report(&format!("sample, {VOCAB_SIZE} tokens, {name}"), start.elapsed() / 100);
    }
    let start = Instant::now();
    for _ in 0..100 {
        std::hint::black_box(log_softmax_top(&logits, 5, 20));
    }
    report("log-probabilities, top 20", start.elapsed() / 100);
    Ok(())
}

fn template() -> Result<(), Box<dyn std::error::Error>> {
    let text = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{% endfor %}";
    let template = ChatTemplate::from_text(text, &ModelSource::Folder(std::env::temp_dir()))?;
    let messages: Vec<_> = (0..1000).map(|_| json!({"role": "user", "content": "word ".repeat(100)})).collect();
    let (messages, kwargs) = (json!(messages), serde_json::Map::new());
    let start = Instant::now();
    let input = ChatInput {
        messages: &messages,
        tools: None,
        add_generation_prompt: Continuation::AssistantTurn,
        kwargs: &kwargs,
    };
    let len = template.render(&input)?.len();
    report(&format!("chat template, 1000 messages, {len} bytes"), start.elapsed());
    Ok(())
}

fn report(what: &str, time: Duration) {
    println!("{:>10.3} ms  {what}", time.as_secs_f64() * 1e3);
}
