"""Trains the bundled model on generated chats and exports it.

The learning rate warms up, stays, and falls to zero over the last share of the minutes given, so
that a run can be cut to the time at hand: resume any checkpoint of the stable part with
`--decay-share 1` to finish it. A terminated run saves itself first. Batches depend only on the seed,
the step and their size.
"""

import argparse
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset

from corpus import Kind, Recipe, Wordings, make_chat
from llama import Llama, LlamaShape, export
from muon import Muon
from packing import ChatEncoder, Rows, pack
from tokenizer import END, END_OF_TEXT
from vocabulary import Split

MODEL_FOLDER = Path(__file__).parent / "model"
WARMUP_STEPS = 30
GRADIENT_NORM_MAX = 1.0
# Llama has no norm on queries and keys. At 0.02 without decay the attention logits grew until every
# head looked at one token alone, and learning stalled.
MUON_RATE = 0.008
MUON_WEIGHT_DECAY = 0.1
ADAM_RATE = 1.2e-3
PROBE_SEED = 77


@dataclass(frozen=True)
class Bucket:
    """One fixed row length and the chats that go into it; fixed, because shapes are compiled."""

    row_len: int
    recipe: Recipe
    stretched_share: float


SHORT = Bucket(256, Recipe(memories=(1, 4), turns=(3, 10), notes=(0, 0)), 0.0)
MEDIUM = Bucket(512, Recipe(memories=(1, 14), turns=(6, 20)), 0.5)
LONG = Bucket(1024, Recipe(memories=(4, 45), turns=(8, 30), notes=(0, 6)), 0.5)
LONGEST = Bucket(2048, Recipe(memories=(8, 90), turns=(8, 40), notes=(0, 30)), 0.2)

# From which step on which buckets are drawn, and how often: short chats first, since copying is
# learned from them soonest, and the long ones need it.
CURRICULUM = (
    (0, {SHORT: 1.0}),
    (600, {SHORT: 0.7, MEDIUM: 0.3}),
    (1500, {SHORT: 0.3, MEDIUM: 0.6, LONG: 0.1}),
    (2800, {SHORT: 0.15, MEDIUM: 0.5, LONG: 0.25, LONGEST: 0.1}),
)


class StepBatches(Dataset):
    """The batch of every step, made on demand."""

    def __init__(self, seed: int, tokens_per_step: int, num_steps: int = 1_000_000_000):
        self.seed = seed
        self.tokens_per_step = tokens_per_step
        self.num_steps = num_steps
        self.encoder = ChatEncoder(Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json")))

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> Rows:
        rng = Random(f"{self.seed}/{step}")
        shares = [shares for start, shares in CURRICULUM if step >= start][-1]
        bucket = rng.choices(list(shares), list(shares.values()))[0]
        batch = max(1, self.tokens_per_step // bucket.row_len)
        return pack(self.encoder, rng, bucket.recipe, batch, bucket.row_len, bucket.stretched_share)


class Resumed(torch.utils.data.Sampler):
    """Steps from start on."""

    def __init__(self, start: int, end: int):
        self.steps = range(start, end)

    def __iter__(self):
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def attention_mask(chat_ids: torch.Tensor) -> torch.Tensor:
    """[batch, 1, len, len]: a token sees its own chat up to itself."""
    same = chat_ids[:, None, :, None] == chat_ids[:, None, None, :]
    return same & torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril()


def loss_of(model: Llama, tokens, targets, weights, positions, mask) -> torch.Tensor:
    logits = model.logits(model(tokens, positions, mask)).float()
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


@torch.no_grad()
def probe(model: Llama, encoder: ChatEncoder, device: torch.device, num_chats: int = 60) -> dict[str, float]:
    """Exact answers on held-out chats by kind: an answer counts when every token has the top logit."""
    rng = Random(PROBE_SEED)
    right: dict[str, list[bool]] = {}
    for _ in range(num_chats):
        chat = make_chat(rng, MEDIUM.recipe, Split.HELD_OUT, Wordings.SEEN)
        ids, answers = encoder.encode(chat, MEDIUM.row_len)
        tokens = torch.tensor([ids + [0] * (MEDIUM.row_len - len(ids))], device=device)
        chat_ids = torch.zeros_like(tokens)
        positions = torch.arange(tokens.size(1), device=device)[None]
        top = model.logits(model(tokens, positions, attention_mask(chat_ids)))[0].argmax(-1)
        for start, end, index in answers:
            exact = bool((top[start - 1 : end - 1] == tokens[0, start:end]).all())
            kind = chat.turns[index].kind
            right.setdefault(kind.value, []).append(exact)
            if kind in (Kind.KNOWN, Kind.UPDATED, Kind.TOLD, Kind.UNKNOWN):
                right.setdefault("all", []).append(exact)
    return {kind: sum(flags) / len(flags) for kind, flags in sorted(right.items())}


def has_bf16() -> bool:
    """Whether bf16 is faster than float32 here; a processor without bf16 units only emulates it."""
    if torch.cuda.is_available():
        return True
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()


@dataclass
class Run:
    """A training run: the model, its optimisers, and how far it is."""

    model: Llama
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    num_tokens: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "num_tokens": self.num_tokens,
            "seconds": self.seconds,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.rename(path)

    def start_from(self, folder: Path) -> None:
        """Takes over exported weights; the curriculum begins at its last stage."""
        exported = load_file(folder / "model.safetensors")
        self.model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in exported.items()})
        self.step = CURRICULUM[-1][0]

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=next(self.model.parameters()).device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
            # The rate is set at every step; the decay is this script's, not the checkpoint's.
            for group in optimizer.param_groups:
                group["weight_decay"] = optimizer.defaults["weight_decay"]
        self.step, self.num_tokens, self.seconds = state["step"], state["num_tokens"], state["seconds"]


