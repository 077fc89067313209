"""Compile the page's kernels: ``python -m inkfill.web.build`` (needs ``pip install ziglang``, a compiler).

The compiled files are in the repository, so writing a page needs no compiler; a test compiles and compares them.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILDS = {"kernels.wasm": ["-mcpu=generic+simd128"], "kernels-relaxed.wasm": ["-mcpu=generic+simd128+relaxed_simd"]}
FLAGS = "-target wasm32-freestanding -O3 -ffreestanding -nostdlib -fno-sanitize=all -s -Wl,--no-entry"


def build(folder: Path = HERE) -> None:
    """Compile kernels.c into both ``.wasm`` files in ``folder``."""
    for name, flags in BUILDS.items():
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS.split(), *flags, "kernels.c", "-o", str(folder / name)]
        subprocess.run(command, check=True, cwd=HERE)


if __name__ == "__main__":
    build()
