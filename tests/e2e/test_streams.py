"""Server-sent events: the pieces add up to the whole answer, characters are never split, usage comes when asked for."""

import json

import pytest

CHAT = [{"role": "user", "content": "Say something nice."}]


def events_of(server, path, body):
    """The data of every event, as sent; checks the framing."""
    events = []
    with server.http() as http, http.stream("POST", path, json=body) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        for block in b"".join(response.iter_raw()).decode("utf-8").split("\n\n"):
            lines = [line for line in block.split("\n") if line and not line.startswith(":")]
            assert all(line.startswith("data: ") for line in lines), block
            events.extend(line.removeprefix("data: ") for line in lines)
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def text_of(events, index=0):
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.4, "seed": 8}])
def test_streamed_chat_equals_whole_chat(server, client, model, options):
    whole = client.chat.completions.create(model=model, messages=CHAT, max_tokens=64, **options)
    body = {"model": model, "messages": CHAT, "max_tokens": 64, "stream": True, **options}
    events = events_of(server, "/v1/chat/completions", body)
    assert text_of(events) == whole.choices[0].message.content
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all(event["object"] == "chat.completion.chunk" and event["id"] == events[0]["id"] for event in events)
    reasons = [choice["finish_reason"] for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert reasons == [whole.choices[0].finish_reason]
    assert not any(event.get("usage") for event in events)


def test_the_client_reads_a_stream_with_usage(client, model):
    whole = client.chat.completions.create(model=model, messages=CHAT, max_tokens=20, temperature=0)
    stream = client.chat.completions.create(
        model=model, messages=CHAT, max_tokens=20, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and all(chunk.usage is None for chunk in chunks[:-1])
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert usage.prompt_tokens_details.cached_tokens >= 0


def test_choices_of_one_stream_are_told_apart(server, client, model):
    options = {"prompt": "Once", "max_tokens": 20, "temperature": 1.2, "seed": 4, "n": 3}
    whole = client.completions.create(model=model, **options)
    events = events_of(server, "/v1/completions", {"model": model, "stream": True, **options})
    assert [text_of(events, index) for index in range(3)] == [choice.text for choice in whole.choices]


def test_streamed_logprobs_equal_whole_ones(client, model):
    options = {"messages": CHAT, "max_tokens": 16, "temperature": 0, "logprobs": True, "top_logprobs": 4}
    whole = client.chat.completions.create(model=model, **options)
    entries = [
        entry
        for chunk in client.chat.completions.create(model=model, stream=True, **options)
        for choice in chunk.choices
        if choice.logprobs
        for entry in choice.logprobs.content
    ]
    assert entries == whole.choices[0].logprobs.content


def test_echo_is_streamed_too(server, client, model):
    options = {"prompt": "Echo this", "max_tokens": 5, "temperature": 0, "echo": True}
    whole = client.completions.create(model=model, **options)
    assert text_of(events_of(server, "/v1/completions", {"model": model, "stream": True, **options})) == whole.choices[0].text


@pytest.mark.parametrize("character", ["é", "日", "🙂"])
def test_characters_of_several_tokens_are_never_split(server, client, model, character):
    """Biases leave only the bytes of one character: answers are a mix of whole characters and broken ones."""
    tokens = server.post("/tokenize", {"prompt": character, "add_special_tokens": False}).json()["tokens"]
    if len(tokens) < 2:
        pytest.skip(f"the tokenizer has {character} as one token")
    bias = {str(token): 100 for token in tokens}
    num_whole = 0
    for seed in range(12):
        options = {"prompt": "x", "max_tokens": 40, "temperature": 1, "seed": seed, "logit_bias": bias, "n": 2}
        whole = client.completions.create(model=model, extra_body={"ignore_eos": True}, **options)
        events = events_of(server, "/v1/completions", {"model": model, "stream": True, "ignore_eos": True, **options})
        for index, choice in enumerate(whole.choices):
            assert text_of(events, index) == choice.text
            whole_characters = choice.text.replace("\ufffd", "")
            # The bytes of one character can also make up others; but nothing else can come out.
            assert set(whole_characters.encode()) <= set(character.encode()), choice.text
            num_whole += len(whole_characters)
    assert num_whole > 0, "no whole character was generated, so nothing was shown"


def test_a_long_answer_comes_in_many_events(server, model):
    body = {"model": model, "prompt": "x", "max_tokens": 60, "temperature": 0, "stream": True, "ignore_eos": True}
    with_text = [event for event in events_of(server, "/v1/completions", body) if text_of([event])]
    assert len(with_text) > 20
