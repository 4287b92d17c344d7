"""Records how transformers and PyTorch compute tiny classifiers: logits, gradients, ten optimizer steps.

usage: models.py OUT_DIR            the tiny ones, with random weights (internal/engine/testdata); pairs is BERT on pairs of texts
       models.py OUT_DIR BASE_DIR   the same of a pre-trained folder with a new head, into OUT_DIR/base (made at test time)

For each architecture a folder as save_pretrained writes it (config.json, model.safetensors) and golden.safetensors:
  ids [S B T], lengths [S B], labels [S B]   the batches of S steps, padded with the pad id to T
  types [S B T]                              token types, for pairs alone
  logits [B C]                               of batch 0 in evaluation mode, by attention mask at that padding
  grad.<name>                                of batch 0's mean loss, before clipping
  losses [S], norms [S]                      of S steps of AdamW, gradients clipped, learning rate decaying linearly to 0
  after.<name>                               the weights after them
Dropout is 0 in these configs. Settings are in golden.json; the Go tests read them from there.
"""
import json, pathlib, sys
import torch
from safetensors.torch import save_file
from transformers import (AutoConfig, AutoModelForSequenceClassification, BertConfig, DistilBertConfig, RobertaConfig, Trainer, TrainingArguments,
                          get_linear_schedule_with_warmup)

STEPS, BATCH, WIDTH, VOCAB = 10, 6, 24, 96
SETTINGS = dict(lr=2e-3, weight_decay=0.05, beta1=0.9, beta2=0.999, eps=1e-8, max_grad_norm=0.7, label_smoothing=0.0)
CASES = {
    "distilbert": (DistilBertConfig(vocab_size=VOCAB, dim=32, hidden_dim=64, n_layers=2, n_heads=4, max_position_embeddings=32,
                                    dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0, num_labels=2), {}),
    "bert": (BertConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3,
                        hidden_act="gelu_new"), dict(label_smoothing=0.1)),
    "roberta": (RobertaConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                              max_position_embeddings=34, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2,
                              type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2), {}),
    "pairs": (BertConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, type_vocab_size=2,
                         max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2), {}),
}


def batches(g, pad, vocab):
    """Random token ids; some tokens inside the sequences are the pad id, which tokenizers do produce from the text "[PAD]"."""
    lengths = torch.randint(2, WIDTH + 1, (STEPS, BATCH), generator=g)
    lengths[0, 0], lengths[0, 1] = WIDTH, 1
    ids = torch.randint(3, vocab, (STEPS, BATCH, WIDTH), generator=g)
    ids[:, 0, 1:2] = pad
    mask = torch.arange(WIDTH) < lengths[..., None]
    return ids.where(mask, torch.tensor(pad)), mask.long(), lengths


def spread(model, g):
    """Weights of a size that makes logits, attention and gradients differ from row to row; the 0.02 of new models does not."""
    for name, p in model.named_parameters():
        norm = "LayerNorm.weight" in name or "layer_norm.weight" in name
        p.data = torch.randn(p.shape, generator=g) * (0.1 if p.dim() == 1 else 0.25) + (1.0 if norm else 0.0)


def types_of(g, lengths):
    """1 from a random place on, as behind the first text of a pair; the padding is of type 0."""
    first = (torch.rand(lengths.shape, generator=g) * (lengths + 1)).long()
    places = torch.arange(WIDTH)
    return ((places >= first[..., None]) & (places < lengths[..., None])).long()


def loss_of(model, ids, mask, labels, settings, **types):
    logits = model(input_ids=ids, attention_mask=mask, **types).logits
    return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=settings["label_smoothing"]), logits


def tiny(name, out):
    config, changes = CASES[name]
    g = torch.Generator().manual_seed(sum(name.encode()))
    model = AutoModelForSequenceClassification.from_config(config)
    spread(model, g)
    record(model, g, {**SETTINGS, **changes}, out, pairs=name == "pairs")


def base(folder, out):
    config = AutoConfig.from_pretrained(folder, num_labels=2)
    for field in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "seq_classif_dropout"):
        if hasattr(config, field):
            setattr(config, field, 0.0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, config=config)
    record(model, torch.Generator().manual_seed(0), {**SETTINGS, "lr": 5e-5, "max_grad_norm": 1.0}, out)


def record(model, g, settings, out, pairs=False):
    config = model.config
    model.save_pretrained(out)
    ids, mask, lengths = batches(g, config.pad_token_id, min(VOCAB, config.vocab_size))
    labels = torch.randint(0, config.num_labels, (STEPS, BATCH), generator=g)
    golden = dict(ids=ids.int(), lengths=lengths.int(), labels=labels)
    types = [{}] * STEPS
    if pairs:
        golden["types"] = types_of(g, lengths).int()
        types = [dict(token_type_ids=t.long()) for t in golden["types"]]

    model.eval()
    loss, logits = loss_of(model, ids[0], mask[0], labels[0], settings, **types[0])
    longer = dict(input_ids=torch.nn.functional.pad(ids[0], (0, 4), value=config.pad_token_id), attention_mask=torch.nn.functional.pad(mask[0], (0, 4)),
                  **{k: torch.nn.functional.pad(v, (0, 4)) for k, v in types[0].items()})
    assert torch.allclose(logits, model(**longer).logits, atol=1e-5), "padding changes logits"
    golden["logits"] = logits.detach()
    loss.backward()
    golden |= {"grad." + n: p.grad.clone() for n, p in model.named_parameters()}

    model.train()
    decay = Trainer(model=model, args=TrainingArguments(output_dir="/tmp/unused", report_to=[], use_cpu=True)).get_decay_parameter_names(model)
    groups = [dict(params=[p for n, p in model.named_parameters() if (n in decay) == on], weight_decay=wd)
              for on, wd in ((True, settings["weight_decay"]), (False, 0.0))]
    opt = torch.optim.AdamW(groups, lr=settings["lr"], betas=(settings["beta1"], settings["beta2"]), eps=settings["eps"])
    schedule = get_linear_schedule_with_warmup(opt, 0, STEPS)
    losses, norms, rates = [], [], []
    for s in range(STEPS):
        model.zero_grad()
        loss, _ = loss_of(model, ids[s], mask[s], labels[s], settings, **types[s])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), settings["max_grad_norm"]))
        losses.append(loss.detach())
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        schedule.step()
    golden |= dict(losses=torch.stack(losses), norms=torch.stack(norms))
    golden |= {"after." + n: p.detach().clone() for n, p in model.named_parameters()}
    save_file({k: v.contiguous() for k, v in golden.items()}, out / "golden.safetensors")
    (out / "golden.json").write_text(json.dumps(dict(settings, rates=rates, decayed=sorted(decay)), indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs = {case: lambda out, case=case: tiny(case, out) for case in CASES}
    if len(sys.argv) > 2:
        jobs = {"base": lambda out: base(sys.argv[2], out)}
    for name, job in jobs.items():
        folder = pathlib.Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        job(folder)
