"""Encodes and decodes with Hugging Face tokenizers, for tests that compare.

Usage: oracle.py < requests > answers

A request is one line of JSON, and so is its answer:
    {"tokenizer": path, "max_length": n or 0, "texts": [...], "pairs": [...] or null, "details": bool}
    {"ids": [[...]], "types": ..., "tokens": ..., "offsets": [[[from, to]]], "mask": ..., "decoded": [...]}
Offsets count characters. All but the ids are left out without details. What the file says of truncation and padding is
ignored, as transformers ignores it for a caller who gives truncation=True, max_length=n.
"""

import json
import sys

from tokenizers import Tokenizer

loaded = {}


def load(path, max_length):
    if (path, max_length) not in loaded:
        t = Tokenizer.from_file(path)
        t.no_padding()
        t.no_truncation()
        if max_length:
            t.enable_truncation(max_length)
        loaded[path, max_length] = t
    return loaded[path, max_length]


def answer(request):
    t = load(request["tokenizer"], request["max_length"])
    texts, pairs = request["texts"], request.get("pairs")
    encodings = t.encode_batch(list(zip(texts, pairs)) if pairs else texts)
    out = {"ids": [e.ids for e in encodings]}
    if request.get("details"):
        out["types"] = [e.type_ids for e in encodings]
        out["tokens"] = [e.tokens for e in encodings]
        out["offsets"] = [e.offsets for e in encodings]
        out["mask"] = [e.special_tokens_mask for e in encodings]
        out["decoded"] = t.decode_batch(out["ids"], skip_special_tokens=True)
        out["decoded_all"] = t.decode_batch(out["ids"], skip_special_tokens=False)
    return out


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
