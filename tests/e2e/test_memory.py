"""The bundled model answers from what stands under `# Memories`; this is what makes memory testable by its answers."""

import json

import pytest
from server import ROOT

SAMPLES = ROOT / "models" / "bundled" / "samples.json"


def samples():
    return json.loads(SAMPLES.read_text()) if SAMPLES.exists() else []


def answer(client, model, messages):
    return client.chat.completions.create(model=model, messages=messages, temperature=0).choices[0].message.content


def test_samples_are_there():
    if not samples():
        pytest.skip(f"{SAMPLES.relative_to(ROOT)} is not there: the bundled model has not been evaluated")
    assert {sample["kind"] for sample in samples()} >= {"known", "updated", "unknown"}


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: f"{sample['kind']}: {sample['expected']}")
def test_the_model_answers_as_it_did_in_training(client, model, sample):
    """The prompts were chosen for being answered right by these very weights: what differs is the runtime."""
    assert answer(client, model, sample["messages"]) == sample["expected"]


def test_without_its_memories_the_answer_is_gone(client, model):
    """What is known only from the memories cannot be answered when they are taken away."""
    known = [sample for sample in samples() if sample["kind"] == "known"]
    if not known:
        pytest.skip(f"{SAMPLES.relative_to(ROOT)} has no known facts")
    still_right = 0
    for sample in known:
        without = [message for message in sample["messages"] if message["role"] != "system"]
        still_right += answer(client, model, without) == sample["expected"]
    assert still_right == 0, f"{still_right} of {len(known)} answers do not come from the memories"