def new_run(seed: int, device: torch.device) -> Run:
    torch.manual_seed(seed)
    model = Llama(LlamaShape()).to(device)
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim == 1 or "embed" in name]
    muon = Muon(inner, lr=MUON_RATE, weight_decay=MUON_WEIGHT_DECAY)
    adam = torch.optim.AdamW(outer, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return Run(model, [muon, adam])


def rate_factor(step: int, elapsed_share: float, decay_share: float) -> float:
    """Share of the peak learning rate at a step of this invocation, elapsed_share into this invocation's minutes."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    if decay_share <= 0 or elapsed_share < 1 - decay_share:
        return warm
    return warm * max(0.0, (1 - elapsed_share) / decay_share)


def train(run: Run, arguments: argparse.Namespace, device: torch.device) -> None:
    batches = StepBatches(arguments.seed, arguments.tokens_per_step)
    loader = DataLoader(
        batches, batch_size=None, sampler=Resumed(run.step, len(batches)), num_workers=arguments.workers,
        collate_fn=lambda rows: rows, prefetch_factor=8,
    )  # fmt: skip
    peak_rates = [optimizer.defaults["lr"] * arguments.rate for optimizer in run.optimizers]
    compiled = torch.compile(loss_of, dynamic=False)
    budget_s = arguments.minutes * 60
    # A resumed run warms up again: its optimisers may be fresh, and a short warm-up costs nothing.
    first_step = run.step
    started = saved = reported = time.monotonic()
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
    seconds_before, recent, tokens_before = run.seconds, [], run.num_tokens
    for rows in loader:
        elapsed = time.monotonic() - started
        if elapsed >= budget_s or stops:
            break
        factor = rate_factor(run.step - first_step, elapsed / budget_s, arguments.decay_share)
        for optimizer, peak_rate in zip(run.optimizers, peak_rates):
            for group in optimizer.param_groups:
                group["lr"] = peak_rate * factor
        tokens, targets, weights, positions, chat_ids = (
            torch.from_numpy(array).to(device)
            for array in (rows.tokens, rows.targets, rows.weights, rows.positions, rows.chat_ids)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
            loss = compiled(run.model, tokens, targets, weights, positions, attention_mask(chat_ids))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), GRADIENT_NORM_MAX)
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        run.step += 1
        run.num_tokens += int((rows.chat_ids >= 0).sum())
        recent.append(loss.detach())
        now = time.monotonic()
        run.seconds = seconds_before + now - started
        if now - reported >= 60:
            mean = torch.stack(recent).mean().item()
            rate = (run.num_tokens - tokens_before) / (now - reported)
            print(
                f"step {run.step} tokens {run.num_tokens / 1e6:.2f}M loss {mean:.4f} "
                f"rate {factor:.3f} {rate:.0f} tokens/s",
                flush=True,
            )
            reported, recent, tokens_before = now, [], run.num_tokens
        if now - saved >= arguments.save_minutes * 60:
            checkpoint(run, arguments, batches.encoder, device)
            saved = time.monotonic()
    checkpoint(run, arguments, batches.encoder, device)


def checkpoint(run: Run, arguments: argparse.Namespace, encoder: ChatEncoder, device: torch.device) -> None:
    run.save(arguments.run / "last.pt")
    run.save(arguments.run / f"step-{run.step:06d}.pt")
    scores = probe(run.model, encoder, device)
    print(f"step {run.step} " + " ".join(f"{kind} {share:.3f}" for kind, share in scores.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=90, help="training time of this invocation")
    parser.add_argument(
        "--decay-share", type=float, default=0.25, help="last share of the minutes, in which the rate falls to zero"
    )
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--weights", type=Path, help="exported folder to go on from, with fresh optimisers")
    parser.add_argument("--export", type=Path, help="folder to export the final weights to (the shipped one is model/)")
    parser.add_argument("--save-minutes", type=float, default=6, help="time between checkpoints")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the peak learning rates")
    parser.add_argument("--tokens-per-step", type=int, default=3072, help="tokens of a batch; more on a GPU")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=has_bf16(), help="matrix products in bf16")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the training itself")
    parser.add_argument("--workers", type=int, default=1, help="processes that generate chats")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = new_run(arguments.seed, device)
    if arguments.weights:
        run.start_from(arguments.weights)
    if arguments.resume:
        run.load(arguments.resume)
    if arguments.minutes > 0:
        train(run, arguments, device)
    if arguments.export:
        ids = ChatEncoder(Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))).ids
        export(run.model, arguments.export, ids[END_OF_TEXT], [ids[END], ids[END_OF_TEXT]])


if __name__ == "__main__":
    main()
