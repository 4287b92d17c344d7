"""Times Hugging Face tokenizers' encode_batch_fast, round by round as the other side asks.

Usage: TOKENIZERS_PARALLELISM=false RAYON_NUM_THREADS=1 bench.py < requests > answers

The first line is {"tokenizer": path, "max_length": n, "texts": [...]}; it is answered by {"tokens": n, "version": v}. Every
further line makes it encode all texts once, and is answered by the seconds that this took, {"wall": s, "cpu": s}.
"""

import json
import sys
import time

import tokenizers

request = json.loads(sys.stdin.readline())
t = tokenizers.Tokenizer.from_file(request["tokenizer"])
t.no_padding()
t.enable_truncation(request["max_length"])
texts = request["texts"]
tokens = sum(len(e.ids) for e in t.encode_batch_fast(texts))
print(json.dumps({"tokens": tokens, "version": tokenizers.__version__}), flush=True)
for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    t.encode_batch_fast(texts)
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}), flush=True)
