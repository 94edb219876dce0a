"""Makes random tiny checkpoints of every model family and their reference logits with Hugging Face transformers.

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/python make_reference.py

Each case becomes a folder below `cases/`: a checkpoint as transformers writes it, and `reference.safetensors` with, for each
prompt `i`, `tokens.i` (prompt, then the greedy continuation), `rows.i` (positions in `tokens.i`) and `logits.i`
[num_rows, vocab_size]. References come from the stored files, reloaded and widened to float32, with eager attention and no cache.
`prompt_len` is in the metadata. The script fails when a greedy step is decided by less than MARGIN, or when the feature that
a case is there for (a window, a scaling, a bias) does not change the logits.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

CASES = Path(__file__).resolve().parent / "cases"
PROMPT_LENS = (1, 2, 17, 100, 333)
NUM_GREEDY = 24
MARGIN = 1e-2
FEATURE_EFFECT = 0.1
MAX_TOTAL_BYTES = 4_000_000


@dataclass
class Case:
    """One checkpoint. `without` undoes the feature under test, to prove that it matters."""

    name: str
    config: object
    dtype: torch.dtype = torch.float32
    style: str = "v5"
    shard_bytes: int | None = None
    without: dict = field(default_factory=dict)


BASE = dict(
    vocab_size=160,
    hidden_size=40,
    intermediate_size=72,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=1,
    eos_token_id=2,
)


def shape(**changes):
    """The common tiny shape; widths that are no multiple of a vector register are on purpose."""
    return {**BASE, "head_dim": 16, **changes}


def qwen2_shape(**changes):
    """Qwen2 has no head_dim of its own."""
    return {**BASE, "hidden_size": 48, "num_attention_heads": 6, **changes}


def rope(rope_type, theta=10000.0, **parameters):
    return {"rope_type": rope_type, "rope_theta": theta, **parameters}


LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
UNSCALED = {"rope_parameters": rope("default")}


def all_cases():
    return [
        Case("llama", LlamaConfig(**shape(hidden_size=64, vocab_size=200)), without={"rms_norm_eps": 1.0}),
        Case(
            "llama-three-layers-v4",
            LlamaConfig(**shape(num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=1, hidden_size=48, head_dim=8)),
            dtype=torch.bfloat16,
            style="v4",
            without={"rope_parameters": rope("default", 100.0)},
        ),
        Case(
            "llama-llama3",
            LlamaConfig(**shape(rope_parameters=rope("llama3", 500000.0, **LLAMA3))),
            without={"rope_parameters": rope("default", 500000.0)},
        ),
        Case(
            "llama-llama3-v4",
            LlamaConfig(**shape(hidden_size=64, rope_parameters=rope("llama3", **LLAMA3), tie_word_embeddings=True)),
            dtype=torch.bfloat16,
            style="v4",
            without=UNSCALED,
        ),
        Case(
            "llama-linear-v4",
            LlamaConfig(**shape(rope_parameters=rope("linear", factor=4.0))),
            style="v4-type",
            without=UNSCALED,
        ),
        Case(
            "llama-yarn",
            LlamaConfig(**shape(head_dim=32, rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=64))),
            dtype=torch.float16,
            without=UNSCALED,
        ),
        Case(
            "llama-yarn-options",
            LlamaConfig(
                **shape(
                    rope_parameters=rope(
                        "yarn",
                        factor=4.0,
                        original_max_position_embeddings=128,
                        beta_fast=16.0,
                        beta_slow=2.0,
                        attention_factor=1.3,
                        truncate=False,
                    ),
                )
            ),
            without={"rope_parameters": rope("yarn", factor=4.0, original_max_position_embeddings=128, attention_factor=1.3)},
        ),
        Case(
            "llama-yarn-mscale-v4",
            LlamaConfig(
                **shape(
                    rope_parameters=rope(
                        "yarn", factor=8.0, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=0.4
                    )
                )
            ),
            dtype=torch.bfloat16,
            style="v4",
            without={"rope_parameters": rope("yarn", factor=8.0, original_max_position_embeddings=64)},
        ),
        Case(
            "llama-tied-bias",
            LlamaConfig(**shape(tie_word_embeddings=True, attention_bias=True)),
            dtype=torch.float16,
            without={"attention_bias": False},
        ),
        Case("llama-sharded", LlamaConfig(**shape(head_dim=24)), shard_bytes=30_000, without={"rms_norm_eps": 1.0}),
        Case(
            "mistral-window",
            MistralConfig(**shape(head_dim=8, num_key_value_heads=4, sliding_window=32)),
            without={"sliding_window": None},
        ),
        Case(
            "mistral-window-v4",
            MistralConfig(**shape(hidden_size=64, sliding_window=50)),
            dtype=torch.bfloat16,
            style="v4",
            without={"sliding_window": None},
        ),
        Case(
            "mistral",
            MistralConfig(**shape(sliding_window=None, rope_parameters=rope("default", 1000000.0))),
            dtype=torch.bfloat16,
            without=UNSCALED,
        ),
        Case(
            "qwen2-v4",
            Qwen2Config(**qwen2_shape(tie_word_embeddings=True, rope_parameters=rope("default", 1000000.0))),
            dtype=torch.bfloat16,
            style="v4",
            without=UNSCALED,
        ),
        Case(
            "qwen2-window-v4",
            Qwen2Config(**qwen2_shape(num_hidden_layers=3, use_sliding_window=True, sliding_window=24, max_window_layers=1)),
            style="v4",
            without={"layer_types": ["full_attention"] * 3},
        ),
        Case(
            "qwen2-window",
            Qwen2Config(
                **qwen2_shape(
                    num_hidden_layers=3,
                    use_sliding_window=True,
                    sliding_window=40,
                    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                    rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=128),
                )
            ),
            dtype=torch.bfloat16,
            without={"layer_types": ["full_attention"] * 3},
        ),
        Case(
            "qwen3",
            Qwen3Config(**shape(head_dim=32, hidden_size=48, rope_parameters=rope("default", 1000000.0))),
            without=UNSCALED,
        ),
        Case(
            "qwen3-v4",
            Qwen3Config(**shape(head_dim=64, tie_word_embeddings=True)),
            dtype=torch.bfloat16,
            style="v4",
            without={"rope_parameters": rope("default", 100.0)},
        ),
        Case(
            "qwen3-yarn-sharded",
            Qwen3Config(
                **shape(head_dim=24, rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=128))
            ),
            dtype=torch.bfloat16,
            shard_bytes=20_000,
            without=UNSCALED,
        ),
    ]


def randomize(model, generator):
    """Weights large enough that attention is peaked and logits of different tokens are far apart."""
    tied = model.config.tie_word_embeddings
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter.shape[-1]
        if name.endswith("bias"):
            value = 0.3 * noise
        elif tied and name == "model.norm.weight":
            value = noise  # of both signs: otherwise a tied model repeats the token it has just read
        elif "norm" in name:
            value = 1.0 + 0.3 * noise
        elif "embed_tokens" in name:
            value = noise * (3.0 / fan_in**0.5 if tied else 1.0)
        elif "lm_head" in name:
            value = noise * 3.0 / fan_in**0.5
        elif "q_proj" in name or "k_proj" in name:
            value = noise * 1.5 / fan_in**0.5
        else:
            value = noise / fan_in**0.5
        parameter.data.copy_(value)


def as_transformers_4(config, style):
    """Rewrites a config.json as transformers 4 did; `v4-type` uses the still older key `type`."""
    parameters = dict(config.pop("rope_parameters"))
    config["rope_theta"] = parameters.pop("rope_theta")
    rope_type = parameters.pop("rope_type")
    key = "type" if style == "v4-type" else "rope_type"
    config["rope_scaling"] = None if rope_type == "default" else {key: rope_type, **parameters}
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.44.2"
    config.pop("layer_types", None)
    if config.get("head_dim") == config["hidden_size"] // config["num_attention_heads"]:
        config.pop("head_dim")
    return config


def write_checkpoint(case, folder, seed):
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_config(case.config, attn_implementation="eager")
    randomize(model, torch.Generator().manual_seed(seed))
    limits = {"max_shard_size": case.shard_bytes} if case.shard_bytes else {}
    model.to(case.dtype).save_pretrained(folder, **limits)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case.style != "v5":
        path = folder / "config.json"
        config = as_transformers_4(json.loads(path.read_text()), case.style)
        path.write_text(json.dumps(config, indent=2) + "\n")


def reload(folder, **overrides):
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True, **overrides
    )
    return model.eval()


@torch.inference_mode()
def logits_of(model, tokens):
    """Float32 logits [num_tokens, vocab_size] of one sequence, computed whole, without a cache."""
    return model(torch.tensor([tokens]), use_cache=False).logits[0]


def greedy(model, prompt):
    """The greedy continuation and the smallest distance between best and second-best logit on the way."""
    tokens, margin = list(prompt), float("inf")
    for _ in range(NUM_GREEDY):
        best = logits_of(model, tokens)[-1].topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        tokens.append(int(best.indices[0]))
    return tokens, margin


def clear_prompt(model, prompt_len, seed):
    """The first random prompt, in order of seed, whose greedy continuation is decided by at least MARGIN at every step."""
    vocab_size = model.config.vocab_size
    for attempt in range(200):
        generator = torch.Generator().manual_seed(seed + 7919 * attempt)
        prompt = torch.randint(3, vocab_size, (prompt_len,), generator=generator).tolist()
        tokens, margin = greedy(model, prompt)
        if margin >= MARGIN:
            return tokens, margin
    raise SystemExit(f"no prompt of {prompt_len} tokens has a clear greedy continuation")


def selected_rows(prompt_len, num_tokens):
    """Positions whose logits are stored: in the prompt, its last, and among the generated ones."""
    last = num_tokens - 2
    rows = {0, prompt_len // 3, prompt_len // 2, 2 * prompt_len // 3, prompt_len - 1, (prompt_len + last) // 2, last}
    return sorted(rows)


def make_case(case, seed):
    folder = CASES / case.name
    write_checkpoint(case, folder, seed)
    model = reload(folder)
    stored, lens, margins, kinds = {}, [], [], set()
    for index, prompt_len in enumerate(PROMPT_LENS):
        tokens, margin = clear_prompt(model, prompt_len, 1000 * seed + index)
        rows = selected_rows(prompt_len, len(tokens))
        stored[f"tokens.{index}"] = torch.tensor(tokens, dtype=torch.int64)
        stored[f"rows.{index}"] = torch.tensor(rows, dtype=torch.int64)
        stored[f"logits.{index}"] = logits_of(model, tokens)[rows].contiguous()
        lens.append(prompt_len)
        margins.append(margin)
        kinds.update(tokens[prompt_len:])
    metadata = {"prompt_len": json.dumps(lens), "num_greedy": str(NUM_GREEDY), "margin": f"{min(margins):.4f}"}
    save_file(stored, folder / "reference.safetensors", metadata=metadata)
    effect = effect_of_feature(case, folder, model, tokens)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{case.name:24} margin {min(margins):.3f}  greedy kinds {len(kinds):3}  feature effect {effect:7.3f}  {size:7} bytes")
    return size


def effect_of_feature(case, folder, model, tokens):
    """How much the last row's logits change when the feature under test is switched off."""
    effect = float((logits_of(model, tokens)[-1] - logits_of(reload(folder, **case.without), tokens)[-1]).abs().max())
    if effect < FEATURE_EFFECT:
        raise SystemExit(f"{case.name}: undoing {case.without} changes the logits by {effect} only")
    return effect


def main():
    torch.manual_seed(0)
    total = sum(make_case(case, seed) for seed, case in enumerate(all_cases(), start=1))
    print(f"{total} bytes in all")
    if total > MAX_TOTAL_BYTES:
        raise SystemExit(f"more than {MAX_TOTAL_BYTES} bytes")


if __name__ == "__main__":
    main()
