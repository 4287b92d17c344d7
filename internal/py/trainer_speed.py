"""Times Hugging Face's Trainer on rows of token ids and prints one JSON object.

Usage: trainer_speed.py --model DIR --rows ROWS.jsonl --eval-rows EVAL.jsonl [options]
       trainer_speed.py --new-distilbert DIR      writes DistilBERT-base with random weights and ends

A line of the rows is {"input_ids": […], "label": n}; ids are unpadded, special tokens included. Training runs once on
the first --warmup rows, then timed on all of them. --compile runs the whole training once before (Trainer compiles a
graph a shape).

Output: {"versions", "steps", "train_seconds", "steps_s", "samples_s", "loss", "eval_samples_s", "accuracy",
"import_seconds", "peak_device_mib"}; with --first-step only {"ended_at"}, the Unix time at the end of the first step.
"""

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402
import tempfile  # noqa: E402

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments  # noqa: E402

IMPORTED = time.perf_counter() - BEGAN


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser()
    p.add_argument("--new-distilbert", help="folder to write")
    p.add_argument("--model", help="folder with config.json and weights")
    p.add_argument("--rows")
    p.add_argument("--eval-rows")
    p.add_argument("--warmup", type=int, default=64)
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--width", type=int, help="pad to this many tokens; default: the longest row of the batch")
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--fused", action="store_true", help="adamw_torch_fused")
    p.add_argument("--workers", type=int, default=0, help="processes that collate")
    p.add_argument("--compile", help="torch_compile_mode")
    p.add_argument("--evaluate", action="store_true")
    p.add_argument("--first-step", action="store_true")
    p.add_argument("--cpu", action="store_true")
    return p.parse_args()


def read(path: str) -> list[dict]:
    rows = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    return [{"input_ids": r["input_ids"], "label": r["label"]} for r in rows]


def collator(width: int | None):
    def collate(batch: list[dict]) -> dict:
        n = width or max(len(r["input_ids"]) for r in batch)
        ids = torch.zeros(len(batch), n, dtype=torch.long)
        mask = torch.zeros(len(batch), n, dtype=torch.long)
        for i, r in enumerate(batch):
            k = len(r["input_ids"])
            ids[i, :k] = torch.tensor(r["input_ids"])
            mask[i, :k] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([r["label"] for r in batch])}

    return collate


def trainer(a: argparse.Namespace, rows: list[dict], eval_rows: list[dict], out: str) -> Trainer:
    torch.manual_seed(0)
    args = TrainingArguments(
        output_dir=out, per_device_train_batch_size=a.batch, per_device_eval_batch_size=max(8, a.batch), num_train_epochs=a.epochs,
        logging_steps=8, learning_rate=5e-5, report_to=[], save_strategy="no", eval_strategy="epoch" if a.evaluate else "no",
        max_steps=1 if a.first_step else -1, disable_tqdm=True, remove_unused_columns=False, use_cpu=a.cpu,
        bf16=a.bf16, optim="adamw_torch_fused" if a.fused else "adamw_torch", dataloader_num_workers=a.workers,
        dataloader_persistent_workers=a.workers > 0, torch_compile=bool(a.compile), torch_compile_mode=a.compile,
    )
    model = AutoModelForSequenceClassification.from_pretrained(a.model, num_labels=2)
    quiet = transformers.trainer_callback.PrinterCallback
    t = Trainer(model=model, args=args, train_dataset=rows, eval_dataset=eval_rows, data_collator=collator(a.width))
    t.remove_callback(quiet)
    return t


class FirstStep(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        print(json.dumps({"ended_at": time.time()}))


def main() -> None:
    a = parse()
    transformers.logging.set_verbosity_error()
    if a.new_distilbert:
        torch.manual_seed(0)
        transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(num_labels=2)).save_pretrained(a.new_distilbert)
        return
    rows, eval_rows = read(a.rows), read(a.eval_rows)
    with tempfile.TemporaryDirectory() as out:
        if a.first_step:
            t = trainer(a, rows, eval_rows, out)
            t.add_callback(FirstStep)
            t.train()
            return
        if not a.compile:
            trainer(a, rows[: a.warmup], eval_rows, out).train()
        t = trainer(a, rows, eval_rows, out)
        if a.compile:
            t.train()
        if not a.cpu:
            torch.cuda.reset_peak_memory_stats()
        m = t.train().metrics
        peak = 0 if a.cpu else torch.cuda.max_memory_allocated()
        began = time.perf_counter()
        predicted = t.predict(eval_rows)
        seconds = time.perf_counter() - began
    accuracy = float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())
    steps = a.epochs * -(-len(rows) // a.batch)
    print(json.dumps({
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "steps": steps, "train_seconds": m["train_runtime"], "steps_s": steps / m["train_runtime"],
        "samples_s": a.epochs * len(rows) / m["train_runtime"], "loss": m["train_loss"],
        "eval_samples_s": len(eval_rows) / seconds, "accuracy": accuracy, "import_seconds": IMPORTED, "peak_device_mib": peak / 2**20,
    }))


if __name__ == "__main__":
    main()
