"""Break each method in one way known from the field, and see the test suite go red.

    .venv/bin/python benchmarks/mutations.py [--out docs/mutations.md]

Each mutation is one replacement in a copy of the source; the tests that name the method run on the copy. A mutation that
survives is a hole in the tests, and makes this script fail. They stand in mutations.patch: after the name of a file, what
is broken, the text that goes (it must stand there once) and the text that comes.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import run
from inkfill.files import written_whole
from inkfill.tables import markdown

ROOT = Path(__file__).parent.parent
METHODS = ("test_schedule", "test_methods", "test_inpainting")


def mutations() -> Iterator[tuple[str, str, str, str]]:
    """The file, what is broken, the text that goes and the text that comes, of every mutation in mutations.patch."""
    for part in Path(__file__).with_suffix(".patch").read_text().removeprefix("# ").split("\n# "):
        file, _, body = part.partition("\n")
        for what, *texts in re.findall(r"^(\w.*)\n((?:-.*\n)+)((?:\+.*\n)+)", body + "\n", re.MULTILINE):
            before, after = (re.sub(r"^[-+]", "", text.rstrip("\n"), flags=re.MULTILINE) for text in texts)
            yield file, what, before, after


def run_tests(source: Path, word: str) -> tuple[bool, str]:
    """Whether the tests pass on this source, and the first that failed; ``word`` names a file of tests, or a method."""
    one = Path("tests", f"test_{word}.py")
    about = "" if (ROOT / one).exists() else {"all": "", "filters": "mcgdiff or tds"}.get(word, word)
    files = [str(one)] if (ROOT / one).exists() else [f"tests/{name}.py" for name in METHODS]
    options = ["-x", "--no-header", "-rf", "-m", "not slow", "--numprocesses", "auto", "-k", about]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *options, *files]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    if result.returncode not in (0, 5) and not failed:  # 5: no test has such a name
        sys.exit(f"the tests did not run: {result.stdout[-500:]}{result.stderr[-500:]}")
    return not failed, failed[0].removeprefix("FAILED ").split(" - ")[0] if failed else ""


def main(out: Path | None = None) -> None:
    """Run the tests on every mutation; ``out`` gets the table, as Markdown."""
    lines, survived = [], 0
    for file, what, before, after in mutations():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "src" / "inkfill", Path(folder) / "inkfill")
            path = Path(folder) / "inkfill" / file
            text = path.read_text()
            if text.count(before) != 1:
                sys.exit(f"{what}: its text stands {text.count(before)} times in {file}")
            path.write_text(text.replace(before, after))
            passed, first = run_tests(Path(folder), what.split(":")[0])
        survived += passed
        lines.append([what, "**survived**" if passed else "caught", f"`{first}`" if first else ""])
        print(f"{'SURVIVED' if passed else 'caught  '}  {what}  {first}", flush=True)
    if out:
        with written_whole(out) as temporary:
            temporary.write_text(markdown(["mutation", "result", "first test that failed"], lines, left=3) + "\n")
    sys.exit(survived > 0)


if __name__ == "__main__":
    run(main)
