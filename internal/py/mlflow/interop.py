"""Models for the tests of internal/mlflow, as Python writes and reads them.

    interop.py model DIR ARCH ...      small random classifiers, saved by save_pretrained as DIR/ARCH
    interop.py reference ARCH OUT      what mlflow.transformers.log_model leaves for it, without weights
    interop.py predict TEXTS URI ...   one JSON line a URI: labels and scores by every loader, and warnings
    interop.py table RUN FILE          the table artifact as load_table gives it, in JSON

ARCH is distilbert, bert or roberta. Run by the interpreter of internal/py/peers; reference needs no server.
"""
import json
import os
import pathlib
import shutil
import sys
import tempfile
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import mlflow
import torch
import transformers
from mlflow.models import infer_signature
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

# The tutorial's arguments.
INPUTS = ["This is a test!", "And this is also a test."]
EXAMPLE = ["Pass in a string", "And have it mark as spam or not."]
MODEL_CONFIG = {"batch_size": 8}
CORPUS = INPUTS + EXAMPLE + ["win free cash now", "see you at lunch tomorrow", "naïve café ünïcode 日本 🙂"]
LABELS = {"id2label": {0: "ham", 1: "spam"}, "label2id": {"ham": 0, "spam": 1}}


def wordpiece():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    ids = {t: tok.token_to_id(t) for t in special}
    tok.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return tok


def byte_level():
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tok.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tok


def build(arch):
    """A model and a tokenizer, both the same at every call."""
    torch.manual_seed(7)
    with tempfile.TemporaryDirectory() as d:
        file = str(pathlib.Path(d) / "tokenizer.json")
        (byte_level() if arch == "roberta" else wordpiece()).save(file)
        cls = {"distilbert": transformers.DistilBertTokenizerFast, "bert": transformers.BertTokenizerFast,
               "roberta": transformers.RobertaTokenizerFast}[arch]
        tokenizer = cls(tokenizer_file=file, model_max_length=64)
    vocab = len(tokenizer)
    if arch == "distilbert":
        config = transformers.DistilBertConfig(vocab_size=vocab, dim=32, n_layers=2, n_heads=4, hidden_dim=64,
                                               max_position_embeddings=64, **LABELS)
        model = transformers.DistilBertForSequenceClassification(config)
    else:
        base = dict(vocab_size=vocab, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                    max_position_embeddings=66, pad_token_id=tokenizer.pad_token_id, **LABELS)
        if arch == "bert":
            model = transformers.BertForSequenceClassification(transformers.BertConfig(**base))
        else:
            config = transformers.RobertaConfig(type_vocab_size=1, bos_token_id=0, eos_token_id=2, **base)
            model = transformers.RobertaForSequenceClassification(config)
    # Spread the logits, so that scores differ from 0.5 by more than any tolerance.
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
    return model.eval(), tokenizer


def model(out, *archs):
    for arch in archs:
        m, tokenizer = build(arch)
        m.save_pretrained(os.path.join(out, arch))
        tokenizer.save_pretrained(os.path.join(out, arch))


def reference(arch, out):
    m, tokenizer = build(arch)
    pipeline = transformers.pipeline("text-classification", model=m, tokenizer=tokenizer, device="cpu")
    with tempfile.TemporaryDirectory() as d:
        mlflow.set_tracking_uri("sqlite:///" + d + "/db.sqlite")
        mlflow.create_experiment("reference", artifact_location=d + "/artifacts")
        mlflow.set_experiment("reference")
        with mlflow.start_run():
            signature = infer_signature(INPUTS, mlflow.transformers.generate_signature_output(pipeline, INPUTS), params=MODEL_CONFIG)
            info = mlflow.transformers.log_model(
                transformers_model=pipeline, name="fine_tuned", signature=signature, input_example=EXAMPLE, model_config=MODEL_CONFIG)
        source = pathlib.Path(mlflow.artifacts.download_artifacts(info.model_uri))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors", "registered_model_meta"))
    # Where the throwaway store lay says nothing.
    mlmodel = pathlib.Path(out) / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace(d, "/store"))


def scores(rows):
    return [[r["label"], float(r["score"])] for r in rows]


def by_pretrained(path, texts):
    """Without MLflow: the two folders within the model directory."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path / "components" / "tokenizer")
    m = transformers.AutoModelForSequenceClassification.from_pretrained(path / "model")
    return scores(transformers.pipeline("text-classification", model=m, tokenizer=tokenizer, device="cpu")(texts))


def predict(texts, *uris):
    texts = json.loads(texts)
    for uri in uris:
        with warnings.catch_warnings(record=True) as caught, tempfile.TemporaryDirectory() as d:
            warnings.simplefilter("always")
            if os.path.exists(os.path.join(uri, "config.json")):  # a plain folder of Hugging Face
                pipeline = transformers.pipeline("text-classification", model=uri, tokenizer=uri, device="cpu")
                line = {"uri": uri, "transformers": scores(pipeline(texts))}
            else:
                loaded = mlflow.pyfunc.load_model(uri)
                path = pathlib.Path(mlflow.artifacts.download_artifacts(uri, dst_path=d))
                served = mlflow.models.validate_serving_input(uri, (path / "serving_input_example.json").read_text())
                line = {
                    "uri": uri,
                    "transformers": scores(mlflow.transformers.load_model(uri, device="cpu")(texts)),
                    "pyfunc": scores(loaded.predict(texts).to_dict("records")),
                    "pretrained": by_pretrained(path, texts),
                    "served": scores(served.to_dict("records")),
                    "params": [p.name for p in loaded.metadata.signature.params],
                    "model_id": loaded.metadata.model_id,
                    "run_id": loaded.metadata.run_id,
                }
            line["mismatches"] = [str(w.message) for w in caught if "mismatch" in str(w.message)]
        print(json.dumps(line), flush=True)


def table(run_id, file):
    run = mlflow.get_run(run_id)
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    print(mlflow.load_table(file, run_ids=[run_id]).to_json(orient="split", index=False))


if __name__ == "__main__":
    {"model": model, "reference": reference, "predict": predict, "table": table}[sys.argv[1]](*sys.argv[2:])
