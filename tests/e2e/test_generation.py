"""Chat and text completions through the real client: what is asked for is what comes back."""

import pytest

CHAT = [{"role": "user", "content": "Tell me about the weather in the mountains."}]
PROMPT = "The quick brown fox"


def chat(client, model, **options):
    options = {"messages": CHAT, "max_completion_tokens": 24, "temperature": 0, **options}
    return client.chat.completions.create(model=model, **options)


def complete(client, model, **options):
    options = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0, **options}
    return client.completions.create(model=model, **options)


def long_text(client, model, **options):
    """A greedy continuation that does not end at an end-of-sequence token."""
    return complete(client, model, extra_body={"ignore_eos": True}, **options)


@pytest.fixture(scope="module")
def plain(client, model, server):
    """Generates greedily without special tokens, which have no text."""
    specials = "<|endoftext|><|system|><|user|><|assistant|><|end|>"
    tokens = server.post("/tokenize", {"prompt": specials, "add_special_tokens": False}).json()["tokens"]
    assert len(tokens) == 5
    bias = {str(token): -100 for token in tokens}
    return lambda **options: complete(client, model, max_tokens=40, logit_bias=bias, **options)


def test_models_lists_what_is_served(client):
    models = client.models.list().data
    assert len(models) == 1
    assert models[0].object == "model" and models[0].id
    assert client.models.retrieve(models[0].id).id == models[0].id


def test_a_chat_answer_has_openais_shape(client, model):
    answer = chat(client, model)
    assert answer.object == "chat.completion" and answer.id and answer.created > 1_600_000_000
    assert answer.model == model
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 1 <= usage.completion_tokens <= 24


def test_a_text_completion_has_openais_shape(client, model):
    answer = complete(client, model)
    assert answer.object == "text_completion"
    assert answer.choices[0].text and answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_content_may_come_in_parts_and_with_a_developer_turn(client, model):
    text = CHAT[0]["content"]
    parts = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    assert chat(client, model, messages=parts).choices == chat(client, model).choices
    chat(client, model, messages=[{"role": "developer", "content": "Be short."}, *CHAT])


def test_greedy_answers_repeat_themselves(client, model):
    assert chat(client, model).choices == chat(client, model).choices


def test_the_second_request_finds_its_prompt_cached(client, model):
    messages = [{"role": "user", "content": "Nobody has said this before. " * 12}]
    first = chat(client, model, messages=messages)
    second = chat(client, model, messages=messages)
    assert first.usage.prompt_tokens > 64
    assert second.usage.prompt_tokens_details.cached_tokens > first.usage.prompt_tokens_details.cached_tokens
    assert second.usage.prompt_tokens_details.cached_tokens >= second.usage.prompt_tokens - 17
    assert second.choices == first.choices


def test_n_choices_share_the_prompt_and_differ(client, model):
    def choices():
        # Behind the end of its answer even a model that is sure of itself has to guess.
        answer = chat(
            client, model, n=4, temperature=1.8, seed=11, max_completion_tokens=60, extra_body={"ignore_eos": True}
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.usage.completion_tokens == 4 * 60
        return [choice.message.content for choice in answer.choices]

    first = choices()
    assert len(set(first)) > 1
    assert choices() == first


def test_several_prompts_are_answered_in_order(client, model):
    answer = complete(client, model, prompt=["One two", "A b c d"], n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text == answer.choices[1].text == complete(client, model, prompt="One two").choices[0].text
    assert answer.choices[2].text == complete(client, model, prompt="A b c d").choices[0].text


def test_a_seed_makes_sampling_repeatable(client, model):
    def sample(seed):
        return long_text(client, model, temperature=1.3, seed=seed).choices[0].text

    assert sample(5) == sample(5)
    assert len({sample(seed) for seed in range(6)}) > 3


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"min_p": 1.0}])
def test_filters_that_leave_one_token_are_greedy(client, model, filters):
    greedy = long_text(client, model).choices[0].text
    sampled = complete(client, model, temperature=1.9, seed=3, extra_body={"ignore_eos": True, **filters})
    assert sampled.choices[0].text == greedy


