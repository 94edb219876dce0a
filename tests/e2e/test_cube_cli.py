"""`memos cube`, `item` and `audit` on a data directory of their own, as a person at a terminal uses them."""

import json
import sqlite3

import pytest
from server import run


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def memos(*arguments, data_dir, code=0):
    """Runs a command that must end with this code; returns it with its output."""
    done = run(*arguments, data_dir=data_dir)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "panicked" not in done.stderr, done.stderr
    return done


def as_json(*arguments, data_dir):
    return json.loads(memos(*arguments, "--json", data_dir=data_dir).stdout)


def add(text, *options, data_dir, cube="notes"):
    return as_json("item", "add", cube, text, *options, data_dir=data_dir)["item"]["id"]


def texts(data_dir, cube="notes", *options):
    return [item["text"] for item in as_json("item", "list", cube, *options, data_dir=data_dir)["items"]]


@pytest.fixture
def notes(data_dir):
    """A cube with two memories; returns their ids."""
    memos("cube", "create", "notes", data_dir=data_dir)
    return [
        add("The lab code is 4417", "--tag", "lab", data_dir=data_dir),
        add("Velka likes teal", "--kind", "preference", "--entity", "Velka", data_dir=data_dir),
    ]


def test_memories_are_added_found_and_shown(data_dir, notes):
    assert texts(data_dir) == ["The lab code is 4417", "Velka likes teal"]
    assert texts(data_dir, "notes", "--tag", "lab") == ["The lab code is 4417"]
    found = as_json("item", "search", "notes", "What is the lab code?", data_dir=data_dir)
    assert found[0]["item"]["id"] == notes[0]
    assert found[0]["trace"]["found_by"][0]["list"] == "lexical"
    assert as_json("item", "get", "notes", notes[1], data_dir=data_dir)["kind"] == "preference"
    history = as_json("item", "history", "notes", notes[0], data_dir=data_dir)
    assert [version["change"]["type"] for version in history] == ["created"]
    table = memos("item", "list", "notes", data_dir=data_dir).stdout.splitlines()
    assert table[0].split() == ["ID", "KIND", "STATE", "TEXT"]
    column = table[0].index("TEXT")
    assert [line[column:] for line in table[2:]] == ["The lab code is 4417", "Velka likes teal"]


def test_the_same_is_added_once_and_a_contradiction_supersedes(data_dir, notes):
    again = as_json("item", "add", "notes", "The lab code is 4417", data_dir=data_dir)
    assert (again["event"], again["item"]["id"]) == ("duplicate", notes[0])
    oslo = add("Zorvan lives in Oslo", data_dir=data_dir)
    newer = as_json("item", "add", "notes", "Zorvan lives in Bergen", "--supersede", data_dir=data_dir)
    assert newer["superseded"] == [oslo]
    found = as_json("item", "search", "notes", "Where does Zorvan live?", data_dir=data_dir)
    assert [one["item"]["text"] for one in found] == ["Zorvan lives in Bergen"]
    before = as_json("item", "search", "notes", "Where does Zorvan live?", "--as-of",
                     as_json("item", "get", "notes", oslo, data_dir=data_dir)["created_at"], data_dir=data_dir)
    assert before[0]["item"]["text"] == "Zorvan lives in Oslo"


