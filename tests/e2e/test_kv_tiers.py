"""KV blocks below the device pool: host memory, disk, restarts, damage, tenants, erasure."""

import shutil

import pytest
from server import run

BLOCK_TOKENS = 16


def prompt(seed, num_tokens=400):
    """Token ids that no other seed shares a block with."""
    return [5 + (seed * 7919 + position * 104729 + position * position) % 1000 for position in range(num_tokens)]


def ask(server, tokens, **headers):
    body = {"model": server.model(), "prompt": tokens, "max_tokens": 6, "temperature": 0, "logprobs": 5, "ignore_eos": True}
    answer = server.post("/v1/completions", body, headers=headers).json()
    return answer["choices"][0], answer["usage"]["prompt_tokens_details"]


def full_blocks(tokens):
    return (len(tokens) - 1) // BLOCK_TOKENS * BLOCK_TOKENS


def segments(folder):
    return sorted(folder.glob("*.kv.safetensors"))


def wait_until_saved(server):
    """Idle time saves everything; the counter stands still when it is done."""
    server.wait_until(lambda metrics: metrics["memos_tier_stored_blocks_total"] >= 24)


def test_a_restart_keeps_the_cache_warm_and_the_answer_the_same(start, tmp_path):
    first = start(data_dir=tmp_path)
    cold, details = ask(first, prompt(1))
    assert details["cached_tokens"] == 0
    first.stop()
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in segments(tmp_path / "kv"))
    second = start(data_dir=tmp_path)
    warm, details = ask(second, prompt(1))
    assert details["cached_tokens_by_tier"] == {"device": 0, "host": 0, "disk": full_blocks(prompt(1))}
    assert warm == cold
    decisions = second.get("/v1/scheduler/decisions").json()["data"]
    assert [decision["kind"] for decision in decisions if decision["kind"] == "load"] == ["load"]
    assert decisions[0]["measured_s"] > 0


def test_a_killed_server_loses_nothing_that_it_had_saved(start, tmp_path):
    first = start(data_dir=tmp_path)
    cold, _ = ask(first, prompt(2))
    wait_until_saved(first)
    first.process.kill()
    first.process.wait()
    warm, details = ask(start(data_dir=tmp_path), prompt(2))
    assert details["cached_tokens_by_tier"]["disk"] == full_blocks(prompt(2))
    assert warm == cold


def test_what_does_not_fit_the_device_comes_back_from_host_memory(start):
    server = start("--kv-cache-memory", "2MiB", "--host-cache", "64MiB", "--disk-cache", "0")
    cold = [ask(server, prompt(seed))[0] for seed in range(4)]
    warm = [ask(server, prompt(seed)) for seed in range(4)]
    assert [choice for choice, _ in warm] == cold
    assert sum(details["cached_tokens_by_tier"]["host"] for _, details in warm) > full_blocks(prompt(0))
    tiers = {tier["tier"]: tier for tier in server.get("/v1/scheduler/tiers").json()["data"]}
    assert tiers["host"]["hit_blocks"] > 0 and tiers["host"]["failed_blocks"] == 0
    assert tiers["disk"]["capacity_blocks"] == 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap"])
def test_damaged_files_are_computed_instead_and_set_aside(start, tmp_path, damage):
    first = start(data_dir=tmp_path)
    cold, _ = ask(first, prompt(3))
    other, _ = ask(first, prompt(4))
    first.stop()
    files = segments(tmp_path / "kv")
    assert len(files) >= 2
    if damage == "swap":
        one, two = files[0].read_bytes(), files[1].read_bytes()
        files[0].write_bytes(two)
        files[1].write_bytes(one)
    for path in files if damage != "swap" else []:
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 1
        path.write_bytes({"flip": bytes(content), "truncate": bytes(content[:-100]), "empty": b"", "swap": b""}[damage])
    second = start(data_dir=tmp_path)
    assert ask(second, prompt(3))[0] == cold
    assert ask(second, prompt(4))[0] == other
    assert any((tmp_path / "kv" / "quarantine").iterdir())
    assert second.get("/health").status_code == 200