def test_a_tiny_top_p_is_greedy(client, model):
    greedy = long_text(client, model).choices[0].text
    assert long_text(client, model, temperature=1.9, seed=3, top_p=1e-6).choices[0].text == greedy


def test_limits_on_tokens_are_kept(client, model):
    for num_tokens in (1, 2, 7):
        answer = long_text(client, model, max_tokens=num_tokens)
        assert answer.usage.completion_tokens == num_tokens
        assert answer.choices[0].finish_reason == "length"
    extra = {"ignore_eos": True}
    for limit in ({"max_tokens": 5}, {"max_completion_tokens": 5}):
        answer = client.chat.completions.create(model=model, messages=CHAT, extra_body=extra, **limit)
        assert answer.usage.completion_tokens == 5 and answer.choices[0].finish_reason == "length"


def test_ignore_eos_goes_past_the_end_of_the_answer(client, model):
    options = {"messages": [{"role": "user", "content": "Hello"}], "max_completion_tokens": 200}
    ended = chat(client, model, **options)
    assert ended.choices[0].finish_reason == "stop" and ended.usage.completion_tokens < 200
    ignored = chat(client, model, extra_body={"ignore_eos": True}, **options)
    assert ignored.choices[0].finish_reason == "length" and ignored.usage.completion_tokens == 200


def test_stop_strings_end_the_answer_before_them(plain):
    choice = plain(logprobs=0).choices[0]
    text, pieces = choice.text, choice.logprobs.tokens
    assert "".join(pieces) == text
    whole_token = next(piece for piece in pieces[4:] if piece.strip())
    # The end of one token and the beginning of the next, and everything from the middle of a token on.
    across = next(left[-1:] + right[:1] for left, right in zip(pieces[5:], pieces[6:]) if left.isascii() and right.isascii())
    for stop in (whole_token, [whole_token], ["never there at all", across], across, text[9:21]):
        stops = [stop] if isinstance(stop, str) else stop
        expected = min((text[: text.find(one)] for one in stops if one in text), key=len)
        answer = plain(stop=stop)
        assert answer.choices[0].text == expected, stop
        assert answer.choices[0].finish_reason == "stop"
        stream = plain(stop=stop, stream=True)
        events = [event.choices[0] for event in stream if event.choices]
        assert "".join(event.text for event in events) == expected, stop
        assert [event.finish_reason for event in events if event.finish_reason] == ["stop"]


def test_a_stop_string_that_never_comes_changes_nothing(plain):
    text = plain().choices[0].text
    answer = plain(stop=[text + "x", "\u0001\u0001"])
    assert answer.choices[0].text == text and answer.choices[0].finish_reason == "length"


def test_chat_logprobs_are_those_of_the_answer(client, model):
    answer = chat(client, model, logprobs=True, top_logprobs=20).choices[0]
    entries = answer.logprobs.content
    assert entries
    text = b"".join(bytes(entry.bytes) for entry in entries).decode("utf-8", "replace")
    assert text == answer.message.content
    for entry in entries:
        assert len(entry.top_logprobs) == 20
        values = [top.logprob for top in entry.top_logprobs]
        assert values == sorted(values, reverse=True) and values[0] <= 0
        assert entry.logprob == values[0], "greedy takes the most likely token"
        assert entry.top_logprobs[0].token == entry.token


def test_completion_logprobs_are_those_of_the_text(plain):
    choice = plain(logprobs=5).choices[0]
    logprobs = choice.logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 40
    assert all(5 <= len(top) <= 6 for top in logprobs.top_logprobs)
    assert logprobs.text_offset[0] == 0
    for offset, piece in zip(logprobs.text_offset, logprobs.tokens):
        assert choice.text[offset:].startswith(piece)


def test_logit_bias_forces_and_forbids(client, model, server):
    token = server.post("/tokenize", {"prompt": "7", "add_special_tokens": False}).json()["tokens"][-1]
    piece = server.post("/detokenize", {"tokens": [token]}).json()["prompt"]
    forced = long_text(client, model, max_tokens=6, logit_bias={str(token): 100})
    assert forced.choices[0].text == piece * 6
    first = long_text(client, model, max_tokens=1, logprobs=1).choices[0].text
    ids = server.post("/tokenize", {"prompt": first, "add_special_tokens": False}).json()["tokens"]
    forbidden = long_text(client, model, max_tokens=1, logit_bias={str(ids[0]): -100})
    assert forbidden.choices[0].text != first


