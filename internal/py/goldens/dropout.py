"""Records how PyTorch trains the tiny classifiers of models.py with dropout on, where the masks are Duratune's own.

usage: dropout.py TESTDATA_DIR      (internal/engine/testdata; models.py wrote its folders)

Masks are a function of seed, step, row of the data set, token, place in the model and element, so both sides can make the
same ones: internal/model/inputs.go (mix) and internal/torch/native/kernels.cpp (drop_key, keep) are written again here in
numpy. transformers decides where dropout stands, with which of the config's probabilities and how what is kept is scaled:
every nn.Dropout and every call for attention's probabilities is handed a mask in place of a random one. The three
probabilities differ, so that none can stand for another. Into each folder goes dropout.safetensors:
  losses [S], norms [S]    of the S steps of models.py
  grad.<name>              of batch 0's mean loss, before clipping
and into dropout.json the fields that the config has instead.
"""
import json, pathlib, sys
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, get_linear_schedule_with_warmup

SEED = 1
HIDDEN, ATTENTION, HEAD = 0.1, 0.3, 0.2
FIELDS = {
    "distilbert": dict(dropout=HIDDEN, attention_dropout=ATTENTION, seq_classif_dropout=HEAD),
    "bert": dict(hidden_dropout_prob=HIDDEN, attention_probs_dropout_prob=ATTENTION, classifier_dropout=HEAD),
    "roberta": dict(hidden_dropout_prob=HIDDEN, attention_probs_dropout_prob=ATTENTION, classifier_dropout=HEAD),
}
GOLDEN, U64, U32 = np.uint64(0x9E3779B97F4A7C15), np.uint64, np.uint32
np.seterr(over="ignore")


def finish(z):
    z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
    return z ^ (z >> U64(31))


def mix(z):
    return finish(z + GOLDEN)


def token_keys(step, rows, width):
    """[B T]"""
    base = mix(mix(U64(SEED)) ^ U64(step))
    row = mix(base + np.array(rows, U64))
    return mix(row[:, None] + np.arange(width, dtype=U64))


def mask(keys, site, n, p):
    """Scaled masks [... n] for rows with the given keys."""
    z = finish(keys + (U64(site) + U64(1)) * GOLDEN)
    a, b = z.astype(U32)[..., None], (z >> U64(32)).astype(U32)[..., None]
    x = a + np.arange(n, dtype=U32) * U32(0x9E3779B9)
    x ^= x >> U32(16)
    x *= U32(0x7FEB352D)
    x ^= b
    x ^= x >> U32(15)
    x *= U32(0x846CA68B)
    x ^= x >> U32(16)
    return torch.from_numpy(np.where(x >= U32(round(p * 4294967295)), np.float32(1 / (1 - p)), np.float32(0)))


class Masks:
    """The masks of one forward pass, asked for in the order in which the model drops."""

    def __init__(self, model, family):
        self.layers, self.family, self.keys = model.config.num_hidden_layers, family, None
        drops = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
        for m in drops.values():
            m.forward = lambda x, m=m: self.hidden(x, m.p)
        self.functional = torch.nn.functional.dropout
        torch.nn.functional.dropout = self.attention

    def begin(self, keys):
        self.keys, self.attended = keys, 0
        # Places are numbered 0 behind the embeddings, 1 + 3 i, 2 + 3 i and 3 + 3 i in layer i, then two in the head.
        # DistilBERT does not drop attention's output, DistilBERT and BERT do not drop the head's input.
        inner = [[3 + 3 * i] if self.family == "distilbert" else [2 + 3 * i, 3 + 3 * i] for i in range(self.layers)]
        head = 1 + 3 * self.layers
        self.sites = [0] + sum(inner, []) + ([head, head + 1] if self.family == "roberta" else [head + 1])

    def end(self):
        assert not self.sites and self.attended == self.layers, (self.sites, self.attended)

    def hidden(self, x, p):
        site = self.sites.pop(0)
        keys = self.keys if x.dim() == 3 else self.keys[:, 0]
        return x * mask(keys, site, x.shape[-1], p)

    def attention(self, x, p=0.5, training=True, inplace=False):
        assert x.dim() == 4 and training
        layer, self.attended = self.attended, self.attended + 1
        heads = [mask(self.keys, ((1 + 3 * layer) << 16) + h, x.shape[-1], p) for h in range(x.shape[1])]
        return x * torch.stack(heads, 1)


def record(folder, family):
    settings, golden = json.loads((folder / "golden.json").read_text()), load_file(folder / "golden.safetensors")
    ids, lengths, labels = golden["ids"].long(), golden["lengths"], golden["labels"]
    steps, batch, width = ids.shape
    attend = (torch.arange(width) < lengths[..., None]).long()
    config = AutoConfig.from_pretrained(folder, **FIELDS[family])
    model = AutoModelForSequenceClassification.from_pretrained(folder, config=config, attn_implementation="eager").train()
    groups = [dict(params=[p for n, p in model.named_parameters() if (n in settings["decayed"]) == on], weight_decay=wd)
              for on, wd in ((True, settings["weight_decay"]), (False, 0.0))]  # fmt: skip
    opt = torch.optim.AdamW(groups, lr=settings["lr"], betas=(settings["beta1"], settings["beta2"]), eps=settings["eps"])
    schedule, masks = get_linear_schedule_with_warmup(opt, 0, steps), Masks(model, family)
    out = dict(losses=torch.zeros(steps), norms=torch.zeros(steps))
    for s in range(steps):
        model.zero_grad()
        masks.begin(token_keys(s, range(s * batch, (s + 1) * batch), width))
        logits = model(input_ids=ids[s], attention_mask=attend[s]).logits
        masks.end()
        loss = torch.nn.functional.cross_entropy(logits, labels[s], label_smoothing=settings["label_smoothing"])
        loss.backward()
        if s == 0:
            out |= {"grad." + n: p.grad.clone() for n, p in model.named_parameters()}
        out["norms"][s] = torch.nn.utils.clip_grad_norm_(model.parameters(), settings["max_grad_norm"])
        out["losses"][s] = loss.detach()
        opt.step()
        schedule.step()
    torch.nn.functional.dropout = masks.functional
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "dropout.safetensors")
    (folder / "dropout.json").write_text(json.dumps(dict(seed=SEED, config=FIELDS[family]), indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for family in FIELDS:
        record(pathlib.Path(sys.argv[1]) / family, family)
