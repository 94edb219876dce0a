"""The memory API of a real server over plain HTTP: the life of memories, their past, their protection, what a restart keeps."""

import base64
import json
import sqlite3
import time

import pytest
from server import run

CANARY = "xylophonequagmire"


class Api:
    """JSON over HTTP as the holder of one key."""

    def __init__(self, server, key="none"):
        self.http = server.http(headers={"authorization": f"Bearer {key}"})

    def ask(self, method, path, body=None, status=None, **options):
        response = self.http.request(method, path, **({} if body is None else {"json": body}), **options)
        if status is None:
            assert response.is_success, (method, path, response.status_code, response.text)
        else:
            assert response.status_code == status, (method, path, response.status_code, response.text)
        return response.json()

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.ask("POST", path, {} if body is None else body, **options)

    def add(self, text, **fields):
        return self.post("/v1/memories", {"text": text, **fields}, status=201)["results"][0]["memory"]

    def search(self, query, **fields):
        found = self.post("/v1/memories/search", {"query": query, **fields})
        return [result["memory"]["text"] for result in found["results"]]


@pytest.fixture
def api(start):
    return Api(start())


def make_key(data_dir, tenant, role):
    made = run("key", "create", "--tenant", tenant, "--role", role, data_dir=data_dir)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_a_memory_through_its_life(api):
    cube = api.post("/v1/cubes", {"name": "notes"}, status=201)
    assert [one["name"] for one in api.get("/v1/cubes")["data"]] == ["notes"]
    memory = api.add("Zorvan lives in Oslo.", cube="notes", entities=["Zorvan"], tags=["home"])
    path = f"/v1/memories/{memory['id']}"
    assert api.search("Where does Zorvan live?", cube="notes") == ["Zorvan lives in Oslo."]

    headers = {"if-match": '"1"', "x-memos-reason": "he moved"}
    edited = api.ask("PATCH", path, {"cube": "notes", "text": "Zorvan lives in Bergen."}, headers=headers)
    assert edited["version"] == 2
    api.ask("PATCH", path, {"cube": "notes", "text": "Zorvan lives in Rome."}, headers=headers, status=412)
    assert api.search("Where does Zorvan live?", cube=cube["id"]) == ["Zorvan lives in Bergen."]

    past = memory["recorded_at"]
    assert api.search("Where does Zorvan live?", cube="notes", as_of=past) == ["Zorvan lives in Oslo."]
    assert api.get(path, params={"cube": "notes", "as_of": past})["version"] == 1
    instead = [{"id": memory["id"], "text": "Zorvan lives in Paris."}]
    assert api.search("Where does Zorvan live?", cube="notes", instead=instead) == ["Zorvan lives in Paris."]
    assert api.search("Where does Zorvan live?", cube="notes", without=[memory["id"]]) == []

    history = api.get(path + "/history", params={"cube": "notes"})["data"]
    assert [(one["change"]["type"], one["reason"]) for one in history] == [("created", None), ("edited", "he moved")]
    restored = api.post(path + "/restore", {"cube": "notes", "version": 1})
    assert (restored["version"], restored["text"]) == (3, "Zorvan lives in Oslo.")
    walk = api.get("/v1/memories/graph", params={"cube": "notes", "entity": "zorvan"})["data"]
    assert [node["link"] for node in walk] == ["start", "mentions"]
    assert walk[1]["memory"]["id"] == memory["id"]


def test_merging_and_undoing_it(api):
    ids = [api.add(text)["id"] for text in ("Velka likes teal.", "Velka likes sailing.")]
    merged = api.post("/v1/memories/merge", {"ids": ids, "text": "Velka likes teal and sailing."}, status=201)
    assert api.search("What does Velka like?") == ["Velka likes teal and sailing."]
    assert api.get(f"/v1/memories/{ids[0]}")["state"] == "merged"
    undone = api.post(f"/v1/memories/{merged['id']}/unmerge")
    assert {memory["id"] for memory in undone["memories"]} == set(ids)
    assert set(api.search("What does Velka like?")) == {"Velka likes teal.", "Velka likes sailing."}


