"""Measures the exported model on held-out chats: greedy answers, compared word for word.

Names, values and codes of these chats are of the split that training never drew from. The model is
loaded through `transformers` from the exported folder, in float32, as a stranger would load it.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpus import Kind, Recipe, Wordings, make_chat
from relations import REFUSAL
from vocabulary import Split

MODEL_FOLDER = Path(__file__).parent / "model"
TOKENS_PER_BATCH = 16384
NEW_TOKENS_MAX = 40
NUM_MEMORIES_BINS = ((1, 3), (4, 8), (9, 14), (15, 40))
DISTANCE_BINS = ((0, 128), (128, 512), (512, 1024), (1024, 2048))
FROM_MEMORY = (Kind.KNOWN, Kind.UPDATED)


@dataclass
class Question:
    """The messages up to a question, and its one right answer."""

    messages: list[dict[str, str]]
    expected: str
    kind: Kind
    num_memories: int
    distance: int | None  # tokens from the fact's statement to the answer; None when refused

    def bare(self) -> "Question":
        """The question alone, without memories and earlier turns."""
        return Question(self.messages[-1:], self.expected, self.kind, 0, None)


class Examinee:
    """The exported model and its tokenizer."""

    def __init__(self, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def prompt(self, messages: list[dict[str, str]]) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def num_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.inference_mode()
    def answers(self, questions: list[Question]) -> list[str]:
        """Greedy answers, in the order of the questions; batched by length to spare padding."""
        prompts = [self.prompt(question.messages) for question in questions]
        lengths = [self.num_tokens(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lengths.__getitem__)
        texts = [""] * len(prompts)
        while order:
            size = max(1, min(len(order), 64))
            while size > 1 and size * lengths[order[size - 1]] > TOKENS_PER_BATCH:
                size -= 1
            batch, order = order[:size], order[size:]
            inputs = self.tokenizer(
                [prompts[index] for index in batch], return_tensors="pt", padding=True, add_special_tokens=False
            )
            inputs.pop("token_type_ids", None)
            output = self.model.generate(**inputs, max_new_tokens=NEW_TOKENS_MAX, do_sample=False)
            for index, row in zip(batch, output[:, inputs["input_ids"].size(1) :]):
                texts[index] = self.tokenizer.decode(row, skip_special_tokens=True)
        return texts


def ask(
    examinee: Examinee, rng: Random, recipe: Recipe, wordings: Wordings, kinds: tuple[Kind, ...]
) -> Question | None:
    """One question of the asked kinds from a fresh held-out chat, if the chat has one."""
    chat = make_chat(rng, recipe, Split.HELD_OUT, wordings)
    present = sorted({turn.kind for turn in chat.turns} & set(kinds), key=lambda kind: kind.value)
    if not present:
        return None
    kind = rng.choice(present)
    index = rng.choice([i for i, turn in enumerate(chat.turns) if turn.kind is kind])
    turn, messages = chat.turns[index], chat.messages(index + 1)
    distance = None
    if turn.source is not None:
        prompt = examinee.prompt(messages)
        distance = examinee.num_tokens(prompt[prompt.rindex(turn.source) :])
    return Question(messages, turn.assistant, kind, chat.num_memories, distance)


def draw(examinee, rng, recipe, count, kinds, wordings=Wordings.SEEN, accept=lambda question: True) -> list[Question]:
    questions: list[Question] = []
    while len(questions) < count:
        question = ask(examinee, rng, recipe, wordings, kinds)
        if question is not None and accept(question):
            questions.append(question)
    return questions


def question_sets(examinee: Examinee, rng: Random, count: int) -> dict[str, list[Question]]:
    """Every row of the report and its questions, count in each."""
    usual = Recipe(memories=(1, 14), turns=(1, 10))
    sets: dict[str, list[Question]] = {}
    for kind in (Kind.KNOWN, Kind.UPDATED, Kind.TOLD, Kind.UNKNOWN):
        sets[kind.value] = draw(examinee, rng, usual, count, (kind,))
    of_memory = draw(
        examinee, rng, Recipe(memories=(1, 14), turns=(1, 1), no_memories_share=0.0), count, FROM_MEMORY
    )  # fmt: skip
    sets["first turn, with memories"] = of_memory
    sets["first turn, without memories"] = [question.bare() for question in of_memory]
    sets["held-out wordings, known"] = draw(examinee, rng, usual, count, FROM_MEMORY, Wordings.HELD_OUT)
    sets["held-out wordings, unknown"] = draw(examinee, rng, usual, count, (Kind.UNKNOWN,), Wordings.HELD_OUT)
    for low, high in NUM_MEMORIES_BINS:
        recipe = Recipe(memories=(low, high), turns=(1, 1), no_memories_share=0.0)
        sets[f"{low} to {high} memories, known"] = draw(examinee, rng, recipe, count, FROM_MEMORY)
        sets[f"{low} to {high} memories, unknown"] = draw(examinee, rng, recipe, count, (Kind.UNKNOWN,))
    for low, high in DISTANCE_BINS:
        recipe = Recipe(
            memories=(max(1, low // 30), min(90, 4 + high // 15)), turns=(1, 16),
            notes=(low // 100, high // 60), no_memories_share=0.0,
        )  # fmt: skip
        sets[f"{low} to {high} tokens away"] = draw(
            examinee, rng, recipe, count, (*FROM_MEMORY, Kind.TOLD), accept=lambda q: low <= q.distance < high
        )
    return sets


def report(examinee: Examinee, sets: dict[str, list[Question]]) -> dict[str, dict[str, float | int]]:
    """Prints and returns, for each set, how many answers are exact and how many are refusals."""
    rows = {}
    print(f"{'questions':34} {'count':>6} {'exact':>7} {'refused':>8}")
    for name, questions in sets.items():
        answers = examinee.answers(questions)
        exact = sum(answer == question.expected for answer, question in zip(answers, questions))
        refused = sum(answer == REFUSAL for answer in answers)
        rows[name] = {"count": len(questions), "exact": exact / len(questions), "refused": refused / len(questions)}
        print(f"{name:34} {len(questions):6} {rows[name]['exact']:7.1%} {rows[name]['refused']:8.1%}", flush=True)
    return rows


def write_samples(examinee: Examinee, rng: Random, path: Path) -> None:
    """Writes held-out prompts that this very model answers right, for end-to-end tests.

    They are chosen for being right, so they measure nothing: they tell a broken runtime from a
    working one.
    """
    wanted = {Kind.KNOWN: 8, Kind.UPDATED: 4, Kind.TOLD: 3, Kind.UNKNOWN: 5, Kind.SMALL_TALK: 2}
    recipe = Recipe(memories=(2, 8), turns=(1, 4), no_memories_share=0.0)
    samples = []
    for kind, count in wanted.items():
        questions = draw(examinee, rng, recipe, 4 * count, (kind,))
        answers = examinee.answers(questions)
        right = [question for question, answer in zip(questions, answers) if answer == question.expected]
        samples += [
            {"messages": question.messages, "expected": question.expected, "kind": kind.value}
            for question in right[:count]
        ]
    path.write_text(json.dumps(samples, indent=2, ensure_ascii=False) + "\n")
    print(f"{len(samples)} samples written to {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help="exported folder to measure")
    parser.add_argument("--count", type=int, default=200, help="questions in each row of the report")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    parser.add_argument("--samples", type=Path, help="file for prompts that the model answers right, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    examinee = Examinee(arguments.model)
    rows = report(examinee, question_sets(examinee, Random(arguments.seed), arguments.count))
    if arguments.out:
        figures = {"seed": arguments.seed, "questions": rows}
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.samples:
        write_samples(examinee, Random(arguments.seed + 1), arguments.samples)
    print(f"took {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
