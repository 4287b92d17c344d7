"""Writes dataset/testdata/golden: the same rows in every format that package dataset reads, by the programs that users have.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install -r internal/py/dataset/requirements.txt
    /tmp/v/bin/python internal/py/dataset/golden.py dataset/testdata/golden
"""
import gzip
import json
import pathlib
import sys

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import zstandard

LABELS = ["ham", "spam"]
ROWS = [  # (text, class)
    ("Ok lar... Joking wif u oni...", 0),
    ('He said "free entry", twice', 1),
    ('"quoted from end to end"', 0),
    ("a comma, a semicolon; a | and a 'quote'", 1),
    ("two\nlines and\n\na blank one", 0),
    ("carriage return\r\nand line feed", 1),
    ("a tab\tin the middle", 0),
    ("  blanks around  ", 1),
    ("£1.50 to rcv – ünïcödé 😀 e\u0301 \u2028 日本語", 0),
    ("back\\slash \\n \\u0041 %41 &amp; <b>", 1),
    ("#not a comment", 0),
    ("1234", 1),
    ("null", 0),
    ("NA", 1),
    ("x" * 3000 + "end", 0),
    ("the same again", 1),
    ("the same again", 1),
    ("true", 0),
]
out = pathlib.Path(sys.argv[1])
texts = [t for t, _ in ROWS]
ids = [c for _, c in ROWS]
names = [LABELS[c] for c in ids]