def test_contradictions_duplicates_and_what_rules_find(api):
    first = api.add("Zorvan lives in Oslo.")
    again = api.post("/v1/memories", {"text": "Zorvan lives in Oslo."}, status=201)["results"][0]
    assert (again["event"], again["memory"]["id"]) == ("duplicate", first["id"])
    newer = {"text": "Zorvan lives in Bergen.", "contradictions": "supersede"}
    newer = api.post("/v1/memories", newer, status=201)["results"][0]
    assert (newer["event"], newer["superseded"]) == ("superseded", [first["id"]])
    assert api.search("Where does Zorvan live?") == ["Zorvan lives in Bergen."]
    turns = [{"role": "user", "content": "I live in Oslo and I like teal."}, {"role": "assistant", "content": "Nice!"}]
    told = {"messages": turns, "mode": "fast", "user_id": "ann", "session_id": "s-1"}
    told = api.post("/v1/memories", told, status=201)["results"]
    assert len(told) >= 1 and all(one["memory"]["user_id"] == "ann" for one in told)
    assert all(one["memory"]["source"]["type"] == "message" for one in told)


def test_documents_and_the_token_budget(api):
    text = "# Doors\n\n" + "\n\n".join(f"The code of door {number} is {number * 37}." for number in range(60))
    body = {"name": "doors.md", "content": text, "chunk": {"size": 60, "overlap": 0}}
    added = api.post("/v1/documents", body, status=201)
    assert (added["format"], added["num_added"]) == ("markdown", len(added["memories"]))
    encoded = {**body, "content": base64.b64encode(text.encode()).decode(), "encoding": "base64"}
    assert api.post("/v1/documents", encoded, status=201)["num_added"] == 0
    ask = {"query": "What is the code of door 7?", "limit": 20, "trace": True}
    whole = api.post("/v1/memories/search", ask)
    cut = api.post("/v1/memories/search", {**ask, "budget_tokens": 60})
    assert 0 < len(cut["results"]) < len(whole["results"])
    assert 0 < cut["num_tokens"] <= 60
    assert sum(result["trace"]["outcome"]["num_tokens"] for result in cut["results"]) == cut["num_tokens"]
    assert any(left["outcome"]["outcome"] == "over_budget" for left in cut["left_out"])
    assert set(cut["timing_ms"]) == {"embedding", "searching"}


def test_an_erased_memory_is_in_no_file_and_the_audit_log_stays_intact(start, tmp_path):
    server = start(data_dir=tmp_path)
    api = Api(server)
    memory = api.add(f"The canary {CANARY} sings.")
    api.post("/v1/cubes/default/snapshots", {"name": "before"}, status=201)
    api.add("Something else.")
    diff = api.get("/v1/cubes/default/diff", params={"snapshot": "before"})
    assert [one["change"] for one in diff["data"]] == ["added"]
    head = api.get("/v1/audit/head")
    erased = api.ask("DELETE", f"/v1/memories/{memory['id']}", headers={"x-memos-reason": "asked for"})
    receipt = erased["receipt"]["receipt"]
    assert receipt["status"]["state"] == "final"
    assert (receipt["places"]["items"]["erased"], receipt["places"]["snapshots"]["erased"]) == (1, 1)
    assert api.search(CANARY) == []
    api.get(f"/v1/memories/{memory['id']}", status=404)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in server.log()

    entry = api.get("/v1/audit", params={"action": "item.erase"})["data"][0]
    assert (entry["seq"], entry["reason"]) == (receipt["audit_seq"], "asked for")
    report = api.post("/v1/audit/verify")
    assert report["intact"] and report["num_erased"] >= 1
    proof = api.get("/v1/audit/proof", params={"seq": entry["seq"]})
    assert proof["head"]["size"] > entry["seq"] and proof["nonce"]
    consistency = api.get("/v1/audit/consistency", params={"size": head["size"]})
    assert (consistency["old"], consistency["new"]) == (head, proof["head"])
    api.get("/v1/audit/consistency", params={"size": 10**6}, status=404)


