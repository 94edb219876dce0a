"""memos, PyTorch (transformers) and llama.cpp on one model shape with random weights: prefill and decode, one table.

    cargo build --release
    python3 -m venv /tmp/compare && CMAKE_ARGS="-DGGML_NATIVE=ON" /tmp/compare/bin/pip install --no-binary llama-cpp-python \\
        -r benches/requirements.txt
    /tmp/compare/bin/python benches/compare.py

Each engine runs in a process of its own, one after the other, round after round, so that a change of the machine's speed
hits all alike; the median of all repetitions counts. One sequence: a prompt of 512 tokens (its last logits included), then
32 single steps. All get the same number of threads and the same shape; the weights are random, as no result depends on them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHAPE = ROOT / "benches" / "shapes" / "smollm-135m"
BINARY = ROOT / "target" / "release" / "memos"
DTYPES = ("bf16", "f32")
ENGINES = ("memos", "torch", "llama.cpp")
CONTEXT_LEN = 1024


def shape():
    return json.loads((SHAPE / "config.json").read_text())


def measured(prefill, decode, arguments, **about):
    """Runs `prefill(tokens)` and `decode(tokens)` repeatedly; the first time is for warming up."""
    import random

    generator = random.Random(arguments.seed)
    vocab_size = shape()["vocab_size"]
    prefill_rates, decode_rates = [], []
    for repetition in range(arguments.repetitions + 1):
        prompt = [generator.randrange(300, vocab_size) for _ in range(arguments.prompt_len)]
        steps = [generator.randrange(300, vocab_size) for _ in range(arguments.decode_len)]
        began = time.perf_counter()
        prefill(prompt)
        between = time.perf_counter()
        decode(steps)
        ended = time.perf_counter()
        if repetition > 0:
            prefill_rates.append(len(prompt) / (between - began))
            decode_rates.append(len(steps) / (ended - between))
    return {"prefill": prefill_rates, "decode": decode_rates, **about}


def measure_memos(arguments, dtype):
    command = [str(BINARY), "bench", "engine", "--model", str(SHAPE), "--load-format", "dummy", "--dtype", dtype]
    command += ["--threads", arguments.threads, "--prompt-len", arguments.prompt_len, "--decode-len", arguments.decode_len]
    command += ["--repetitions", arguments.repetitions, "--seed", arguments.seed, "--json", "-"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"memos failed: {done.stderr}")
    report = json.loads(done.stdout)
    about = f"{report['isa']}, KV {report['details']['kv_dtype']}"
    return {"prefill": [report["prefill_tokens_per_s"]], "decode": [report["decode_tokens_per_s"]], "about": about}


def measure_torch(arguments, dtype):
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    config = AutoConfig.from_pretrained(SHAPE)
    model = AutoModelForCausalLM.from_config(config, dtype=kind, attn_implementation="sdpa").eval()
    cache = {}

    def step(tokens):
        answer = model(torch.tensor([tokens]), past_key_values=cache.get("kv"), use_cache=True, logits_to_keep=1)
        cache["kv"] = answer.past_key_values

    def prefill(prompt):
        cache.clear()
        step(prompt)

    def decode(steps):
        for token in steps:
            step([token])

    with torch.inference_mode():
        about = f"torch {torch.__version__}, transformers {transformers.__version__}, sdpa"
        return measured(prefill, decode, arguments, about=about)


def write_gguf(path, dtype, seed):
    """A GGUF file of the shape with random weights and a vocabulary of placeholders."""
    import gguf
    import numpy as np

    config, generator = shape(), np.random.default_rng(seed)
    hidden, feed_forward = config["hidden_size"], config["intermediate_size"]
    kv_width = config["num_key_value_heads"] * config["head_dim"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    add_placeholder_tokens(writer, config["vocab_size"])
    kind = {"bf16": gguf.GGMLQuantizationType.BF16, "f32": gguf.GGMLQuantizationType.F32}[dtype]
    writer.add_file_type({"bf16": gguf.LlamaFileType.MOSTLY_BF16, "f32": gguf.LlamaFileType.ALL_F32}[dtype])

    def add(name, *dimensions):
        weights = generator.standard_normal(dimensions, dtype=np.float32) * 0.02
        # A row of bf16 values is handed over as its bytes.
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    add("token_embd.weight", config["vocab_size"], hidden)
    writer.add_tensor("output_norm.weight", np.ones(hidden, dtype=np.float32))
    for layer in range(config["num_hidden_layers"]):
        for name, *dimensions in (
            ("attn_q", hidden, hidden),
            ("attn_k", kv_width, hidden),
            ("attn_v", kv_width, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_gate", feed_forward, hidden),
            ("ffn_up", feed_forward, hidden),
            ("ffn_down", hidden, feed_forward),
        ):
            add(f"blk.{layer}.{name}.weight", *dimensions)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(hidden, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_placeholder_tokens(writer, vocab_size):
    """The least that llama.cpp accepts as a vocabulary; no text is tokenised here."""
    import gguf

    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * 256
    num_words = vocab_size - len(tokens)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens + [f"word{number}" for number in range(num_words)])
    writer.add_token_scores([0.0] * vocab_size)
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * num_words)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def measure_llama_cpp(arguments, dtype):
    import llama_cpp

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.gguf"
        write_gguf(path, dtype, arguments.seed)
        model = llama_cpp.Llama(
            str(path),
            n_ctx=CONTEXT_LEN,
            n_batch=arguments.prompt_len,
            n_ubatch=arguments.prompt_len,
            n_threads=arguments.threads,
            n_threads_batch=arguments.threads,
            verbose=False,
        )

        def prefill(prompt):
            model.reset()
            model.eval(prompt)

        def decode(steps):
            for token in steps:
                model.eval([token])

        return measured(prefill, decode, arguments, about=f"llama-cpp-python {llama_cpp.__version__}, KV f16")


MEASURE = {"memos": measure_memos, "torch": measure_torch, "llama.cpp": measure_llama_cpp}


def in_own_process(engine, dtype, arguments):
    command = [sys.executable, __file__, "--engine", engine, "--dtype", dtype, "--threads", arguments.threads]
    command += ["--prompt-len", arguments.prompt_len, "--decode-len", arguments.decode_len]
    command += ["--repetitions", arguments.repetitions, "--seed", arguments.seed]
    threads = str(arguments.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        print(f"SKIPPED: {engine} {dtype}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def gather(arguments):
    """Tokens a second by (engine, dtype, phase), and what each engine says about itself."""
    rates, about = {}, {}
    for round_number in range(arguments.rounds):
        for dtype in DTYPES:
            for engine in ENGINES:
                print(f"round {round_number + 1} of {arguments.rounds}: {engine} {dtype}", file=sys.stderr)
                result = in_own_process(engine, dtype, arguments)
                if result is None:
                    continue
                about[engine, dtype] = result["about"]
                for phase in ("prefill", "decode"):
                    rates.setdefault((engine, dtype, phase), []).extend(result[phase])
    return {key: statistics.median(values) for key, values in rates.items()}, about


def processor():
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    flags = Path("/proc/cpuinfo").read_text()
    found = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{names[0] if names else platform.processor()} ({' '.join(found)})"


def report(rates, about, arguments):
    print(f"\nSmolLM-135M shape, random weights, one sequence, {arguments.threads} threads on {processor()}")
    print(f"tokens/s, medians of {arguments.rounds} rounds; load average {os.getloadavg()[0]:.1f} at the end\n")
    print("| | memos | PyTorch | llama.cpp | memos / PyTorch | memos / llama.cpp |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for dtype in DTYPES:
        for phase, num_tokens in (("prefill", arguments.prompt_len), ("decode", arguments.decode_len)):
            values = [rates.get((engine, dtype, phase)) for engine in ENGINES]
            shown = [f"{value:.1f}" if value else "-" for value in values]
            ratios = [f"{values[0] / value:.2f}" if values[0] and value else "-" for value in values[1:]]
            print(f"| {phase} {num_tokens}, {dtype} | {' | '.join(shown + ratios)} |")
    print()
    for (engine, dtype), words in sorted(about.items()):
        print(f"{engine} {dtype}: {words}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prompt-len", type=int, default=512)
    parser.add_argument("--decode-len", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=5, help="measured ones in each process, after one to warm up")
    parser.add_argument("--rounds", type=int, default=2, help="how often all engines are run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=ENGINES, help="measure one engine and print JSON (used by the script itself)")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(MEASURE[arguments.engine](arguments, arguments.dtype)))
        return
    rates, about = gather(arguments)
    report(rates, about, arguments)
    if any((ours, dtype, "decode") not in rates for ours in ("memos",) for dtype in DTYPES):
        sys.exit(1)


if __name__ == "__main__":
    main()
