//! Logits and greedy tokens against Hugging Face transformers, and chat templates against its jinja: stored, not recomputed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernels::{DType, Isa};
use memos_tests::paged_model::{PagedModel, PagedOptions, exact_isa};
use memos_tests::reference_case::{ReferenceCase, ReferencePrompt, reference_folder, shared_data_folder};
use memos_tests::{argmax, same_bits, skip};
use models::{ChatInput, ChatTemplate, Continuation, ModelSource, SpecialTokens, Tokenizer};
use serde_json::{Map, Value};

/// Largest difference of a logit from transformers in float32.
const TOLERANCE: f32 = 1e-3;
/// The same when activations are rounded to bf16 before each product, relative to the largest logit.
const BF16_TOLERANCE: f32 = 0.1;

/// Prefills the prompt, decodes greedily, and returns the tokens and the logits of every position.
fn continue_greedily(model: &mut PagedModel, prompt: &ReferencePrompt) -> anyhow::Result<(Vec<u32>, Vec<Vec<f32>>)> {
    let num_blocks = prompt.tokens.len().div_ceil(model.block_size()) as u32;
    let block_table: Vec<u32> = (0..num_blocks).rev().collect();
    let mut tokens = prompt.tokens[..prompt.prompt_len].to_vec();
    let mut logits = model.extend(0, &tokens, &block_table)?;
    while tokens.len() < prompt.tokens.len() {
        tokens.push(argmax(logits.last().expect("a prompt has rows")));
        let start = tokens.len() - 1;
        logits.extend(model.extend(start, &tokens[start..], &block_table)?);
    }
    Ok((tokens, logits))
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len(), "logits of different vocabularies");
    left.iter().zip(right).map(|(l, r)| (l - r).abs()).fold(0.0, f32::max)
}

/// Runs a case with one instruction set; returns the largest difference from transformers and all logits.
fn compare(case: &ReferenceCase, isa: Isa) -> anyhow::Result<(f32, Vec<Vec<f32>>)> {
    let mut model = PagedModel::load(&case.folder, &PagedOptions { isa: Some(isa), ..PagedOptions::default() })?;
    let (mut worst, mut all) = (0.0f32, Vec::new());
    for prompt in &case.prompts {
        let (tokens, logits) = continue_greedily(&mut model, prompt)?;
        assert_eq!(tokens, prompt.tokens, "{}: greedy tokens after {} tokens", case.name, prompt.prompt_len);
        for (&row, expected) in prompt.rows.iter().zip(&prompt.logits) {
            let difference = largest_difference(&logits[row], expected);
            assert!(
                difference < TOLERANCE,
                "{} on {isa}: row {row} of a prompt of {}: {difference}",
                case.name,
                prompt.prompt_len
            );
            worst = worst.max(difference);
        }
        all.extend(logits);
    }
    Ok((worst, all))
}

#[test]
fn every_family_gives_transformers_logits_and_greedy_tokens() -> anyhow::Result<()> {
    let cases = ReferenceCase::all()?;
    assert!(cases.len() >= 19, "only {} cases", cases.len());
    for case in cases {
        let (worst, _) = compare(&case, exact_isa())?;
        println!("{:24} {:3} prompts  max |Δlogit| {worst:.2e}  greedy tokens equal", case.name, case.prompts.len());
    }
    Ok(())
}

#[test]
fn instruction_sets_that_share_a_numerics_id_give_the_same_bits() -> anyhow::Result<()> {
    for name in ["llama-sharded", "mistral-window-v4", "llama-yarn"] {
        let case = ReferenceCase::named(name)?;
        let mut seen: Option<(Isa, Vec<Vec<f32>>)> = None;
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            if !isa.is_available() {
                skip::report("instruction sets", &format!("this processor has no {isa}"));
                continue;
            }
            let (worst, logits) = compare(&case, isa)?;
            println!("{name:24} {isa:10} max |Δlogit| {worst:.2e}");
            if let Some((first, expected)) = &seen {
                let equal = logits.iter().zip(expected).all(|(left, right)| same_bits(left, right));
                assert!(equal && logits.len() == expected.len(), "{name}: {isa} and {first} differ");
            } else {
                seen = Some((isa, logits));
            }
        }
    }
    Ok(())
}