def test_a_packed_cube_is_unpacked_on_another_box(data_dir, notes, tmp_path):
    packed, other = tmp_path / "notes.memcube", tmp_path / "other"
    memos("cube", "pack", "notes", packed, data_dir=data_dir)
    unpacked = as_json("cube", "unpack", packed, "--name", "carried", "--tenant", "acme", data_dir=other)
    assert (unpacked["manifest"]["name"], unpacked["manifest"]["owner"]) == ("carried", "acme")
    assert unpacked["packed_by"] == "local"
    items = as_json("item", "list", "carried", "--tenant", "acme", data_dir=other)["items"]
    assert [item["id"] for item in items] == notes
    # The other tenant does not see it, and is told as much as of a cube that is not there.
    refused = memos("item", "list", "carried", data_dir=other, code=1)
    assert "no cube has the name or id" in refused.stderr
    # Its log is sound, but signed by the key of the box that it comes from.
    verified = memos("cube", "verify", "carried", "--tenant", "acme", data_dir=other)
    assert "store: sound" in verified.stdout and "which is not this server's" in verified.stdout
    report = json.loads(memos("audit", "verify", "carried", "--tenant", "acme", "--json", data_dir=other, code=1).stdout)
    key = report["findings"][0]["key"]
    memos("audit", "verify", "carried", "--tenant", "acme", "--trust", key, data_dir=other)
    head = json.loads(memos("audit", "head", "notes", data_dir=data_dir).stdout)
    assert head["public_key"] == key


def test_grants_stay_behind_unless_they_are_kept(data_dir, notes, tmp_path):
    packed = tmp_path / "notes.memcube"
    memos("cube", "pack", "notes", packed, data_dir=data_dir)
    for option, name in ([], "dropped"), (["--keep-grants"], "kept"):
        unpacked = as_json("cube", "unpack", packed, *option, "--name", name, data_dir=tmp_path / name)
        assert unpacked["num_grants_dropped"] == 0


def test_a_damaged_file_is_refused_and_a_damaged_cube_does_not_verify(data_dir, notes, tmp_path):
    packed = tmp_path / "notes.memcube"
    memos("cube", "verify", "notes", data_dir=data_dir)
    memos("cube", "pack", "notes", packed, data_dir=data_dir)
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 1
    packed.write_bytes(content)
    refused = memos("cube", "unpack", packed, data_dir=tmp_path / "other", code=1)
    assert "damaged" in refused.stderr and "checksum" in refused.stderr
    assert as_json("cube", "list", data_dir=tmp_path / "other")["cubes"] == []
    # One byte of the memory's text in the store itself, in each place where it is written.
    store = data_dir / "cubes" / "notes" / "memory.sqlite"
    content = store.read_bytes()
    place = content.index(b"Velka likes teal")
    store.write_bytes(content[:place] + b"W" + content[place + 1:])
    found = memos("cube", "verify", "notes", data_dir=data_dir, code=1)
    assert "damaged" in found.stdout and "damaged or was tampered with" in found.stderr
    report = json.loads(memos("cube", "verify", "notes", "--json", data_dir=data_dir, code=1).stdout)
    assert report["is_sound"] is False and report["store"]


def test_an_edited_audit_log_does_not_verify(data_dir, notes):
    memos("audit", "verify", "notes", data_dir=data_dir)
    with sqlite3.connect(data_dir / "cubes" / "notes" / "memory.sqlite") as store:
        store.execute("UPDATE audit_entries SET actor = 'somebody' WHERE seq = 1")
    found = memos("audit", "verify", "notes", data_dir=data_dir, code=1)
    assert "entry_changed" in found.stdout
    memos("cube", "verify", "notes", data_dir=data_dir, code=1)


def test_what_was_exported_is_imported_elsewhere(data_dir, notes, tmp_path):
    exported, other = tmp_path / "notes.jsonl", tmp_path / "other"
    assert as_json("item", "export", "notes", exported, "--history", data_dir=data_dir)["num_exported"] == 2
    assert exported.stat().st_mode & 0o777 == 0o600
    memos("item", "export", "notes", exported, data_dir=data_dir, code=1)
    piped = memos("item", "export", "notes", "-", data_dir=data_dir).stdout.splitlines()
    assert len(piped) == 3 and json.loads(piped[0])["format"] == "memos-memories"
    memos("cube", "create", "copy", data_dir=other)
    report = as_json("item", "import", "copy", exported, data_dir=other)
    assert (report["num_added"], report["num_problems"]) == (2, 0)
    assert texts(other, "copy") == ["The lab code is 4417", "Velka likes teal"]
    assert as_json("item", "import", "copy", exported, data_dir=other)["num_duplicates"] == 2
    mem0 = tmp_path / "mem0.json"
    mem0.write_text(json.dumps({"results": [{"id": "a", "memory": "Likes tea", "user_id": "anna"}, {"id": "b"}]}))
    report = as_json("item", "import", "copy", mem0, "--format", "mem0", data_dir=other)
    assert (report["num_added"], report["num_problems"]) == (1, 1) and "entry 1" in report["problems"][0]
    memos("item", "import", "copy", mem0, "--format", "mem0", "--strict", data_dir=other, code=1)
    assert texts(other, "copy", "--user", "anna") == ["Likes tea"]


