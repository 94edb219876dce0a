"""Soak: many streaming clients with random cancellations; afterwards nothing may be lost, mixed up, leaked or left.

    cargo build --release && target/test-venv/bin/python tests/soak.py --seconds 120

(`tests/run.sh` makes that environment.) Every prompt carries facts of its own, so that every answer is its own; the greedy
answer of each is computed alone at the start and is what every later answer, or part of one, must equal.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))
os.environ.setdefault("MEMOS_BIN", "target/release/memos")

import openai  # noqa: E402
from server import RUNNING, Server  # noqa: E402

NUM_PROMPTS = 96
ANSWER_TOKENS = 48
# Memory may still settle in the first part of the run: it is compared from here on.
SETTLED_PART = 0.3
RSS_GROWTH_MAX = 0.05
RSS_GROWTH_BYTES = 4 << 20


@dataclass
class Tally:
    """What the clients saw."""

    finished: int = 0
    cancelled_before_text: int = 0
    cancelled_in_text: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    wrong: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    first_token_s: list = field(default_factory=list)
    rss_bytes: list = field(default_factory=list)


def make_prompt(number, generator):
    """A conversation with memories that only this one has; some begin alike, so that prefixes are shared."""
    shared = [f"- The archive room {room} opens with code {4000 + 7 * room}." for room in range(generator.choice((0, 4, 12)))]
    own = [f"- Marker {number}-{line} belongs to shelf {generator.randrange(10_000)}." for line in range(generator.randint(1, 8))]
    memories = "\n".join(["# Memories", *shared, *own])
    return [{"role": "system", "content": memories}, {"role": "user", "content": f"Tell me about marker {number}."}]


def options(model, messages):
    # Beyond the end of the answer the text goes on, so that there is always something to cancel.
    return dict(model=model, messages=messages, temperature=0, max_tokens=ANSWER_TOKENS, extra_body={"ignore_eos": True})


async def one_request(client, model, messages, expected, generator, tally):
    """One stream, perhaps given up on the way. What came of it must be the expected answer or its beginning."""
    stop_after = generator.randint(1, ANSWER_TOKENS) if generator.random() < 0.3 else None
    began, text, num_events, finished = time.monotonic(), "", 0, False
    opening = client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **options(model, messages)
    )
    if generator.random() < 0.1:
        # Gives up while the request is on its way, waits in the queue or is in its prompt.
        try:
            stream = await asyncio.wait_for(opening, generator.random() * 0.3)
            await asyncio.sleep(generator.random() * 0.3)
            await stream.close()
        except TimeoutError:
            pass
        tally.cancelled_before_text += 1
        return
    stream = await opening
    async for event in stream:
        for choice in event.choices:
            if choice.delta.content:
                if not text:
                    tally.first_token_s.append(time.monotonic() - began)
                text += choice.delta.content
            finished = finished or choice.finish_reason is not None
        if event.usage:
            tally.tokens += event.usage.completion_tokens
            tally.cached_tokens += event.usage.prompt_tokens_details.cached_tokens
        num_events += 1
        if num_events == stop_after:
            await stream.close()
            tally.cancelled_in_text += 1
            if not expected.startswith(text):
                tally.wrong.append((messages[-1]["content"], text, expected))
            return
    tally.finished += 1
    if not finished or text != expected:
        tally.wrong.append((messages[-1]["content"], text, expected))


async def client_loop(number, url, model, cases, deadline, tally):
    generator = random.Random(1000 + number)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        while time.monotonic() < deadline:
            messages, expected = generator.choice(cases)
            try:
                await one_request(client, model, messages, expected, generator, tally)
            except openai.OpenAIError as error:
                tally.failed.append(repr(error))


async def watch(server, deadline, tally):
    while time.monotonic() < deadline:
        tally.rss_bytes.append(server.rss_bytes())
        await asyncio.sleep(0.5)


async def run_clients(server, model, cases, arguments, tally):
    deadline = time.monotonic() + arguments.seconds
    loops = [client_loop(number, server.url, model, cases, deadline, tally) for number in range(arguments.clients)]
    await asyncio.gather(watch(server, deadline, tally), *loops)


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


def judge(server, tally, metrics):
    """The complaints, and the rows of the table."""
    blocks = server.blocks()
    settled = tally.rss_bytes[int(len(tally.rss_bytes) * SETTLED_PART) :]
    head, tail = settled[: len(settled) // 3], settled[-(len(settled) // 3) :]
    growth = sum(tail) / len(tail) - sum(head) / len(head)
    complaints = []
    if tally.wrong:
        complaints.append(f"{len(tally.wrong)} answers are not their own, the first: {tally.wrong[0]}")
    if tally.failed:
        complaints.append(f"{len(tally.failed)} requests failed, the first: {tally.failed[0]}")
    if blocks["leased"] or blocks["filling"]:
        complaints.append(f"blocks are neither free nor cached: {blocks}")
    if growth > max(RSS_GROWTH_BYTES, RSS_GROWTH_MAX * head[0]):
        complaints.append(f"memory grew by {growth / 2**20:.1f} MiB")
    if "panicked" in server.log():
        complaints.append("something panicked")
    rows = [
        ("answers finished, each equal to the one computed alone", tally.finished),
        ("cancelled before any text / within it", f"{tally.cancelled_before_text} / {tally.cancelled_in_text}"),
        ("failed or mixed up", len(tally.failed) + len(tally.wrong)),
        ("tokens received", tally.tokens),
        ("prompt tokens from the cache", tally.cached_tokens),
        ("time to first token, median / 99th percentile, ms", f"{1000 * percentile(tally.first_token_s, 0.5):.0f} / {1000 * percentile(tally.first_token_s, 0.99):.0f}"),
        ("preemptions / evictions", f"{metrics['memos_preemptions_total']:.0f} / {metrics['memos_evictions_total']:.0f}"),
        ("blocks free + cached of all", f"{blocks['free']} + {blocks['cached']} of {sum(blocks.values())}"),
        ("resident memory, first / last third after settling, MiB", f"{sum(head) / len(head) / 2**20:.1f} / {sum(tail) / len(tail) / 2**20:.1f}"),
    ]
    return complaints, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--kv-cache-memory", default="12MiB", help="small, so that sequences are preempted and blocks evicted")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with Server("--kv-cache-memory", arguments.kv_cache_memory) as server:
        model, alone, tally = server.model(), server.client(), Tally()
        prompts = [make_prompt(number, generator) for number in range(NUM_PROMPTS)]
        answers = [alone.chat.completions.create(**options(model, messages)).choices[0].message.content for messages in prompts]
        assert len(set(answers)) > NUM_PROMPTS // 2, "the answers are too alike to show that none is mixed up"
        print(f"{arguments.clients} clients for {arguments.seconds:.0f} s, seed {arguments.seed}, {len(set(answers))} different answers")
        asyncio.run(run_clients(server, model, list(zip(prompts, answers)), arguments, tally))
        metrics = server.wait_until_idle()
        assert metrics[RUNNING] == 0
        complaints, rows = judge(server, tally, metrics)
    for name, value in rows:
        print(f"{name:60} {value}")
    for complaint in complaints:
        print(f"FAILED: {complaint}")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
