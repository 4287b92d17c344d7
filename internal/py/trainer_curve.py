"""Runs Hugging Face's Trainer on rows of token ids and prints all that it computed, as JSON.

Usage: trainer_curve.py --model DIR --rows ROWS.jsonl [--order ORDER.json] [options]

A line of ROWS.jsonl is {"input_ids": […], "label": n}; ids are unpadded, special tokens included. ORDER.json holds one
list of row indices an epoch, and Trainer takes the rows in that order (the last batch may be smaller); without it
Trainer shuffles by --seed. Padding is to the longest row of a batch, or to --width.

Output: {"versions", "args", "steps", "log_history", "seconds"}. log_history is Trainer's own: in transformers 5 its
numbers are not rounded, loss is the mean of the steps since the last entry (also across an epoch's end; summed in
float32), learning_rate is the one that the last step used, epoch is a fraction. steps has, for every optimizer step,
its number (from 1), loss, learning rate used, gradient norm before clipping, and the rows taken.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")

import accelerate  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

# The dropout fields of the configurations, by their own names.
DROPOUTS = ("dropout", "attention_dropout", "seq_classif_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True, help="folder with config.json and weights")
    p.add_argument("--rows", required=True)
    p.add_argument("--order", help="JSON: one list of row indices an epoch")
    p.add_argument("--eval-rows", help="JSONL as --rows, evaluated after each epoch")
    p.add_argument("--save", help="folder for the trained model")
    p.add_argument("--labels", type=int, default=2)
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--max-steps", type=int, default=-1, help="stop early; the schedule is then for so many steps")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--eval-batch", type=int, default=8)
    p.add_argument("--accumulate", type=int, default=1)
    p.add_argument("--divide", action="store_true", help="divide each part's loss by --accumulate; see load()")
    p.add_argument("--lr", type=float, default=5e-5)
    p.add_argument("--schedule", default="linear", choices=["linear", "cosine", "constant", "constant_with_warmup"])
    p.add_argument("--warmup", type=float, default=0, help="steps, or a share of all steps below 1")
    p.add_argument("--weight-decay", type=float, default=0.0)
    p.add_argument("--max-grad-norm", type=float, default=1.0)
    p.add_argument("--label-smoothing", type=float, default=0.0)
    p.add_argument("--logging-steps", type=int, default=8)
    p.add_argument("--width", type=int, help="pad to this many tokens; default: the longest row of the batch")
    p.add_argument("--pad", type=int, help="pad id; default: the configuration's")
    p.add_argument("--dropout", choices=["on", "off"], default="off")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--threads", type=int, default=1)
    return p.parse_args()


def read_rows(path: str) -> list[dict]:
    rows = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    return [{"input_ids": r["input_ids"], "labels": r["label"], "row": i} for i, r in enumerate(rows)]


class Order(torch.utils.data.Sampler):
    """Yields the rows of the epoch that Trainer says it is in."""

    def __init__(self, epochs: list[list[int]]):
        self.epochs, self.epoch = epochs, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.epochs[self.epoch])

    def __iter__(self):
        return iter(self.epochs[self.epoch])


class Recorder(transformers.Trainer):
    """Trainer, with the order dictated and every step written down."""

    def __init__(self, *args, order: Order | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.order, self.steps, self.window, self.taken = order, [], [], []

    def _get_train_sampler(self, train_dataset=None):
        return self.order or super()._get_train_sampler(train_dataset)

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.taken += inputs.pop("row").tolist()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.window.append(loss.item())
        return loss

    def prediction_step(self, model, inputs, *args, **kwargs):
        inputs.pop("row")
        return super().prediction_step(model, inputs, *args, **kwargs)

    def _clip_grad_norm(self, model):
        norm = super()._clip_grad_norm(model)
        self._record(norm)
        return norm

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        if self.args.max_grad_norm == 0:  # else it was recorded when it was clipped
            self._record(norm)
        return norm

    def _record(self, norm) -> None:
        rate = self.lr_scheduler.get_last_lr()[0]
        self.steps.append({"step": len(self.steps) + 1, "loss": sum(self.window), "learning_rate": rate, "grad_norm": float(norm), "rows": self.taken})
        self.window, self.taken = [], []


def collator(pad: int, width: int | None):
    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        n = width or max(len(r["input_ids"]) for r in rows)
        ids = torch.full((len(rows), n), pad, dtype=torch.long)
        mask = torch.zeros((len(rows), n), dtype=torch.long)
        for i, r in enumerate(rows):
            ids[i, : len(r["input_ids"])] = torch.tensor(r["input_ids"])
            mask[i, : len(r["input_ids"])] = 1
        labels, numbers = (torch.tensor([r[k] for r in rows]) for k in ("labels", "row"))
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "row": numbers}

    return collate


def metrics(prediction) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 of class 1, as scikit-learn's binary averages."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    guess = np.argmax(prediction.predictions, axis=-1)
    average = "binary" if prediction.predictions.shape[-1] == 2 else "macro"
    precision, recall, f1, _ = precision_recall_fscore_support(prediction.label_ids, guess, average=average, zero_division=0)
    return {"accuracy": float(accuracy_score(prediction.label_ids, guess)), "f1": float(f1), "precision": float(precision), "recall": float(recall)}


def load(a: argparse.Namespace):
    torch.set_num_threads(a.threads)
    transformers.set_seed(a.seed)  # before the head is drawn
    config = transformers.AutoConfig.from_pretrained(a.model, num_labels=a.labels)
    if a.dropout == "off":
        for field in DROPOUTS:
            if getattr(config, field, None) is not None:
                setattr(config, field, 0.0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(a.model, config=config, dtype=torch.float32)
    # Trainer 5.17 takes a forward() with **kwargs for one that divides its loss by num_items_in_batch, and does not divide it
    # itself then. The classifiers have **kwargs and return their batch's mean, so that a step's loss and gradients are sums over
    # the parts. This is the switch that models have to say so.
    if a.divide:
        model.accepts_loss_kwargs = False
    return model


def arguments(a: argparse.Namespace, out: str) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        out, use_cpu=True, num_train_epochs=a.epochs, max_steps=a.max_steps, per_device_train_batch_size=a.batch, per_device_eval_batch_size=a.eval_batch,
        gradient_accumulation_steps=a.accumulate, learning_rate=a.lr, lr_scheduler_type=a.schedule, warmup_steps=a.warmup, weight_decay=a.weight_decay,
        max_grad_norm=a.max_grad_norm, label_smoothing_factor=a.label_smoothing, logging_steps=a.logging_steps, seed=a.seed,
        eval_strategy="epoch" if a.eval_rows else "no", save_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False,
        label_names=["labels"], dataloader_pin_memory=False,
    )  # fmt: skip


def main() -> None:
    a = parse()
    model = load(a)
    pad = a.pad if a.pad is not None else model.config.pad_token_id or 0
    order = Order(json.loads(pathlib.Path(a.order).read_text())) if a.order else None
    with tempfile.TemporaryDirectory() as out:
        args = arguments(a, out)
        trainer = Recorder(
            model=model, args=args, train_dataset=read_rows(a.rows), eval_dataset=read_rows(a.eval_rows) if a.eval_rows else None,
            data_collator=collator(pad, a.width), compute_metrics=metrics if a.eval_rows else None, order=order,
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    if a.save:
        trainer.save_model(a.save)
    versions = {m.__name__: m.__version__ for m in (torch, transformers, accelerate)}
    json.dump({"versions": versions, "args": vars(a), "steps": trainer.steps, "log_history": trainer.state.log_history, "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
