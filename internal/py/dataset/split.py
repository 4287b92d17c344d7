"""The split of package dataset, written a second time from its documentation: in memory, by sorting everything.

    python3 internal/py/dataset/split.py dataset/testdata/golden/rows.json [SMSSpamCollection] > dataset/testdata/split.json
"""
import hashlib
import json
import math
import struct
import sys
from collections import Counter
from fractions import Fraction

LABELS = ["ham", "spam"]


def key(*parts):
    return hashlib.sha256(b"".join(parts)).digest()[:16]


def split(rows, fraction, split_seed, shuffle_seed):
    """rows: (text, class). Returns the sides, each a list of (row number, text, class) in stored order, and what repeats."""
    seen, keyed = Counter(), []
    for text, label in rows:
        name, body = LABELS[label].encode(), text.encode()
        content = key(b"duratune content 1\n", struct.pack("<Q", len(name)), name, body)
        ordinal = struct.pack("<Q", seen[content])
        seen[content] += 1
        keyed.append((key(b"duratune split 1\n", struct.pack("<q", split_seed), content, ordinal),
                      key(b"duratune shuffle 1\n", struct.pack("<q", shuffle_seed), content, ordinal), text, label))
    keyed.sort()
    numbered = [(shuffle, number, text, label) for number, (_, shuffle, text, label) in enumerate(keyed)]
    num_test = math.ceil(len(rows) * Fraction(str(fraction)))
    sides = {"test": sorted(numbered[:num_test]), "train": sorted(numbered[num_test:])}
    train_texts = {text for _, _, text, _ in sides["train"]}
    result = {"duplicates": sum(n - 1 for n in seen.values()), "overlap": sum(text in train_texts for _, _, text, _ in sides["test"])}
    for side, stored in sides.items():
        digest = hashlib.sha256()
        for _, number, text, label in stored:
            digest.update(struct.pack("<QQQ", number, label, len(text.encode())) + text.encode())
        result[side] = {"rows": len(stored), "labels": [sum(r[3] == c for r in stored) for c in range(len(LABELS))], "digest": digest.hexdigest()}
        result[side + "_numbers"] = [r[1] for r in stored][:20]
    return result


golden = [(r["text"], r["label"]) for r in json.load(open(sys.argv[1]))]
out = {"golden": split(golden, 0.2, 42, 22), "golden_other_seeds": split(golden, 0.5, -1, 7)}
if len(sys.argv) > 2:
    lines = open(sys.argv[2], "rb").read().decode().split("\n")[:-1]
    sms = [(line.split("\t", 1)[1], LABELS.index(line.split("\t", 1)[0])) for line in lines]
    out["sms"] = split(sms, 0.2, 42, 22)
print(json.dumps(out, indent=1))
