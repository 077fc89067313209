"""Plant bugs in copies of the source, and see the tests fail.

    .venv/bin/python reports/fault_injection.py check      every bug applies, and changes the source; seconds
    .venv/bin/python reports/fault_injection.py measure    run the tests on every bug; hours
    .venv/bin/python reports/fault_injection.py page

reports/fault-injection/bugs.patch holds, after the name of a file, what is wrong, the text to remove (it must stand
there once) and the text to insert. The tests of the file's folder run on a copy; a bug that they miss fails the script.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import REPORTS, distinct, folder, run, save, saved, show, write_tables
from inkfill.tables import markdown

REPORT, ROOT = "fault-injection", REPORTS.parent


@dataclass(frozen=True)
class Bug:
    """One replacement in a file of the package."""

    file: str
    about: str
    before: str
    after: str

    def applied(self) -> str:
        """The source of the file with the bug. Exits where the text to remove is not there once."""
        text = (ROOT / "src" / "inkfill" / self.file).read_text(encoding="utf-8")
        if text.count(self.before) != 1:
            sys.exit(f"{self.about}: its text stands {text.count(self.before)} times in {self.file}")
        return text.replace(self.before, self.after)

    @property
    def tests(self) -> Path:
        """The tests of the file's folder, or all."""
        own = ROOT / "tests" / self.file.split("/")[0]
        return own if own.is_dir() else ROOT / "tests"


def bugs() -> Iterator[Bug]:
    """The bugs of bugs.patch."""
    text = (folder(REPORT) / "bugs.patch").read_text(encoding="utf-8")
    for part in text.removeprefix("# ").split("\n# "):
        file, _, body = part.partition("\n")
        for about, *texts in re.findall(r"^(\w.*)\n((?:-.*\n)+)((?:\+.*\n)+)", body + "\n", re.MULTILINE):
            before, after = (re.sub(r"^[-+]", "", text.rstrip("\n"), flags=re.MULTILINE) for text in texts)
            yield Bug(file, about, before, after)


def check() -> None:
    """Apply every bug to the text of its file."""
    every = list(bugs())
    for bug in every:
        if bug.applied() == (ROOT / "src" / "inkfill" / bug.file).read_text(encoding="utf-8"):
            sys.exit(f"{bug.about}: changes nothing")
    print(f"{len(every)} bugs apply")


def first_failure(source: Path, tests: Path) -> str:
    """The first test that fails on this source; empty if all pass."""
    options = ["-x", "--no-header", "-rf", "-m", "", "--numprocesses", "auto"]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *options, str(tests.relative_to(ROOT))]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    if result.returncode and not failed:
        sys.exit(f"the tests did not run: {result.stdout[-500:]}{result.stderr[-500:]}")
    return failed[0].removeprefix("FAILED ").split(" - ")[0] if failed else ""


def measure(only: str = "") -> None:
    """Run the tests on every bug, or on those that contain ``only`` in their description."""
    rows = []
    for bug in (bug for bug in bugs() if only in bug.about):
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(ROOT / "src" / "inkfill", Path(place) / "inkfill")
            (Path(place) / "inkfill" / bug.file).write_text(bug.applied(), encoding="utf-8")
            failed = first_failure(Path(place), bug.tests)
        row = {"file": bug.file, "bug": bug.about, "caught": bool(failed), "test": failed}
        rows.append(show(row))
    if not only:
        save(REPORT, "bugs", rows)
    sys.exit(not all(row["caught"] for row in rows))


def page() -> None:
    """Rewrite the table of the page from JSON."""
    rows = saved(REPORT, "bugs")
    lines = []
    for subject in distinct([{"subject": row["bug"].split(":")[0]} for row in rows], "subject"):
        those = [row for row in rows if row["bug"].split(":")[0] == subject]
        examples = those[0]["bug"].split(": ", 1)[1]
        lines.append([subject, f"{sum(row['caught'] for row in those)} of {len(those)}", examples])
    write_tables(REPORT, {"bugs": markdown(["subject", "caught", "for example"], lines, left=3)})


if __name__ == "__main__":
    run(check, measure, page)
