"""Reads an Arrow file of rows and one of tokens with pyarrow, checks that they agree, and prints what they are.

The ids are those of the test's encoder: 101, the text's bytes, 102, cut to 12.
"""
import json
import sys

import pyarrow as pa

rows = pa.ipc.open_file(sys.argv[1])
assert [(f.name, f.type) for f in rows.schema] == [("row", pa.int64()), ("text", pa.string()), ("label", pa.int64())], rows.schema
table = rows.read_all()
table.validate(full=True)
print("rows", json.loads(rows.schema.metadata[b"duratune.labels"]), table.num_rows)
with pa.memory_map(sys.argv[2]) as source:
    tokens = pa.ipc.open_file(source).read_all()
    assert pa.total_allocated_bytes() < 10 << 20  # mapped, not read
    tokens.validate(full=True)
    assert tokens["row"].to_pylist() == table["row"].to_pylist() and tokens["label"].to_pylist() == table["label"].to_pylist()
    for text, ids in zip(table["text"].to_pylist(), tokens["input_ids"].to_pylist()):
        assert ids == [101, *text.encode()[:10], 102], (text, ids)
    print("tokens", tokens.num_rows)
