"""Record internal/safetensors/testdata/golden.safetensors with the reference library.

Needs: pip install safetensors==0.8.0. Run from the repository root: python internal/py/safetensors/golden.py
The tensors are those of goldenTensors in internal/safetensors/golden_test.go: byte i of tensor k is (7*k + i) % 251.
"""

import ctypes
from pathlib import Path

from safetensors import TensorSpec, serialize

TENSORS = [  # name, dtype, shape, bytes
    ("b.weight", "float32", [2, 3], 24),
    ("a.weight", "float32", [3], 12),
    ("position_ids", "int64", [1, 2], 16),
    ("half", "float16", [2, 2], 8),
    ("brain", "bfloat16", [4], 8),
    ("flag", "bool", [3], 3),
    ("bytes", "uint8", [5], 5),
    ("scalar", "float64", [], 8),
    ("empty", "float32", [0, 4], 0),
    ('odd "name"\\ \u2028 \u00e9 \U0001f600 \x01\n\t\x7f<&>', "int32", [1], 4),
]

buffers = [ctypes.create_string_buffer(bytes((7 * k + i) % 251 for i in range(t[3])), t[3] or 1) for k, t in enumerate(TENSORS)]
tensors = {
    name: TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(buffer), data_len=size)
    for (name, dtype, shape, size), buffer in zip(TENSORS, buffers)
}
out = Path(__file__).parents[2] / "safetensors" / "testdata" / "golden.safetensors"
out.write_bytes(serialize(tensors, {"format": "pt"}))