def test_the_server_goes_on_when_its_cache_directory_is_removed(start, tmp_path):
    server = start(data_dir=tmp_path)
    cold, _ = ask(server, prompt(5))
    wait_until_saved(server)
    shutil.rmtree(tmp_path / "kv")
    server.post("/v1/scheduler/reset", {})
    again, details = ask(server, prompt(5))
    assert again == cold and details["cached_tokens"] == 0
    ask(server, prompt(6))
    server.stop()
    assert server.process.returncode == 0


def test_no_tenant_ever_hits_what_another_computed(start, tmp_path):
    keys = []
    for tenant in ("one", "two"):
        made = run("key", "create", "--tenant", tenant, "--role", "admin", data_dir=tmp_path)
        keys.append(made.stdout.strip())
    for round in range(2):
        server = start(data_dir=tmp_path, api_key=keys[0])
        cached = []
        for key in (keys[1], keys[0], keys[1], keys[0]):
            _, details = ask(server, prompt(7), authorization=f"Bearer {key}")
            cached.append(details["cached_tokens"])
        own = full_blocks(prompt(7))
        # In the first round nothing is there; each finds its own only. After a restart both find their own, on disk.
        assert cached == ([0, 0, own, own] if round == 0 else [own] * 4)
        server.stop()


def test_an_erasure_leaves_no_block_on_disk_even_after_a_restart(start, tmp_path):
    server = start(data_dir=tmp_path)
    ask(server, prompt(8))
    wait_until_saved(server)
    assert segments(tmp_path / "kv")
    assert server.post("/v1/cubes", {"name": "notes"}).status_code < 300
    made = server.post("/v1/memories", {"cube": "notes", "text": "The door code is 4471."}).json()
    item = made["results"][0]["memory"]["id"]
    erased = server.http().delete(f"/v1/memories/{item}", params={"cube": "notes"})
    assert erased.status_code == 200, erased.text
    server.wait_until(lambda metrics: not segments(tmp_path / "kv"))
    server.stop()
    _, details = ask(start(data_dir=tmp_path), prompt(8))
    assert details["cached_tokens"] == 0


def test_with_a_key_file_nothing_readable_is_on_disk_and_another_key_finds_nothing(start, tmp_path):
    key = tmp_path / "key"
    key.write_text("0f" * 32)
    server = start("--disk-cache-key", key, data_dir=tmp_path / "data")
    cold, _ = ask(server, prompt(9))
    server.stop()
    tokens = b"".join(token.to_bytes(4, "little") for token in prompt(9)[:8])
    assert segments(tmp_path / "data" / "kv")
    assert all(tokens not in path.read_bytes() for path in segments(tmp_path / "data" / "kv"))
    again, details = ask(start("--disk-cache-key", key, data_dir=tmp_path / "data"), prompt(9))
    assert again == cold and details["cached_tokens_by_tier"]["disk"] == full_blocks(prompt(9))


@pytest.mark.parametrize("arguments, named", [
    (["--disk-cache-key", "/nowhere/key"], "/nowhere/key"),
    (["--disk-cache", "-1"], "-1"),
    (["--host-cache", "lots"], "lots"),
    (["--tenant-cache-percent", "0"], "0"),
    (["--eviction", "random"], "random"),
])  # fmt: skip
def test_wrong_options_are_named(arguments, named):
    result = run("serve", "--port", "0", *arguments)
    assert result.returncode != 0 and named in result.stderr


def test_two_servers_do_not_share_a_cache_directory(start, tmp_path):
    start("--disk-cache-folder", tmp_path / "shared", data_dir=tmp_path / "a")
    result = run("serve", "--port", "0", "--disk-cache-folder", tmp_path / "shared", data_dir=tmp_path / "b")
    assert result.returncode != 0 and "in use by another process" in result.stderr


def test_a_budget_of_zero_makes_no_directory(start, tmp_path):
    server = start("--disk-cache", "0", data_dir=tmp_path)
    ask(server, prompt(10))
    server.stop()
    assert not (tmp_path / "kv").exists()


def test_a_budget_that_holds_less_than_a_block_is_no_tier(start):
    server = start("--disk-cache", "1KiB", "--host-cache", "1KiB")
    ask(server, prompt(11))
    tiers = {tier["tier"]: tier for tier in server.get("/v1/scheduler/tiers").json()["data"]}
    assert tiers["host"]["capacity_blocks"] == tiers["disk"]["capacity_blocks"] == 0
