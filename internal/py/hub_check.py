"""Reads a hub with Hugging Face's own libraries and prints what they got, as JSON.

Usage: HF_ENDPOINT=http://127.0.0.1:PORT hub_check.py CACHE_DIR MODEL [DATASET]

It proves that hubtest's server speaks the hub's protocol: huggingface_hub lists and downloads (small files, large ones
by redirect), transformers loads the model by its name, datasets loads the rows and the class names.
"""

import hashlib
import json
import os
import pathlib
import sys

cache, model = sys.argv[1:3]
os.environ.update(HF_HOME=cache, HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")

import huggingface_hub  # noqa: E402


def digests(folder: str) -> dict[str, str]:
    root = pathlib.Path(folder)
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


out = {}
info = huggingface_hub.HfApi().model_info(model, files_metadata=True)
out["listing"] = {s.rfilename: s.lfs.sha256 if s.lfs else s.blob_id for s in info.siblings}
out["commit"] = info.sha
folder = huggingface_hub.snapshot_download(model)
out["model"] = digests(folder)
out["model_commit"] = pathlib.Path(folder).name

import transformers  # noqa: E402

net = transformers.AutoModelForSequenceClassification.from_pretrained(model)
out["parameters"] = sum(p.numel() for p in net.parameters())
out["ids"] = transformers.AutoTokenizer.from_pretrained(model)("Free entry!")["input_ids"]

if len(sys.argv) > 3:
    import datasets

    rows = datasets.load_dataset(sys.argv[3], split="train")
    out["columns"] = rows.column_names
    out["labels"] = rows.features["label"].names
    text = next(c for c in rows.column_names if c != "label")
    body = "".join(f"{label}\t{line}\n" for label, line in zip(rows["label"], rows[text]))
    out["rows"], out["rows_sha256"] = len(rows), hashlib.sha256(body.encode()).hexdigest()

json.dump(out, sys.stdout)
