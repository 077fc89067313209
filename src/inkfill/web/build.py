"""Compile the page's kernels: ``python -m inkfill.web.build`` (needs ``pip install ziglang``, a compiler as a package).

The result is kept beside the source, so that nobody who makes a page needs a compiler; a test builds it again.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILDS = {"kernels.wasm": ["-mcpu=generic+simd128"], "kernels-relaxed.wasm": ["-mcpu=generic+simd128+relaxed_simd"]}
FLAGS = "-target wasm32-freestanding -O3 -ffreestanding -nostdlib -fno-sanitize=all -s -Wl,--no-entry"


def build(folder: Path = HERE) -> None:
    """Compile kernels.c into both files of ``folder``."""
    for name, flags in BUILDS.items():
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS.split(), *flags, "kernels.c", "-o", str(folder / name)]
        subprocess.run(command, check=True, cwd=HERE)


if __name__ == "__main__":
    build()