def write(name, data):
    (out / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def text_files():
    one_line = [(n, t) for n, t in zip(names, texts) if "\n" not in t and "\r" not in t]
    plain = "".join(f"{n}\t{t}\n" for n, t in one_line)
    write("plain.tsv", plain)
    write("plain_bom_crlf_no_last_newline", b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode()[:-2])
    write("plain.tsv.gz", gzip.compress(plain[:200].encode(), mtime=0) + gzip.compress(plain[200:].encode(), mtime=0))  # two members
    df = pd.DataFrame({"id": range(len(ROWS)), "text": texts, "label": names})
    df.to_csv(out / "pandas.csv", index=False)
    df.to_csv(out / "pandas_index_quoted_crlf_bom.csv", quoting=1, lineterminator="\r\n", encoding="utf-8-sig")
    df.to_csv(out / "pandas_zstd_csv.bin", index=False, compression={"method": "zstd", "level": 19})
    df.assign(label=ids).to_csv(out / "pandas_int_label.csv", index=False)
    df.assign(label=[bool(c) for c in ids]).to_csv(out / "pandas_bool_label.csv", index=False)
    pl.DataFrame({"text": texts, "label": names}).write_csv(out / "polars.csv")
    duckdb.sql("COPY (SELECT label, text FROM df) TO '%s' (HEADER)" % (out / "duckdb.csv"))
    df.to_csv(out / "dialect_tab_header.tsv", index=False, sep="\t")
    df.to_csv(out / "dialect_semicolon_utf16.csv", index=False, sep=";", encoding="utf-16")
    df.to_csv(out / "dialect_apostrophe_no_header.csv", index=False, header=False, sep="|", quotechar="'")
    df.to_json(out / "pandas.jsonl", orient="records", lines=True)
    df.assign(label=ids).to_json(out / "pandas_int_label.jsonl.gz", orient="records", lines=True, compression={"method": "gzip", "mtime": 0})
    pl.DataFrame({"text": texts, "label": [bool(c) for c in ids]}).write_ndjson(out / "polars_bool_label.ndjson")
    duckdb.sql("COPY (SELECT text, label FROM df) TO '%s' (FORMAT json)" % (out / "duckdb.json"))
    nested = "\n\n".join(json.dumps({"mail": {"body": t}, "mail.x": 1, "y": c, "z": None}, ensure_ascii=False) for t, c in ROWS)
    write("nested_blank_lines.jsonl.zst", zstandard.ZstdCompressor(level=9).compress(nested.encode()))


def parquet_files():
    def save(name, text, label, **options):
        pq.write_table(pa.table({"text": text, "label": label}), out / name, **options)

    pd.DataFrame({"text": texts, "label": names, "n": range(len(ROWS))}).to_parquet(out / "pandas.parquet")
    pd.DataFrame({"text": texts, "label": pd.Categorical(names)}).to_parquet(out / "pandas_category.parquet")
    pl.DataFrame({"text": texts, "label": ids}).write_parquet(out / "polars_zstd.parquet")
    pl.DataFrame({"text": texts, "label": [float(c) for c in ids]}).write_parquet(out / "polars_float_label_lz4.parquet", compression="lz4")
    df = pd.DataFrame({"text": texts, "label": ids})
    duckdb.sql("COPY (SELECT text, CAST(label AS UTINYINT) AS label FROM df) TO '%s' (FORMAT parquet)" % (out / "duckdb_uint8_label.parquet"))
    save("large_string_int32_gzip.parquet", pa.array(texts, pa.large_string()), pa.array(ids, pa.int32()), compression="gzip")
    save("bool_label_brotli_v2.parquet", texts, pa.array([bool(c) for c in ids]), compression="brotli", data_page_version="2.0")
    save("dictionary_text.parquet", pa.array(texts).dictionary_encode(), pa.array(names).dictionary_encode(), compression="zstd")
    save("small_pages_and_groups.parquet", texts, ids, row_group_size=7, data_page_size=64, write_batch_size=1, use_dictionary=False, compression="none")
    save("small_pages_v2.parquet", texts, names, row_group_size=5, data_page_size=64, write_batch_size=2, data_page_version="2.0", compression="snappy")
    for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"):
        save(f"{encoding.lower()}.parquet", texts, ids, use_dictionary=False, column_encoding={"text": encoding, "label": "DELTA_BINARY_PACKED"})
    required = pa.schema([pa.field("text", pa.string(), nullable=False), pa.field("label", pa.int8(), nullable=False)])
    pq.write_table(pa.table({"text": texts, "label": ids}, schema=required), out / "required_int8.parquet")
    pq.write_table(pa.table({"mail": [{"body": t, "size": len(t)} for t in texts], "y": ids}), out / "nested.parquet")
    save("null_text.parquet", ["a", None, "b"], ["ham", "spam", "ham"])
    save("null_label.parquet", ["a", "b", "c"], pa.array([0, 1, None]))
    pq.write_table(pa.table({"text": [["a"], ["b"]], "label": [0, 1]}), out / "list_text.parquet")
    pq.write_table(pa.table({"text": [1, 2], "label": [0, 1]}), out / "int_text.parquet")


def arrow_files():
    df = pd.DataFrame({"id": range(len(ROWS)), "text": texts, "label": names, "vector": [[1.0, 2.0]] * len(ROWS)})
    df.to_feather(out / "pandas.feather")  # LZ4
    feather.write_feather(pa.table({"text": pa.array(texts, pa.large_string()), "label": pa.array(ids, pa.uint8())}), out / "zstd_large_string_uint8.arrow", compression="zstd", chunksize=5)
    pl.DataFrame({"text": texts, "label": [bool(c) for c in ids]}).write_ipc(out / "polars_string_view_bool.arrow")
    pl.DataFrame({"text": texts, "label": pl.Series(names, dtype=pl.Categorical)}).write_ipc(out / "polars_categorical_zstd.arrow", compression="zstd")
    table = pa.table({"mail": [{"body": t, "size": len(t)} for t in texts], "y": pa.array([float(c) for c in ids])})
    with pa.ipc.new_stream(out / "nested_stream_float.arrow", table.schema) as w:
        w.write_table(table, max_chunksize=7)
    table = pa.table({"label": pa.array(names).dictionary_encode(), "text": pa.array(texts).dictionary_encode()})
    with pa.ipc.new_stream(out / "dictionary_stream.bin", table.schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as w:
        w.write_table(table, max_chunksize=4)
    feather.write_feather(pa.table({"text": ["a", None, "b"], "label": ["ham", "spam", "ham"]}), out / "null_text.arrow", compression="uncompressed")
    feather.write_feather(pa.table({"text": [1, 2], "label": [0, 1]}), out / "int_text.arrow", compression="uncompressed")


out.mkdir(parents=True, exist_ok=True)
for old in out.iterdir():
    old.unlink()
text_files()
parquet_files()
arrow_files()
(out / "rows.json").write_text(json.dumps([{"text": t, "label": c} for t, c in ROWS], indent=1) + "\n")
versions = {m.__name__: m.__version__ for m in (duckdb, pd, pl, pa, zstandard)}
(out / "SOURCE.md").write_text("# Where these files come from\nMade-up rows, written by internal/py/dataset/golden.py with " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".\n`rows.json` holds what every file holds (`plain*` only the rows on one line); `null_*`, `list_*` and `int_*` are refused.\n")
