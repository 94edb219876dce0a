"""Broken model folders: a message that names what is wrong and an exit code, never a panic."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from server import ROOT, Server, run

BUNDLED = ROOT / "models" / "bundled" / "model"
# Far more than loading these little models takes.
START_TIMEOUT_S = 20
CASES = ROOT / "tests" / "reference" / "cases"


@pytest.fixture
def folder(tmp_path):
    """A copy of a small checkpoint with the bundled tokenizer's files beside it."""
    copy = tmp_path / "model"
    shutil.copytree(CASES / "llama", copy)
    (copy / "reference.safetensors").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, copy / name)
    return copy


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            config.pop(name, None)
        else:
            config[name] = value
    path.write_text(json.dumps(config))


def refused(folder, *words):
    """The server does not start and says why."""
    try:
        ended = run("serve", "--port", "0", "--model", folder, timeout=START_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pytest.fail("the server started instead of refusing the model")
    assert ended.returncode not in (0, 101, -6, -7, -11), (ended.returncode, ended.stderr)
    assert "panicked" not in ended.stderr and "RUST_BACKTRACE" not in ended.stderr, ended.stderr
    assert "Listening" not in ended.stdout
    for word in words:
        assert word in ended.stderr, (word, ended.stderr)


def header_of(path):
    data = path.read_bytes()
    (header_len,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + header_len]), data[8 + header_len :]


def write_safetensors(path, header, data):
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.5, 0.999])
def test_truncated_weights(folder, kept):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    refused(folder, "model.safetensors")


def test_weights_of_zeros_and_of_noise(folder):
    path = folder / "model.safetensors"
    path.write_bytes(bytes(4096))
    refused(folder, "model.safetensors")
    path.write_bytes(b"\xff" * 4096)
    refused(folder, "model.safetensors")


def test_offsets_that_lie(folder):
    path = folder / "model.safetensors"
    header, data = header_of(path)
    name = "model.norm.weight"
    begin, end = header[name]["data_offsets"]
    for offsets in ([begin, end + 4], [end, begin], [begin, 2**60], [len(data), len(data) + end - begin]):
        write_safetensors(path, {**header, name: {**header[name], "data_offsets": offsets}}, data)
        refused(folder, "model.safetensors")


def test_a_missing_tensor_is_named(folder):
    path = folder / "model.safetensors"
    header, data = header_of(path)
    write_safetensors(path, {"renamed" if name == "model.layers.1.mlp.up_proj.weight" else name: entry for name, entry in header.items()}, data)
    refused(folder, "model.layers.1.mlp.up_proj.weight")


def test_no_weights_at_all(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "safetensors")


def test_a_missing_shard_is_named(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(CASES / "llama-sharded", copy)
    shard = sorted(copy.glob("model-*.safetensors"))[1]
    shard.unlink()
    refused(copy, shard.name)


def test_a_shard_outside_the_folder_is_refused(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(CASES / "llama-sharded", copy)
    path = copy / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {name: f"../{file}" for name, file in index["weight_map"].items()}
    path.write_text(json.dumps(index))
    for shard in copy.glob("model-*.safetensors"):
        shard.rename(tmp_path / shard.name)
    refused(copy, "..")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 128},
        {"intermediate_size": 100},
        {"vocab_size": 3000},
        {"num_key_value_heads": 4},
        {"num_hidden_layers": 5},
        {"head_dim": 8},
        {"attention_bias": True},
    ],
    ids=str,
)
def test_a_config_that_contradicts_the_weights(folder, change):
    edit_config(folder, **change)
    refused(folder, "model.")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"hidden_size": 2**62}, "hidden_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"vocab_size": None}, "vocab_size"),
        ({"head_dim": 7}, "head_dim"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
        ({"max_position_embeddings": 0}, "max_position_embeddings"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_parameters": {"rope_type": "wavy", "rope_theta": 1e4}}, "wavy"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 0}}, "factor"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": -5}}, "rope_theta"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config"),
    ],
    ids=str,
)
def test_a_config_that_makes_no_sense(folder, change, word):
    edit_config(folder, **change)
    refused(folder, word)


def test_an_unknown_architecture_is_named(folder):
    edit_config(folder, model_type="brandnew", architectures=["BrandNewForCausalLM"])
    refused(folder, "BrandNewForCausalLM")
    edit_config(folder, architectures=None)
    refused(folder, "brandnew")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refused(folder, name)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"], ids=repr)
def test_a_broken_file_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    refused(folder, name)


def test_a_tokenizer_with_more_tokens_than_the_model(folder):
    """The bundled tokenizer has 1,024 tokens, the little checkpoint 200: some texts cannot be answered, and are told so."""
    with Server("--model", str(folder)) as server:
        answer = server.post("/v1/completions", {"prompt": "Tell me about the library", "max_tokens": 2})
        assert answer.status_code == 400, answer.text
        assert "200" in answer.json()["error"]["message"]
        assert server.post("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 2}).status_code == 200


def test_a_broken_chat_template_is_named(folder):
    shutil.rmtree(folder)
    shutil.copytree(BUNDLED, folder)
    (folder / "chat_template.jinja").write_text("{% for message in messages %}")
    refused(folder, "chat template")


def test_a_folder_that_is_not_there(tmp_path):
    refused(tmp_path / "nothing" / "here", "nothing")


def test_an_empty_folder(tmp_path):
    refused(tmp_path, "config.json")


def test_contradicting_limits_are_named():
    for arguments in (["--kv-cache-memory", "10"], ["--block-size", "15"], ["--max-running", "0"], ["--threads", "0"]):
        ended = run("serve", "--port", "0", *arguments)
        assert ended.returncode not in (0, 101), ended.stderr
        assert "panicked" not in ended.stderr


def test_the_folder_of_the_bundled_model_is_a_model_like_others(tmp_path):
    """What is refused above is refused for its own fault: an intact copy starts."""
    copy = tmp_path / "intact"
    shutil.copytree(BUNDLED, copy)
    with Server("--model", str(Path(copy))) as server:
        assert server.model() == "intact"
