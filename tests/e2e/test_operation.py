"""Running the server: keys, full queues, clients that leave, shutdown, metrics, the OpenAPI document, many connections."""

import asyncio
import re
import socket
import threading
import time

import httpx
import openai
import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from server import BINARY, RUNNING, WAITING, Server, environment, run

ROUTES = {
    "/v1/models": {"get"},
    "/v1/models/{model}": {"get"},
    "/v1/chat/completions": {"post"},
    "/v1/completions": {"post"},
    "/tokenize": {"post"},
    "/detokenize": {"post"},
    "/health": {"get"},
    "/metrics": {"get"},
    "/v1/scheduler/tiers": {"get"},
    "/v1/scheduler/decisions": {"get"},
    "/v1/scheduler/reset": {"post"},
    "/openapi.json": {"get"},
    "/v1/cubes": {"get", "post"},
    "/v1/cubes/{cube}": {"get"},
    "/v1/cubes/{cube}/mount": {"post"},
    "/v1/cubes/{cube}/unmount": {"post"},
    "/v1/cubes/{cube}/verify": {"post"},
    "/v1/cubes/{cube}/snapshots": {"get", "post"},
    "/v1/cubes/{cube}/diff": {"get"},
    "/v1/cubes/{cube}/grants": {"get", "post"},
    "/v1/cubes/{cube}/grants/{grant}": {"delete"},
    "/v1/cubes/{cube}/export": {"get"},
    "/v1/cubes/{cube}/import": {"post"},
    "/v1/memories": {"get", "post"},
    "/v1/memories/batch": {"post"},
    "/v1/memories/search": {"post"},
    "/v1/memories/graph": {"get"},
    "/v1/memories/merge": {"post"},
    "/v1/memories/{id}": {"delete", "get", "patch"},
    "/v1/memories/{id}/history": {"get"},
    "/v1/memories/{id}/restore": {"post"},
    "/v1/memories/{id}/transition": {"post"},
    "/v1/memories/{id}/hold": {"post"},
    "/v1/memories/{id}/redact": {"post"},
    "/v1/memories/{id}/unmerge": {"post"},
    "/v1/documents": {"post"},
    "/v1/erase": {"post"},
    "/v1/erasures": {"get"},
    "/v1/erasures/{seq}": {"get"},
    "/v1/subjects/export": {"get"},
    "/v1/audit": {"get"},
    "/v1/audit/head": {"get"},
    "/v1/audit/verify": {"post"},
    "/v1/audit/proof": {"get"},
    "/v1/audit/consistency": {"get"},
    "/v1/embeddings": {"post"},
}
# Long enough that a test always catches it running.
LONG = {"prompt": "x", "max_tokens": 1500, "temperature": 0, "extra_body": {"ignore_eos": True}}


def stream_in_background(client, model, **options):
    """Starts a stream and returns once its first event is there."""
    stream = client.completions.create(model=model, stream=True, **{**LONG, **options})
    iterator = iter(stream)
    next(iterator)
    return stream, iterator


def make_key(data_dir, *arguments):
    made = run("key", "create", *arguments, data_dir=data_dir)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_keys_open_the_server_and_are_stored_as_hashes(start, tmp_path):
    key = make_key(tmp_path, "--tenant", "alpha", "--role", "user")
    other = make_key(tmp_path, "--tenant", "beta", "--role", "admin")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        stored = path.read_bytes()
        assert key.encode() not in stored and key.split("-")[-1].encode() not in stored, path
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
    listed = run("key", "list", data_dir=tmp_path)
    assert "alpha" in listed.stdout and "beta" in listed.stdout
    assert key not in listed.stdout and other not in listed.stdout
    server = start(data_dir=tmp_path, api_key=key)
    assert server.client().models.list().data
    for wrong in (key[:-1], key + "x", key.upper(), "none", "mk-"):
        response = server.post("/v1/completions", {"prompt": "x"}, headers={"authorization": f"Bearer {wrong}"})
        assert response.status_code == 401, (wrong, response.text)
        assert response.json()["error"]["code"] == "invalid_api_key"
    assert server.get("/health").status_code == 200


def test_a_missing_key_is_401_in_openais_shape(start):
    server = start("--api-key", "sk-test-of-mine", api_key="sk-test-of-mine")
    with pytest.raises(openai.AuthenticationError):
        server.client(api_key="wrong").models.list()
    response = httpx.post(server.url + "/v1/chat/completions", json={"messages": []})
    assert response.status_code == 401 and set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert httpx.get(server.url + "/metrics").status_code == 401
    assert httpx.get(server.url + "/health").status_code == 200
    assert server.client().models.list().data
    assert "sk-test-of-mine" not in server.log()


