"""Prints the values that internal/train's tests expect: learning-rate schedules of transformers, scores of scikit-learn."""
import torch
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from transformers import get_scheduler


def rates(kind, total, warmup, steps):
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([p], lr=5e-5)
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(total):
        if step in steps:
            print(kind, f"total {total} warmup {warmup} step {step}:", repr(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()


def scores(name, logits, labels, average):
    x, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    p = x.argmax(-1)
    print(name, torch.nn.functional.cross_entropy(x, y).item(), accuracy_score(y, p), precision_recall_fscore_support(y, p, average=average, zero_division=0))


rates("linear", 1674, 0, {0, 7, 1673})
rates("linear", 100, 10, {0, 5, 55})
rates("cosine", 100, 10, {55})
rates("cosine", 100, 0, {25})
rates("constant", 100, 0, {99})
scores("binary", [[2, -1], [0, 1], [3, 0], [-1, 2], [1, 0]], [0, 1, 1, 1, 0], "binary")
scores("binary without positives", [[2, -1], [3, 0]], [0, 0], "binary")
scores("macro", [[2, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 2]], [0, 1, 2, 2], "macro")
