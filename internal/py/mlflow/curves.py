"""Records what scikit-learn says of ranked predictions, for internal/plot.

    curves.py > internal/plot/testdata/sklearn.json
"""
import json

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

rng = np.random.default_rng(7)
cases = []
for name, rows, digits in [("smooth", 60, 12), ("ties", 200, 1), ("two rows", 2, 3), ("all equal", 20, 0)]:
    labels = rng.integers(0, 2, rows)
    labels[:2] = [0, 1]
    scores = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.2 * rng.standard_normal(rows), 0, 1).round(digits)
    if digits == 0:
        scores[:] = 0.5
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(labels, scores)
    cases.append({
        "name": name, "labels": labels.tolist(), "scores": scores.tolist(),
        "fpr": fpr.tolist(), "tpr": tpr.tolist(), "precision": precision[::-1].tolist(), "recall": recall[::-1].tolist(),
        "auc": roc_auc_score(labels, scores), "ap": average_precision_score(labels, scores),
    })
print(json.dumps(cases))
