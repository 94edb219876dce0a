"""Wrong requests: each gets a 4xx in OpenAI's error shape that names the field, and the server goes on."""

import json

import httpx
import openai
import pytest

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"messages": MESSAGES, "max_tokens": 2}
TEXT = {"prompt": "Hi", "max_tokens": 2}


def refused(response, status=400, param=None):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and error["type"]
    if param is not None:
        assert error["param"] == param, error
    return error


WRONG_CHAT = [
    ("temperature", -0.1),
    ("temperature", 1e39),
    ("temperature", "hot"),
    ("temperature", [1]),
    ("top_p", 0),
    ("top_p", 1.01),
    ("top_k", -2),
    ("top_k", 1.5),
    ("min_p", -0.5),
    ("min_p", 2),
    ("presence_penalty", -2.5),
    ("frequency_penalty", 3),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1),
    ("seed", 1.5),
    ("seed", 10**30),
    ("n", 0),
    ("n", 10_000),
    ("n", "two"),
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 2.5),
    ("max_tokens", "many"),
    ("max_completion_tokens", -5),
    ("stop", 5),
    ("stop", [""]),
    ("stop", ["x"] * 1000),
    ("stop", [None]),
    ("stream", "yes"),
    ("ignore_eos", 1),
    ("logprobs", 3),
    ("logit_bias", [1, 2]),
    ("logit_bias", {"abc": 1}),
    ("logit_bias", {"99999999": 1}),
    ("messages", []),
    ("messages", "Hi"),
    ("messages", None),
    ("tools", "hammer"),
    ("model", 5),
    ("colour", "red"),
    ("Temperature", 1),
]


@pytest.mark.parametrize(("field", "value"), WRONG_CHAT, ids=str)
def test_a_wrong_chat_field_is_named(server, field, value):
    error = refused(server.post("/v1/chat/completions", {**CHAT, field: value}), param=field)
    assert field in error["message"]


WRONG_TEXT = [
    ("prompt", None),
    ("prompt", {}),
    ("prompt", []),
    ("prompt", 7),
    ("prompt", [1, "a"]),
    ("prompt", [-1]),
    ("prompt", [10**9]),
    ("prompt", [1.5]),
    ("prompt", [[]]),
    ("logprobs", 21),
    ("logprobs", -1),
    ("logprobs", True),
    ("echo", "yes"),
    ("max_tokens", -1),
    ("messages", MESSAGES),
]


@pytest.mark.parametrize(("field", "value"), WRONG_TEXT, ids=str)
def test_a_wrong_completion_field_is_named(server, field, value):
    error = refused(server.post("/v1/completions", {**TEXT, field: value}))
    assert (error["param"] or "").startswith(field), error


WRONG_MESSAGES = [
    [{"role": "user"}],
    [{"content": "Hi"}],
    [{"role": "king", "content": "Hi"}],
    [{"role": "user", "content": 5}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    [{"role": "user", "content": "Hi", "mood": "good"}],
    ["Hi"],
    [None],
]


@pytest.mark.parametrize("messages", WRONG_MESSAGES, ids=str)
def test_a_wrong_message_is_named(server, messages):
    error = refused(server.post("/v1/chat/completions", {**CHAT, "messages": messages}))
    assert (error["param"] or "").startswith("messages"), error


def test_fields_inside_objects_are_named(server):
    error = refused(server.post("/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"usage": True}}))
    assert error["param"] == "stream_options.usage"
    error = refused(server.post("/v1/chat/completions", {**CHAT, "logit_bias": {"3": 200}}))
    assert error["param"].startswith("logit_bias")
    refused(server.post("/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}}), param="stream_options")
    refused(server.post("/v1/chat/completions", {**CHAT, "top_logprobs": 3}), param="top_logprobs")
    refused(server.post("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 21}), param="top_logprobs")


def test_the_client_sees_typed_errors(client, model):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=MESSAGES, temperature=9)
    assert caught.value.param == "temperature" and caught.value.status_code == 400
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert "no-such-model" in caught.value.message and caught.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_a_prompt_longer_than_the_context_is_refused(server):
    long = "word and word " * 20_000
    error = refused(server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": long}]}))
    assert error["code"] == "context_length_exceeded" and error["param"] == "messages"
    error = refused(server.post("/v1/completions", {"prompt": long}))
    assert error["code"] == "context_length_exceeded" and error["param"] == "prompt"
    error = refused(server.post("/v1/completions", {"prompt": [1] * 100_000}))
    assert error["code"] == "context_length_exceeded"
    error = refused(server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 10**9}))
    assert error["code"] == "context_length_exceeded"


def test_the_oldest_turns_are_left_out_when_the_client_says_so(server):
    turns = [{"role": role, "content": f"This is turn {at} and it goes on. " * 20} for at in range(30) for role in ("user", "assistant")]
    body = {"messages": [{"role": "system", "content": "S"}, *turns, *MESSAGES], "max_tokens": 4}
    refused(server.post("/v1/chat/completions", body), param="messages")
    answer = server.post("/v1/chat/completions", {**body, "truncation": "oldest_turns"})
    assert answer.status_code == 200, answer.text
    refused(server.post("/v1/chat/completions", {**body, "truncation": "newest"}), param="truncation")


@pytest.mark.parametrize(
    "body",
    [b'{"prompt": "\xff\xfe"}', b"\x80", b"{", b"", b"null", b"[]", b'"text"', b"{}{}", b'{"prompt": "x",}', b"[" * 5_000],
    ids=lambda body: repr(body[:16]),
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
def test_broken_bodies_are_refused(server, path, body):
    refused(server.post(path, body))


def test_lone_surrogates_are_refused(server):
    refused(server.post("/v1/completions", b'{"prompt": "\\ud800"}'))


def test_a_body_over_the_limit_is_413(start):
    server = start("--max-body", "64KiB")
    error = refused(server.post("/v1/completions", {"prompt": "x" * 100_000}), status=413)
    assert "65536" in error["message"]
    # Without a length declared in advance.
    chunks = (b"x" * 10_000 for _ in range(20))
    response = httpx.post(server.url + "/v1/completions", content=chunks, headers={"content-type": "application/json"})
    refused(response, status=413)
    assert server.get("/health").status_code == 200


def test_wrong_ways_and_methods_have_the_same_shape(server):
    refused(server.get("/v1/nothing"), status=404)
    refused(server.get("/v1/completions"), status=405)
    refused(server.post("/health", {}), status=405)
    response = server.post("/v1/completions", json.dumps(TEXT).encode(), headers={"content-type": "text/plain"})
    refused(response, status=415)


def test_wrong_token_lists_are_named(server):
    for tokens in ("x", [-1], [10**9], [1.5], None, [[1]]):
        error = refused(server.post("/detokenize", {"tokens": tokens}))
        assert error["param"].startswith("tokens")
    refused(server.post("/tokenize", {}))
    refused(server.post("/tokenize", {"prompt": "x", "messages": MESSAGES}))


def test_after_all_that_the_server_still_answers(server, client, model):
    assert client.completions.create(model=model, **TEXT).choices
    assert server.get("/health").status_code == 200
