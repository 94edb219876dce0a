"""Makes tiny random sentence embedders of every encoder family and their reference vectors with Hugging Face transformers.

Run it like make_reference.py. Each case becomes a folder below `embedders/`: a checkpoint as transformers writes it, the
tokenizer, the files that sentence-transformers adds (pipeline, pooling, length, prompts), and `reference.json` with one
entry per text: the text, what the vector is for, the token ids and the unit vector. Vectors come from the stored files,
reloaded and widened to float32, text by text with eager attention; that a padded batch gives the same is checked. The
script fails when the feature that a case is there for does not change the vectors.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

HERE = Path(__file__).resolve().parent / "embedders"
MAX_TOTAL_BYTES = 300_000
MAX_TOKENS = 24
FEATURE_EFFECT = 5e-5  # five times what the tests of the embedder tolerate
CORPUS = [
    "The quick brown fox jumps over the lazy dog while memory keeps what was said.",
    "Where does Ada keep the keys of the old house? In the blue box under the stairs.",
    "A fact that is newer supersedes an older one, and both stay readable at their time.",
    "query: passage: Zürich naïve café 4417 ... 日本語 Привет",
]
TEXTS = [
    "Where are the keys?",
    "The keys are in the blue box.",
    "  Spaces\taround\n and   within  ",
    "",
    "Zürich, naïve CAFÉ: 4417!",
    "日本語 Привет 🙂🙂",
    "memory " * 40,
    "unbrokenword" * 30,
    "[CLS] a [SEP] b </s> <pad> c",
    "control\u0007\u200b characters \ufffd and\u00a0such",
    "a",
]
SHAPE = dict(vocab_size=160, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, max_position_embeddings=40)
DISTILBERT_SHAPE = dict(vocab_size=160, dim=24, n_layers=1, n_heads=4, hidden_dim=40, max_position_embeddings=40)


@dataclass
class Case:
    """One embedder. `without` are configuration fields that undo the feature under test, to prove that it matters."""

    name: str
    model: type
    config: object
    pooling: dict
    dtype: torch.dtype = torch.float32
    prompts: dict = field(default_factory=dict)
    without: dict = field(default_factory=dict)


def flags(*modes):
    """Pooling as older versions of sentence-transformers write it."""
    names = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens"}
    return {f"pooling_mode_{flag}": mode in modes for mode, flag in names.items()}


def all_cases():
    bert = BertConfig(**{**SHAPE, "vocab_size": 200, "hidden_size": 32, "intermediate_size": 48})
    return [
        Case("bert-mean", BertModel, bert, flags("mean"), without={"hidden_act": "gelu_new"}),
        Case(
            "bert-cls-prefixed",
            BertForMaskedLM,
            BertConfig(**SHAPE, hidden_act="gelu_new", layer_norm_eps=0.02),
            flags("cls"),
            dtype=torch.bfloat16,
            prompts={"query": "query: ", "passage": "passage: "},
            without={"layer_norm_eps": 1e-12},
        ),
        Case(
            "bert-mean-max",
            BertModel,
            BertConfig(**{**SHAPE, "num_hidden_layers": 1}, hidden_act="relu", type_vocab_size=1),
            flags("mean", "max"),
            dtype=torch.float16,
            without={"hidden_act": "gelu"},
        ),
        Case(
            "roberta-cls",
            RobertaForMaskedLM,
            RobertaConfig(**SHAPE, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2),
            {"pooling_mode": "cls"},
            dtype=torch.bfloat16,
            without={"pad_token_id": 5},
        ),
        Case(
            "distilbert-mean",
            DistilBertModel,
            DistilBertConfig(**DISTILBERT_SHAPE),
            {"pooling_mode": "mean"},
            dtype=torch.float16,
            without={"activation": "relu"},
        ),
    ]


def word_piece(vocab_size):
    """Letters, alone and within a word, pairs and words of the corpus; the library's trainer gives others each time."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = sorted({word for line in CORPUS for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line))})
    letters = sorted(set("".join(words)))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = [f"##{letter}" for letter in letters if letter.isalnum()]
    pairs = sorted({f"##{word[i : i + 2]}" for word in words for i in range(1, len(word) - 1)})
    pieces = special + letters + inner + [word for word in words if len(word) > 1] + pairs
    assert len(pieces) >= vocab_size, f"{len(pieces)} pieces"
    vocab = {piece: index for index, piece in enumerate(pieces[:vocab_size])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    # As published tokenizers have it; the embedder has to ignore both.
    tokenizer.enable_truncation(9)
    tokenizer.enable_padding(length=9)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=512)