def test_a_revoked_key_stops_working_while_the_server_runs(start, tmp_path):
    key, kept = (make_key(tmp_path, "--tenant", name, "--role", "admin") for name in ("gone", "kept"))
    server = start(data_dir=tmp_path, api_key=kept)
    gone = server.client(api_key=key)
    assert gone.models.list().data
    lines = [line for line in run("key", "list", data_dir=tmp_path).stdout.splitlines() if "gone" in line]
    key_id = lines[0].split()[0]
    revoked = run("key", "revoke", key_id, data_dir=tmp_path)
    assert revoked.returncode == 0, revoked.stderr
    deadline = time.monotonic() + 10
    with pytest.raises(openai.AuthenticationError):
        while time.monotonic() < deadline:
            gone.models.list()
            time.sleep(0.1)
    assert server.client().models.list().data
    assert run("key", "revoke", "nothing-like-it", data_dir=tmp_path).returncode != 0


def test_tenants_do_not_share_their_cache(start, tmp_path):
    keys = [make_key(tmp_path, "--tenant", name, "--role", "user") for name in ("alpha", "beta")]
    server = start(data_dir=tmp_path, api_key=keys[0])
    prompt = "A secret that is long enough to fill some blocks of the cache. " * 4

    def cached(key):
        answer = server.client(api_key=key).completions.create(model=server.model(), prompt=prompt, max_tokens=1)
        return answer.usage.prompt_tokens_details.cached_tokens

    assert cached(keys[0]) == 0
    assert cached(keys[1]) == 0, "another tenant's prefix was hit"
    assert cached(keys[0]) > 0 and cached(keys[1]) > 0


def test_without_keys_only_loopback_is_served():
    refused = run("serve", "--port", "0", "--host", "0.0.0.0")
    assert refused.returncode != 0
    assert "loopback" in refused.stderr and "memos key create" in refused.stderr


def test_web_pages_under_another_name_are_turned_away(server):
    response = server.post("/v1/completions", {"prompt": "x"}, headers={"host": "evil.example"})
    assert response.status_code == 403


def test_a_second_server_on_the_same_data_is_refused(start, tmp_path):
    start(data_dir=tmp_path)
    second = run("serve", "--port", "0", data_dir=tmp_path)
    assert second.returncode != 0 and str(tmp_path) in second.stderr, second.stderr


def test_a_port_in_use_is_named(server):
    port = server.url.rsplit(":", 1)[1]
    second = run("serve", "--port", port)
    assert second.returncode != 0 and port in second.stderr


def test_a_full_queue_answers_429_with_retry_after(start):
    server = start("--max-running", "1", "--max-waiting", "2", "--max-waiting-per-tenant", "2")
    model, client = server.model(), server.client(timeout=300)
    running, _ = stream_in_background(client, model)
    waiting = [
        threading.Thread(target=lambda: client.completions.create(model=model, prompt="y", max_tokens=1), daemon=True)
        for _ in range(2)
    ]
    for thread in waiting:
        thread.start()
    server.wait_until(lambda metrics: metrics[WAITING] == 2)
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(model=model, prompt="z", max_tokens=1)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.response.json()["error"]["code"] == "queue_full"
    # More choices than the queue takes can never be accepted: that is the request's fault.
    response = server.post("/v1/completions", {"prompt": "z", "n": 50})
    assert response.status_code in (400, 429), response.text
    running.close()
    for thread in waiting:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a waiting request was lost"
    assert client.completions.create(model=model, prompt="z", max_tokens=1).choices
    server.wait_until_idle()


def test_a_client_that_leaves_frees_its_blocks(server, client, model):
    server.wait_until_idle()
    stream, iterator = stream_in_background(client, model)
    for _ in range(5):
        next(iterator)
    assert server.metrics()[RUNNING] == 1
    stream.close()
    server.wait_until_idle()
    blocks = server.blocks()
    assert blocks["leased"] == blocks["filling"] == 0, blocks
    # The same for one that waits for a whole answer.
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(model=model, timeout=0.3, **LONG)
    server.wait_until_idle()
    blocks = server.blocks()
    assert blocks["leased"] == blocks["filling"] == 0, blocks


def test_sigterm_finishes_the_running_stream(start):
    server = start()
    client, model = server.client(), server.model()
    _, iterator = stream_in_background(client, model, max_tokens=300)
    server.terminate()
    text_events = [event for event in iterator if event.choices]
    assert text_events[-1].choices[0].finish_reason == "length"
    assert server.process.wait(timeout=20) == 0, server.log()
    assert "panicked" not in server.log()
    with pytest.raises(openai.APIConnectionError):
        client.models.list()


