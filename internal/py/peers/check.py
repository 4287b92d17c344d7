"""Proves that the environment computes: run by setup.sh, exits non-zero with a traceback if anything is off."""

import os
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", MLFLOW_DISABLE_TELEMETRY="true")

import mlflow.transformers  # noqa: E402,F401
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

config = transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
model = transformers.DistilBertForSequenceClassification(config)
model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([1])).loss.backward()
assert all(p.grad is not None for p in model.parameters())

with tempfile.TemporaryDirectory() as out:
    args = transformers.TrainingArguments(out, use_cpu=True, max_steps=1, report_to=[], save_strategy="no", disable_tqdm=True)
    rows = [{"input_ids": [1, 2, 3], "labels": 1}] * 8
    trainer = transformers.Trainer(model=model, args=args, train_dataset=rows, data_collator=transformers.default_data_collator)
    assert trainer.train().global_step == 1

tok = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "spam": 1, "##s": 2}, unk_token="[UNK]"))
assert tok.encode("spams").ids == [1, 2]
print(f"peers: torch {torch.__version__}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}, "
      f"mlflow {mlflow.__version__}")
