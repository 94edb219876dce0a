"""Trains and writes the tokenizer: byte-level BPE whose pieces copy well, and the chat template.

The pre-tokenizer sets capitals, digits and punctuation apart. " Zorvan", "Zorvan" and "zorvan"
then share their tail, and a code is a run of single characters, so that copying a name or a code
from the memories is copying a short run of tokens, wherever in a sentence it stands.
"""

import argparse
import json
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import Recipe, make_chat
from vocabulary import Split

END_OF_TEXT, SYSTEM, USER, ASSISTANT, END = "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIALS = [END_OF_TEXT, SYSTEM, USER, ASSISTANT, END]
ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
VOCAB_SIZE = 1024

# In order: the possessive, capitals, runs of other letters, single digits, single marks, line ends, spaces.
PIECES = r"'s(?!\p{L})| ?\p{Lu}| ?[^\s\p{Lu}\p{N}\p{P}\p{S}]+|\p{N}|[\p{P}\p{S}]|\s*[\r\n]|\s+(?!\S)|\s"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Unknown role: ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(num_chats: int, seed: int) -> Tokenizer:
    """Byte-level BPE over generated chats; every byte is a token, so any UTF-8 is representable."""

    def texts():
        rng = Random(seed)
        for _ in range(num_chats):
            for message in make_chat(rng, Recipe(), Split.TRAIN).messages():
                yield message["content"]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, model_max_length: int) -> None:
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    marked = {"bos_token": END_OF_TEXT, "eos_token": END, "pad_token": END_OF_TEXT}
    config = {
        **marked,
        "add_bos_token": False,
        "add_prefix_space": False,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", marked)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model", help="folder to write to")
    parser.add_argument("--chats", type=int, default=20000, help="chats to learn the merges from")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tokenizer = train_tokenizer(arguments.chats, arguments.seed)
    write_tokenizer(tokenizer, arguments.out, model_max_length=4096)
    print(f"{tokenizer.get_vocab_size()} tokens written to {arguments.out}")


if __name__ == "__main__":
    main()