def test_after_the_time_for_shutdown_streams_are_ended(start):
    server = start("--shutdown-timeout", "1", "--max-context", "4000")
    client, model = server.client(), server.model()
    began = time.monotonic()
    streams = [stream_in_background(client, model, max_tokens=3900, n=16) for _ in range(4)]
    server.terminate()
    assert server.process.wait(timeout=20) == 0, server.log()
    assert time.monotonic() - began < 20
    for stream, _ in streams:
        stream.close()


def test_no_prompt_text_is_logged(start):
    server = start()
    secret = "xyzzy-plugh-4417"
    server.post("/v1/completions", {"prompt": secret, "max_tokens": 2})
    server.post("/v1/completions", {"prompt": secret, "temperature": secret})
    server.post("/v1/completions", f'{{"prompt": "{secret}", '.encode())
    server.get(f"/v1/{secret}?q={secret}")
    server.stop()
    assert secret not in server.log()


def test_the_openapi_document_is_valid_and_complete(server):
    document = server.get("/openapi.json").json()
    validator = OpenAPIV31SpecValidator if document["openapi"].startswith("3.1") else OpenAPIV30SpecValidator
    validator(document).validate()
    methods = {path: set(item) & {"get", "post", "put", "delete", "patch"} for path, item in document["paths"].items()}
    assert methods == ROUTES


def test_metrics_count_what_happened(server, client, model):
    before = server.metrics()
    answer = client.completions.create(model=model, prompt="count this", max_tokens=5, extra_body={"ignore_eos": True})
    after = server.metrics()
    assert after["memos_completion_tokens_total"] - before["memos_completion_tokens_total"] == 5
    assert after["memos_prompt_tokens_total"] - before["memos_prompt_tokens_total"] == answer.usage.prompt_tokens
    assert after["memos_http_requests_total"] > before["memos_http_requests_total"]
    assert after["memos_time_to_first_token_seconds_count"] > before["memos_time_to_first_token_seconds_count"]
    assert sum(server.blocks().values()) > 0


def test_a_thousand_idle_connections_do_not_stop_service(start):
    server = start()
    host, port = "127.0.0.1", int(server.url.rsplit(":", 1)[1])
    idle = []
    try:
        for _ in range(1000):
            connection = socket.create_connection((host, port), timeout=20)
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
            idle.append(connection)
        began = time.monotonic()
        model = server.model()
        assert server.client().completions.create(model=model, prompt="still there?", max_tokens=4).choices
        assert time.monotonic() - began < 10
    finally:
        for connection in idle:
            connection.close()
    assert server.get("/health").status_code == 200


def test_connections_over_the_limit_are_turned_away_and_the_rest_served(start):
    server = start("--max-connections", "8")
    host, port = "127.0.0.1", int(server.url.rsplit(":", 1)[1])
    with server.http() as kept:
        assert kept.get("/health").status_code == 200
        others = [socket.create_connection((host, port), timeout=20) for _ in range(30)]
        assert kept.get("/health").status_code == 200
        for connection in others:
            connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if server.get("/health").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError("the connections were not given back")


def test_many_requests_at_once_are_all_answered_alike(server, model):
    """Continuous batching: sixty requests together give what each gives alone."""
    prompts = [f"Request {number}: the story begins" for number in range(60)]

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
            tasks = [
                client.completions.create(model=model, prompt=prompt, max_tokens=12, temperature=0) for prompt in prompts
            ]
            return [answer.choices[0].text for answer in await asyncio.gather(*tasks)]

    together = asyncio.run(ask_all())
    client = server.client()
    for prompt, text in list(zip(prompts, together))[::6]:
        alone = client.completions.create(model=model, prompt=prompt, max_tokens=12, temperature=0)
        assert alone.choices[0].text == text


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["chat", "--help"], ["bench", "--help"], ["key", "--help"]])
def test_help_describes_every_option(arguments):
    shown = run(*arguments)
    assert shown.returncode == 0 and len(shown.stdout) > 200
    lines = shown.stdout.splitlines()
    for at, line in enumerate(lines):
        option = re.match(r"\s+(?:-\w, )?--[\w-]+(?: <[^>]+>)?(.*)$", line)
        if option and not option.group(1).strip():
            assert at + 1 < len(lines) and lines[at + 1].strip(), f"no description: {line}"


def test_the_version_is_printed():
    assert re.match(r"memos \d+\.\d+\.\d+", run("--version").stdout)


def test_the_binary_needs_no_environment(tmp_path):
    assert BINARY.exists()
    assert "MEMOS_API_KEY" not in environment(tmp_path)
    with Server() as server:
        assert server.get("/health").json() == {"status": "ok"}
