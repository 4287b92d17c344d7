"""Loads models from MLflow in every way that Python has and prints labels and scores, as JSON.

Usage: mlflow_check.py TRACKING_URI TEXTS.jsonl MODEL_URI...

A line of TEXTS.jsonl is a JSON string, or an object with a key "text" and, where texts are pairs, a key "text_pair". MODEL_URI is models:/…, runs:/… or a folder.
Output: {"versions": {…}, "models": {MODEL_URI: {
    "transformers": [[label, score], …],    # mlflow.transformers.load_model, a text-classification pipeline
    "pyfunc": [[label, score], …],          # mlflow.pyfunc.load_model(...).predict
    "auto": [[label, score], …],            # AutoModelForSequenceClassification and AutoTokenizer on the artifacts
    "serving": [[label, score], …],         # mlflow.models.validate_serving_input on the stored serving example
    "signature": {"inputs": …, "outputs": …, "params": …}, "tokenizer": class name, "model": class name}}}
A way that fails ends the script with its traceback: nothing is reported as loaded that was not.
"""

import json
import os
import pathlib
import sys

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", MLFLOW_DISABLE_TELEMETRY="true", TOKENIZERS_PARALLELISM="false")

import mlflow  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

BATCH = 8


def pairs(answers) -> list[list]:
    """Label and score of pipeline or pyfunc output (a list of dicts, or a data frame)."""
    rows = answers.to_dict("records") if hasattr(answers, "to_dict") else answers
    return [[row["label"], float(row["score"])] for row in rows]


def by_auto_classes(folder: pathlib.Path, texts: list) -> list[list]:
    """What a colleague does who knows nothing of MLflow: from_pretrained on the files."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "components" / "tokenizer")
    out = []
    with torch.inference_mode():
        for i in range(0, len(texts), BATCH):
            some = texts[i : i + BATCH]
            inputs = [[t[k] for t in some] for k in ("text", "text_pair")] if isinstance(some[0], dict) else [some]
            batch = tokenizer(*inputs, padding=True, truncation=True, return_tensors="pt")
            scores, classes = torch.softmax(model(**batch).logits, dim=-1).max(dim=-1)
            out += [[model.config.id2label[c], s] for c, s in zip(classes.tolist(), scores.tolist())]
    return out


def check(uri: str, texts: list) -> dict:
    folder = pathlib.Path(mlflow.artifacts.download_artifacts(uri))
    pipeline = mlflow.transformers.load_model(uri)
    pyfunc = mlflow.pyfunc.load_model(uri)
    serving = mlflow.models.validate_serving_input(uri, (folder / "serving_input_example.json").read_text())
    signature = pyfunc.metadata.signature
    return {
        "transformers": pairs(pipeline(texts, batch_size=BATCH, truncation=True)),
        "pyfunc": pairs(pyfunc.predict(texts)),
        "auto": by_auto_classes(folder, texts),
        "serving": pairs(serving),
        "signature": {k: json.loads(v) if v else None for k, v in signature.to_dict().items()},
        "tokenizer": type(pipeline.tokenizer).__name__,
        "model": type(pipeline.model).__name__,
    }


def main() -> None:
    tracking, texts_file, *uris = sys.argv[1:]
    mlflow.set_tracking_uri(tracking)
    torch.set_num_threads(2)
    lines = [json.loads(line) for line in pathlib.Path(texts_file).read_text().splitlines()]
    texts = [line if isinstance(line, str) or "text_pair" in line else line["text"] for line in lines]
    versions = {m.__name__: m.__version__ for m in (mlflow, torch, transformers)}
    json.dump({"versions": versions, "models": {uri: check(uri, texts) for uri in uris}}, sys.stdout)


if __name__ == "__main__":
    main()