def byte_level(vocab_size):
    # The bytes alone are 256 tokens, which is more than the tiny vocabulary: what is left out becomes <unk>.
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", model_max_length=512)


def randomize(model):
    """Gives every weight a size that matters; transformers begins with zero biases and unit norms."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            center = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(center + 0.3 * torch.randn(parameter.shape))


def pool(hidden, mask, modes):
    """sentence-transformers' pooling: modes in a fixed order, one behind the other, then made a unit vector."""
    mask = mask.unsqueeze(-1).float()
    parts = []
    for mode in ("cls", "max", "mean"):
        if mode not in modes:
            continue
        if mode == "cls":
            parts.append(hidden[:, 0])
        elif mode == "max":
            parts.append(hidden.masked_fill(mask == 0, -1e9).max(1).values)
        else:
            parts.append((hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9))
    return torch.nn.functional.normalize(torch.cat(parts, 1), dim=1)


def modes_of(pooling):
    if "pooling_mode" in pooling:
        return {pooling["pooling_mode"]}
    return {mode for mode, flag in (("cls", "cls_token"), ("max", "max_tokens"), ("mean", "mean_tokens")) if pooling[f"pooling_mode_{flag}"]}


def embed(model, tokenizer, texts, pooling):
    encoded = tokenizer(texts, padding=len(texts) > 1, truncation=True, max_length=MAX_TOKENS, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        hidden = model(**encoded).last_hidden_state
    return encoded["input_ids"], pool(hidden, encoded["attention_mask"], modes_of(pooling))


def reload(folder, **changes):
    return AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **changes).eval()


def write_json(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=None if path.name == "reference.json" else 1) + "\n")


def make(case):
    folder = HERE / case.name
    vocab_size = case.config.vocab_size
    tokenizer = byte_level(vocab_size) if case.name.startswith("roberta") else word_piece(vocab_size)
    model = case.model(case.config)
    randomize(model)
    model.to(case.dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (kind, path) in enumerate(kinds)]
    write_json(folder / "modules.json", modules)
    width = case.config.hidden_size
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **case.pooling})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    if case.prompts:
        write_json(folder / "config_sentence_transformers.json", {"prompts": case.prompts, "default_prompt_name": None})

    model, changed = reload(folder), reload(folder, **case.without)
    entries, effect, whole = [], 0.0, []
    for text in TEXTS:
        for purpose in ("query", "passage") if case.prompts else ("passage",):
            full = (case.prompts.get(purpose, "") + text).strip()
            ids, vector = embed(model, tokenizer, [full], case.pooling)
            effect = max(effect, (embed(changed, tokenizer, [full], case.pooling)[1] - vector).abs().max().item())
            entries.append({"text": text, "purpose": purpose, "ids": ids[0].tolist(), "vector": [float(f"{x:.8g}") for x in vector[0]]})
            whole.append((full, vector[0]))
    batched = embed(model, tokenizer, [full for full, _ in whole], case.pooling)[1]
    padded = (batched - torch.stack([vector for _, vector in whole])).abs().max().item()
    assert padded < 1e-5, f"{case.name}: a padded batch differs by {padded}"
    assert effect > FEATURE_EFFECT, f"{case.name}: {case.without} changes the vectors by {effect} only"
    write_json(folder / "reference.json", {"entries": entries})
    return effect, padded


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    for seed, case in enumerate(all_cases()):
        torch.manual_seed(seed)
        effect, padded = make(case)
        size = sum(file.stat().st_size for file in (HERE / case.name).rglob("*") if file.is_file())
        print(f"{case.name:20} {size:7} bytes, feature changes {effect:.1e}, padding changes {padded:.1e}")
    total = sum(file.stat().st_size for file in HERE.rglob("*") if file.is_file())
    print(f"{total} bytes in all")
    assert total < MAX_TOTAL_BYTES, total


if __name__ == "__main__":
    main()