#[test]
fn bf16_dot_products_stay_near_the_reference() -> anyhow::Result<()> {
    if !Isa::Avx512Bf16.is_available() {
        skip::report("AVX-512-BF16 against transformers", "this processor does not have it");
        return Ok(());
    }
    for case in ReferenceCase::all()? {
        let options = PagedOptions { isa: Some(Isa::Avx512Bf16), ..PagedOptions::default() };
        let mut model = PagedModel::load(&case.folder, &options)?;
        let mut worst = 0.0f32;
        for prompt in &case.prompts {
            let num_blocks = prompt.tokens.len().div_ceil(model.block_size()) as u32;
            let block_table: Vec<u32> = (0..num_blocks).collect();
            let logits = model.extend(0, &prompt.tokens, &block_table)?;
            for (&row, expected) in prompt.rows.iter().zip(&prompt.logits) {
                let scale = expected.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
                worst = worst.max(largest_difference(&logits[row], expected) / scale);
            }
        }
        println!("{:24} largest relative difference with bf16 dot products {worst:.2e}", case.name);
        assert!(worst < BF16_TOLERANCE, "{}: {worst}", case.name);
    }
    Ok(())
}

#[test]
fn a_trained_checkpoint_continues_its_story() -> anyhow::Result<()> {
    let folder = shared_data_folder().join("stories260K");
    if !folder.is_dir() {
        skip::report("stories260K", &format!("{} is not there", folder.display()));
        return Ok(());
    }
    let begin = "Once upon a time";
    let expected = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park";
    let tokenizer = Tokenizer::load(&ModelSource::Folder(folder.clone()))?;
    let mut tokens = tokenizer.encode(begin, SpecialTokens::Add)?;
    let options = PagedOptions { kv_dtype: DType::F32, ..PagedOptions::default() };
    let mut model = PagedModel::load(&folder, &options)?;
    let block_table: Vec<u32> = (0..24).collect();
    let mut logits = model.extend(0, &tokens, &block_table)?;
    for _ in 0..200 {
        tokens.push(argmax(logits.last().expect("a prompt has rows")));
        let start = tokens.len() - 1;
        logits = model.extend(start, &tokens[start..], &block_table)?;
    }
    let text = tokenizer.decode(&tokens, models::SpecialText::Skip);
    println!("{text}");
    assert!(text.trim_start().starts_with(expected), "{text}");
    Ok(())
}

/// A folder with nothing but what a chat template needs, in one of the two layouts that transformers writes.
fn template_folder(name: &str, bos: &str, eos: &str) -> anyhow::Result<PathBuf> {
    let template = std::fs::read_to_string(reference_folder().join("templates").join(format!("{name}.jinja")))?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates").join(name);
    std::fs::create_dir_all(&folder)?;
    let file_of_its_own = name.starts_with('c');
    let config = if file_of_its_own {
        std::fs::write(folder.join("chat_template.jinja"), template)?;
        // Older files hold a special token as an object.
        serde_json::json!({"bos_token": {"__type": "AddedToken", "content": bos}, "eos_token": eos})
    } else {
        serde_json::json!({"bos_token": bos, "eos_token": eos, "chat_template": template})
    };
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string())?;
    Ok(folder)
}

fn render(template: &ChatTemplate, entry: &Value) -> Result<String, models::ModelError> {
    let continuation = match entry["prompt"].as_str() {
        Some("assistant_turn") => Continuation::AssistantTurn,
        Some("continue_last") => Continuation::FinalMessage,
        _ => Continuation::Nothing,
    };
    let empty = Map::new();
    template.render(&ChatInput {
        messages: &entry["messages"],
        tools: entry.get("tools").filter(|tools| !tools.is_null()),
        add_generation_prompt: continuation,
        kwargs: entry["kwargs"].as_object().unwrap_or(&empty),
    })
}

#[test]
fn chat_templates_render_as_in_transformers() -> anyhow::Result<()> {
    let stored = std::fs::read_to_string(reference_folder().join("templates.json"))?;
    let stored: Value = serde_json::from_str(&stored)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (bos, eos) = (text(&stored["bos_token"]), text(&stored["eos_token"]));
    let mut templates = BTreeMap::new();
    let mut wrong = Vec::new();
    let entries = stored["entries"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(entries.len() >= 20, "only {} entries", entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let name = text(&entry["template"]);
        if !templates.contains_key(&name) {
            let folder = template_folder(&name, &bos, &eos)?;
            let template = ChatTemplate::load(&ModelSource::Folder(folder))?.expect("the folder has a template");
            templates.insert(name.clone(), template);
        }
        let rendered = render(&templates[&name], entry).map_err(|error| format!("{:#}", anyhow::Error::from(error)));
        let agrees = match (&rendered, entry.get("error")) {
            (Ok(rendered), None) => entry["expected"] == **rendered,
            (Err(message), Some(refusal)) => message.contains(&text(refusal)),
            _ => false,
        };
        if !agrees {
            let expected = entry.get("expected").or(entry.get("error"));
            wrong.push(format!("entry {at}, {name}:\n  expected {expected:?}\n  got      {rendered:?}"));
        }
    }
    println!("{} renderings compared with transformers", entries.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