def test_a_log_that_somebody_changed_is_found_out(start, tmp_path):
    server = start(data_dir=tmp_path)
    Api(server).add("The lab code is 4417.")
    server.stop()
    store = next((tmp_path / "cubes").rglob("memory.sqlite"))
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE audit_entries SET actor = 'somebody' WHERE action = 'item.add'")
    connection.close()
    report = Api(start(data_dir=tmp_path)).post("/v1/audit/verify")
    assert not report["intact"]
    assert {finding["type"] for finding in report["findings"]} == {"entry_changed"}


def test_export_and_import(api):
    for name in ("old", "new"):
        api.post("/v1/cubes", {"name": name}, status=201)
    for number in range(5):
        api.add(f"The code of door {number} is {number * 37}.", cube="old", kind="skill", tags=["door"], user_id="ann")
    frozen = api.add("Velka likes teal.", cube="old")["id"]
    api.post(f"/v1/memories/{frozen}/transition", {"cube": "old", "state": "frozen"})
    exported = api.http.get("/v1/cubes/old/export")
    assert exported.status_code == 200 and len(exported.text.splitlines()) == 7
    headers = {"content-type": "application/x-ndjson"}
    imported = api.http.post("/v1/cubes/new/import", content=exported.content + b"{broken\n", headers=headers).json()
    assert (imported["num_added"], imported["num_problems"], imported["problems"][0]["line"]) == (6, 1, 8)

    def shown(cube):
        listed = api.get("/v1/memories", params={"cube": cube, "limit": 100})["data"]
        kept = ("text", "kind", "state", "tags", "user_id", "salience")
        return [{name: memory[name] for name in kept} for memory in listed]

    assert shown("new") == shown("old")
    mem0 = {"results": [{"id": "m1", "memory": "Ann likes teal", "user_id": "ann"}, {"id": "m2"}]}
    imported = api.http.post("/v1/cubes/new/import?format=mem0", json=mem0).json()
    assert (imported["num_added"], imported["problems"][0]["entry"]) == (1, 1)
    plain = api.http.post("/v1/cubes/new/import", content=b"x", headers={"content-type": "text/plain"})
    assert plain.status_code == 415


def test_two_tenants_and_a_restart_that_keeps_everything(start, tmp_path):
    keys = [make_key(tmp_path, tenant, role) for tenant, role in (("acme", "admin"), ("beta", "user"))]
    server = start(data_dir=tmp_path, api_key=keys[0])
    acme, beta = (Api(server, key) for key in keys)
    acme.post("/v1/cubes", {"name": "notes"}, status=201)
    secret = acme.add("The lab code is 4417.", cube="notes")
    shared = acme.add("Velka likes teal.", cube="notes")
    acme.add("Of acme."), beta.add("Of beta.")
    unknown = beta.post("/v1/memories/search", {"cube": "nowhere", "query": "code"}, status=404)
    assert beta.post("/v1/memories/search", {"cube": "notes", "query": "code"}, status=404) == unknown
    grant = {"subject": "beta", "right": "read", "item": shared["id"], "reason": "for the party"}
    grant = acme.post("/v1/cubes/notes/grants", grant, status=201)
    assert beta.search("code teal", cube="notes") == ["Velka likes teal."]
    hidden = beta.get(f"/v1/memories/{secret['id']}", params={"cube": "notes"}, status=404)
    assert hidden["error"]["code"] == "memory_not_found"
    server.stop()

    server = start(data_dir=tmp_path, api_key=keys[0])
    acme, beta = (Api(server, key) for key in keys)
    assert acme.search("What is the lab code?", cube="notes")[0] == "The lab code is 4417."
    assert (acme.search("Of whom?"), beta.search("Of whom?")) == (["Of acme."], ["Of beta."])
    assert beta.search("code teal", cube="notes") == ["Velka likes teal."]
    acme.ask("DELETE", f"/v1/cubes/notes/grants/{grant['id']}")
    beta.post("/v1/memories/search", {"cube": "notes", "query": "teal"}, status=404)
    reads = acme.get("/v1/audit", params={"cube": "notes", "action": "item.search"})["data"]
    assert {entry["actor"] for entry in reads} == {"beta"}
    assert acme.post("/v1/audit/verify", params={"cube": "notes"})["intact"]