@pytest.mark.parametrize("penalty", [{"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 6.0}])
def test_penalties_break_a_narrow_repetition(client, model, server, penalty):
    """A bias makes the first token come again with a lead of 1 over all others: less than every penalty takes away."""

    def generate(prompt, **options):
        extra = {"ignore_eos": True, **options.pop("extra_body", {})}
        return complete(client, model, prompt=prompt, extra_body=extra, **options).choices[0]

    prompt = server.post("/tokenize", {"prompt": "x", "add_special_tokens": False}).json()["tokens"]
    piece = generate(prompt, max_tokens=1, logprobs=0).logprobs.tokens[0]
    token = server.post("/tokenize", {"prompt": piece, "add_special_tokens": False}).json()["tokens"]
    assert len(token) == 1
    twice = generate(prompt + token * 2, max_tokens=0, echo=True, logprobs=2).logprobs
    others = [logprob for other, logprob in twice.top_logprobs[-1].items() if other != piece]
    bias = {str(token[0]): max(others) - twice.token_logprobs[-1] + 1.0}
    repeated = generate(prompt, max_tokens=2, logprobs=0, logit_bias=bias).logprobs.tokens
    assert repeated == [piece, piece]
    broken = generate(prompt, max_tokens=2, logprobs=0, logit_bias=bias, extra_body=penalty).logprobs.tokens
    assert broken != repeated


def test_prompts_may_be_token_ids(client, model, server):
    tokens = server.post("/tokenize", {"prompt": PROMPT}).json()["tokens"]
    by_ids = complete(client, model, prompt=tokens)
    assert by_ids.choices[0].text == complete(client, model).choices[0].text
    assert by_ids.usage.prompt_tokens == len(tokens)
    two = complete(client, model, prompt=[tokens, tokens[:3]])
    assert two.choices[0].text == by_ids.choices[0].text and len(two.choices) == 2


def test_echo_repeats_the_prompt_with_its_logprobs(client, model, server):
    plain = long_text(client, model, max_tokens=8)
    echoed = complete(client, model, max_tokens=8, echo=True, extra_body={"ignore_eos": True})
    assert echoed.choices[0].text == PROMPT + plain.choices[0].text
    with_logprobs = complete(client, model, max_tokens=8, echo=True, logprobs=3, extra_body={"ignore_eos": True})
    choice = with_logprobs.choices[0]
    assert choice.text == echoed.choices[0].text
    num_prompt_tokens = len(server.post("/tokenize", {"prompt": PROMPT}).json()["tokens"])
    assert len(choice.logprobs.tokens) == num_prompt_tokens + 8
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in choice.logprobs.token_logprobs[1:])
    alone = complete(client, model, max_tokens=0, echo=True, logprobs=0)
    assert alone.choices[0].text == PROMPT and alone.usage.completion_tokens == 0
    # A prompt's log-probabilities do not depend on what the cache holds.
    assert alone.choices[0].logprobs.token_logprobs == choice.logprobs.token_logprobs[:num_prompt_tokens]


TEXTS = ["plain", "", " two  spaces \n\ttab", "Zürich, 日本語, 🙂🤷🏽‍♀️", "<|im_start|>user", "a" * 500, "\u0000\u0007 control"]


@pytest.mark.parametrize("text", TEXTS)
def test_tokenize_and_detokenize_are_inverse(server, text):
    answer = server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()
    assert answer["count"] == len(answer["tokens"])
    assert server.post("/detokenize", {"tokens": answer["tokens"]}).json()["prompt"] == text


def test_tokenize_renders_conversations(server, client, model):
    answer = server.post("/tokenize", {"messages": CHAT}).json()
    assert answer["count"] == chat(client, model).usage.prompt_tokens


def test_tools_reach_the_template_or_are_refused_in_words(server, model):
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    body = {"model": model, "messages": CHAT, "tools": [tool], "max_tokens": 4}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200 or answer.json()["error"]["message"], answer.text
