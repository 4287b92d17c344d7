"""Records the logits of the tiny classifiers of models.py with other values in their configs.

usage: fields.py TESTDATA_DIR      (internal/engine/testdata; models.py wrote its folders)

Only fields that leave the shapes of the weights as they are, so that the same weights serve: what other fields say, the
shapes say too. Into each folder goes fields.json: a list of {"config": changes, "logits": those of batch 0, row by row}.
"""
import json, pathlib, sys
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

ACTIVATIONS = ["gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate", "relu", "silu", "swish", "tanh"]
CHANGES = {
    "distilbert": [dict(activation=a) for a in ACTIVATIONS] + [dict(n_heads=2), dict(pad_token_id=5)],
    "bert": [dict(hidden_act=a) for a in ACTIVATIONS] + [dict(num_attention_heads=2), dict(layer_norm_eps=0.01), dict(pad_token_id=5)],
    "roberta": [dict(hidden_act=a) for a in ACTIVATIONS] + [dict(num_attention_heads=2), dict(layer_norm_eps=0.01), dict(pad_token_id=0)],
}


def logits(folder, changes):
    config = AutoConfig.from_pretrained(folder, **changes)
    model = AutoModelForSequenceClassification.from_pretrained(folder, config=config).eval()
    golden = load_file(folder / "golden.safetensors")
    ids, lengths = golden["ids"][0].long(), golden["lengths"][0]
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    with torch.no_grad():
        return model(input_ids=ids.where(mask, torch.tensor(config.pad_token_id)), attention_mask=mask.long()).logits.tolist()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for family, changes in CHANGES.items():
        folder = pathlib.Path(sys.argv[1]) / family
        rows = [json.dumps(dict(config=c, logits=logits(folder, c))) for c in changes]
        (folder / "fields.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")