def test_mounting_while_serving(api):
    api.post("/v1/cubes", {"name": "notes"}, status=201)
    api.add("The lab code is 4417.", cube="notes")
    api.post("/v1/cubes", {"name": "notes"}, status=409)
    assert api.post("/v1/cubes/notes/verify")["intact"]
    assert api.post("/v1/cubes/notes/unmount")["mounted"] is False
    api.get("/v1/memories", params={"cube": "notes"}, status=404)
    assert [one["mounted"] for one in api.get("/v1/cubes")["data"]] == [False]
    api.post("/v1/cubes/notes/mount")
    assert api.get("/v1/cubes/notes")["facts"]["memories"] == 1
    api.post("/v1/cubes/notes/mount", status=409)


def test_a_quota_is_told_with_its_numbers(start):
    api = Api(start("--memory-items-max", "2"))
    api.add("one"), api.add("two")
    error = api.post("/v1/memories", {"text": "three"}, status=403)["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert (error["used"], error["asked"], error["limit"]) == (2, 1, 2)


def test_what_must_not_be_stored_is_blacked_out(api):
    memory = api.add("The card is 4111 1111 1111 1111.")
    assert "4111" not in json.dumps(memory)
    redacted = api.post(f"/v1/memories/{api.add('Write to ann@example.com.')['id']}/redact")
    assert redacted["memory"]["version"] >= 1


def test_pages_of_a_browser_cannot_use_the_server(api):
    foreign = {"origin": "https://evil.example"}
    api.http.post("/v1/cubes", json={"name": "notes"})
    assert api.http.post("/v1/cubes/notes/unmount", headers=foreign).status_code == 415
    assert api.http.post("/v1/cubes/notes/unmount").status_code == 200
    form = api.http.post("/v1/memories", data={"text": "x"})
    assert form.status_code == 415


def test_receipts_are_kept_over_a_restart_and_readable_by_the_command_line(start, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    first = start(data_dir=data_dir)
    api = Api(first)
    memory = api.add(f"The canary {CANARY} sings.")
    receipt = api.ask("DELETE", f"/v1/memories/{memory['id']}")["receipt"]
    seq = receipt["receipt"]["audit_seq"]
    assert receipt["receipt"]["status"]["state"] == "final"
    assert "kv_device" in receipt["receipt"]["places"]
    assert api.get(f"/v1/erasures/{seq}")["receipt"] == receipt["receipt"]
    assert api.get("/v1/erasures", params={"status": "pending"})["data"] == []
    api.get("/v1/erasures/999999", status=404)
    api.get("/v1/erasures/first", status=400)
    first.stop()
    api = Api(start(data_dir=data_dir))
    assert [one["receipt"] for one in api.get("/v1/erasures")["data"]] == [receipt["receipt"]]


def test_what_retention_erases_leaves_the_kv_cache(start):
    server = start()
    api = Api(server)
    chat = {"model": server.model(), "messages": [{"role": "user", "content": "Where is the zanzibar crate? " * 8}], "max_tokens": 1}
    cached = lambda: api.post("/v1/chat/completions", chat)["usage"]["prompt_tokens_details"]["cached_tokens"]
    cached()
    assert cached() > 0
    api.add("Zorvan lives in Oslo.", expires_at="2020-01-01T00:00:00Z")
    for _ in range(100):
        if not api.get("/v1/memories")["data"]:
            break
        time.sleep(0.1)
    server.wait_until(lambda metrics: True)
    for _ in range(50):
        if "cached KV was dropped" in server.log():
            break
        time.sleep(0.1)
    assert cached() == 0, server.log()