def test_snapshots_cubes_and_packed_files_are_compared(data_dir, notes, tmp_path):
    packed = tmp_path / "before.memcube"
    memos("cube", "snapshot", "notes", "before", data_dir=data_dir)
    memos("cube", "pack", "notes", packed, data_dir=data_dir)
    new = add("One more", data_dir=data_dir)
    for arguments in (["notes", "--snapshot", "before"], [packed, "notes"]):
        difference = as_json("cube", "diff", *arguments, data_dir=data_dir)
        assert [(entry["id"], entry["change"], entry["text"]) for entry in difference] == [(new, "added", "One more")]
    assert as_json("cube", "diff", "notes", packed, data_dir=data_dir)[0]["change"] == "removed"
    facts = as_json("cube", "inspect", "notes", data_dir=data_dir)
    assert (facts["num_memories"], facts["snapshots"]) == (3, ["before"])


def test_what_is_erased_is_in_no_file(data_dir, notes):
    canary = add("The canary xylophonequagmire sings", data_dir=data_dir)
    memos("cube", "snapshot", "notes", "before", data_dir=data_dir)
    erased = as_json("item", "erase", "notes", canary, "--reason", "asked for", data_dir=data_dir)
    assert erased["erased"] == [canary] and erased["is_final"]
    with_canary = [path for path in data_dir.rglob("*") if path.is_file() and b"xylophonequagmire" in path.read_bytes()]
    assert with_canary == []
    entries = as_json("audit", "list", "notes", "--action", "item.erase", data_dir=data_dir)
    assert [entry["reason"] for entry in entries] == ["asked for"]
    memos("audit", "verify", "notes", data_dir=data_dir)


def test_while_a_server_runs_its_directory_is_left_to_it(start, tmp_path):
    server = start(data_dir=tmp_path)
    for command in (["cube", "list"], ["item", "list", "notes"], ["audit", "list", "notes"]):
        refused = memos(*command, data_dir=tmp_path, code=1)
        assert "in use by another memos process" in refused.stderr and "/v1/cubes" in refused.stderr
    server.stop()
    memos("cube", "list", data_dir=tmp_path)


@pytest.mark.parametrize("arguments, message", [
    (["cube", "create", "../x"], "is not a cube name"),
    (["cube", "inspect", "nothing"], "no cube has the name or id"),
    (["item", "get", "notes", "x"], "invalid value 'x'"),
    (["item", "add", "notes", ""], "is empty"),
    (["item", "add", "notes", "a", "--salience", "2"], "salience 2 is not in 0 to 1"),
    (["item", "add", "notes", "a", "--kind", "thought"], "invalid value 'thought'"),
    (["cube", "unpack", "/dev/null"], "is not a cube"),
    (["cube", "diff", "notes"], "required"),
    (["cube", "diff", "notes", "--snapshot", "nothing"], "is not there"),
    (["item", "list", "notes", "--limit", "5000"], "is not in 1 to 1000"),
])
def test_what_cannot_be_done_is_said(data_dir, notes, arguments, message):
    done = run(*arguments, data_dir=data_dir)
    assert done.returncode != 0 and message in done.stderr, done.stderr


def test_every_command_has_help():
    for command in ([], ["cube"], ["item"], ["audit"], ["cube", "unpack"], ["item", "add"], ["bench", "retrieval"]):
        done = run(*command, "--help")
        assert done.returncode == 0 and "Usage:" in done.stdout
