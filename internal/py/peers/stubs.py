"""Builds stand-ins for the CUDA libraries that `import torch` loads and a CPU never calls.

Usage: stubs.py SITE_PACKAGES

torch's Linux wheel links libcublas, libcudnn, libnccl and others: gigabytes that only a GPU uses. A stand-in has the
library's soname, the symbol versions torch asks for, and functions that end the process with a message. It is written
to nvidia/cu13/lib, which is on the RPATH of torch's libraries, so no LD_LIBRARY_PATH is needed.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

# Unversioned symbols, by prefix: readelf does not say which library they belong to.
PREFIXES = {
    "cusparseLt": "libcusparseLt.so",
    "cuFile": "libcufile.so",
    "nccl": "libnccl.so",
    "nvshmem": "libnvshmem_host.so",
}

TRAP = r"""
#include <stdio.h>
#include <stdlib.h>
static void trap(void) {
    fputs("%(soname)s is a stand-in: this environment computes on the CPU only\n", stderr);
    abort();
}
"""


def readelf(flag: str, lib: pathlib.Path) -> str:
    cmd = ["readelf", "--wide", flag, str(lib)]
    return subprocess.run(cmd, check=True, capture_output=True, text=True).stdout


def needed(lib: pathlib.Path) -> list[str]:
    """The sonames that lib is linked with."""
    return re.findall(r"\(NEEDED\).*\[(.+)\]", readelf("--dynamic", lib))


def undefined(lib: pathlib.Path) -> list[tuple[str, str]]:
    """Name and version ("" for none) of each symbol that lib expects others to define."""
    found = re.findall(r" (?:GLOBAL|WEAK) +DEFAULT +UND ([^\s@]+)(?:@(\S+))?", readelf("--dyn-syms", lib))
    return [(name, version) for name, version in found]


def owner(name: str, version: str, missing: set[str]) -> str | None:
    """The missing library that symbol name@version belongs to."""
    if version in missing:  # CUDA's version nodes are named like the soname
        return version
    for prefix, stem in PREFIXES.items():
        if name.startswith(prefix):
            return next((soname for soname in missing if soname.startswith(stem)), None)
    return None


def build(out: pathlib.Path, soname: str, symbols: set[tuple[str, str]]) -> None:
    """Compiles the stand-in for soname with its symbols, each in its version node."""
    source = [TRAP % {"soname": soname}]
    source += [f'void {name}(void) __attribute__((alias("trap")));' for name, _ in sorted(symbols)]
    nodes: dict[str, list[str]] = {}
    for name, version in sorted(symbols):
        nodes.setdefault(version, []).append(name)
    versions = [f"{v} {{ global: {'; '.join(names)}; }};" for v, names in nodes.items() if v]
    with tempfile.TemporaryDirectory() as tmp:
        c, script = pathlib.Path(tmp, "stub.c"), pathlib.Path(tmp, "versions")
        c.write_text("\n".join(source))
        script.write_text("\n".join(versions))
        cmd = ["gcc", "-shared", "-fPIC", "-w", "-o", str(out / soname), f"-Wl,-soname,{soname}", str(c)]
        if versions:
            cmd.append(f"-Wl,--version-script={script}")
        subprocess.run(cmd, check=True)


def main() -> None:
    site = pathlib.Path(sys.argv[1])
    out = site / "nvidia" / "cu13" / "lib"
    libs = [site / "torch" / "lib" / f"libtorch_{part}.so" for part in ("cuda", "nvshmem", "python")]
    present = {f.name for d in (out, site / "torch" / "lib") for f in d.iterdir()}
    system = re.compile(r"^(ld-linux|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so)")
    missing = {n for lib in libs for n in needed(lib) if n not in present and not system.match(n)}
    symbols: dict[str, set[tuple[str, str]]] = {soname: set() for soname in missing}
    for lib in libs:
        for name, version in undefined(lib):
            if soname := owner(name, version, missing):
                symbols[soname].add((name, version))
    for soname in sorted(missing):
        build(out, soname, symbols[soname])
        print(f"{soname}: {len(symbols[soname])} symbols", file=sys.stderr)


if __name__ == "__main__":
    main()
