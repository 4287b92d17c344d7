"""The split of package dataset, written a second time from its documentation: in memory, by sorting everything.

    python3 internal/py/dataset/split.py dataset/testdata/golden/rows.json [SMSSpamCollection] > dataset/testdata/split.json
"""
import hashlib
import json
import math
import struct
import sys
import unicodedata
from collections import Counter
from fractions import Fraction

LABELS = ["ham", "spam"]


def key(*parts):
    return hashlib.sha256(b"".join(parts)).digest()[:16]


def normalise(text):
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def split(rows, fraction, split_seed, shuffle_seed, stratify=False, grouped=False, dedupe=None):
    """rows: (text, class, group, share). Returns the sides, each (row number, text, class) in stored order, and what repeats."""
    seen, keyed = Counter(), []
    for text, label, group, share in rows:
        name, body = LABELS[label].encode(), text.encode()
        if group or share:
            content = key(b"duratune placed content 1\n", struct.pack("<Q", len(name)), name, struct.pack("<Q", len(body)), body,
                          bytes([{"": 0, "train": 1, "test": 2}[share]]), group.encode())
        else:
            content = key(b"duratune content 1\n", struct.pack("<Q", len(name)), name, body)
        ordinal = struct.pack("<Q", seen[content])
        seen[content] += 1
        keyed.append((key(b"duratune split 1\n", struct.pack("<q", split_seed), content, ordinal),
                      key(b"duratune shuffle 1\n", struct.pack("<q", shuffle_seed), content, ordinal), text, label, group, share))
    keyed.sort()
    result = {"duplicates": sum(n - 1 for n in seen.values())}
    if dedupe:
        kept, conflicts = {}, 0
        for row in sorted(keyed, key=lambda row: (row[5] != "test", row[0])):
            first = kept.setdefault(dedupe(row[2]), row)
            conflicts += first[3] != row[3]
        result |= {"deduped": len(keyed) - len(kept), "conflicts": conflicts}
        keyed = sorted(kept.values())
    target = math.ceil(len(keyed) * Fraction(str(fraction)))
    if grouped:
        sizes, taken, chosen = Counter(row[4] for row in keyed), 0, set()
        for group in sorted(sizes, key=lambda group: key(b"duratune group 1\n", struct.pack("<q", split_seed), group.encode())):
            if taken + sizes[group] <= target:
                taken += sizes[group]
                chosen.add(group)
        test = [row for row in keyed if row[4] in chosen]
    elif any(row[5] for row in keyed):
        test = [row for row in keyed if row[5] == "test"]
    elif stratify:
        exact = [sum(row[3] == c for row in keyed) * Fraction(str(fraction)) for c in range(len(LABELS))]
        quota = [math.floor(x) for x in exact]
        for c in sorted(range(len(LABELS)), key=lambda c: (quota[c] - exact[c], c))[:target - sum(quota)]:
            quota[c] += 1
        test = [row for c in range(len(LABELS)) for row in [row for row in keyed if row[3] == c][:quota[c]]]
    else:
        test = keyed[:target]
    test = sorted(test)
    chosen_keys = {row[0] for row in test}
    numbered = [(row[1], number, row[2], row[3]) for number, row in enumerate(test + [row for row in keyed if row[0] not in chosen_keys])]
    sides = {"test": sorted(numbered[:len(test)]), "train": sorted(numbered[len(test):])}
    train_texts = {text for _, _, text, _ in sides["train"]}
    result["overlap"] = sum(text in train_texts for _, _, text, _ in sides["test"])
    for side, stored in sides.items():
        digest = hashlib.sha256()
        for _, number, text, label in stored:
            digest.update(struct.pack("<QQQ", number, label, len(text.encode())) + text.encode())
        result[side] = {"rows": len(stored), "labels": [sum(r[3] == c for r in stored) for c in range(len(LABELS))], "digest": digest.hexdigest()}
        result[side + "_numbers"] = [r[1] for r in stored][:20]
    return result


def placed(rows, groups=0, shares=0):
    """The same rows in made-up groups (by the number of characters) or shares (every shares-th is test)."""
    return [(text, label, f"g{len(text) % groups}" if groups else "", ("test" if i % shares == 0 else "train") if shares else "")
            for i, (text, label, _, _) in enumerate(rows)]


def variants(rows):
    """Rows again in another case, spacing, form and with another label, for deduplication to find."""
    return rows + [(f"  {text.upper()}\t", label, "", "") for text, label, _, _ in rows[:5]] + [(text, 1 - label, "", "") for text, label, _, _ in rows[5:9]] + [("\uff46\uff55\uff4c\uff4c", 0, "", ""), ("FULL", 1, "", "")]


golden = [(r["text"], r["label"], "", "") for r in json.load(open(sys.argv[1]))]
out = {"golden": split(golden, 0.2, 42, 22), "golden_other_seeds": split(golden, 0.5, -1, 7),
       "golden_stratified": split(golden, 0.3, 42, 22, stratify=True), "golden_grouped": split(placed(golden, groups=7), 0.4, 42, 22, grouped=True),
       "golden_assigned": split(placed(golden, shares=3), 0.2, 42, 22),
       "variants_exact": split(variants(golden), 0.2, 42, 22, dedupe=str), "variants_normalised": split(variants(golden), 0.2, 42, 22, dedupe=normalise),
       "assigned_exact": split(placed(variants(golden), shares=3), 0.2, 42, 22, dedupe=str)}
if len(sys.argv) > 2:
    lines = open(sys.argv[2], "rb").read().decode().split("\n")[:-1]
    sms = [(line.split("\t", 1)[1], LABELS.index(line.split("\t", 1)[0]), "", "") for line in lines]
    out["sms"] = split(sms, 0.2, 42, 22)
    out["sms_stratified"] = split(sms, 0.2, 42, 22, stratify=True)
    out["sms_grouped"] = split(placed(sms, groups=97), 0.2, 42, 22, grouped=True)
    out["sms_normalised"] = split(sms, 0.2, 42, 22, dedupe=normalise)
print(json.dumps(out, indent=1))
