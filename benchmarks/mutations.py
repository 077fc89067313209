"""Break each method in one way known from the field, and see the test suite go red.

    .venv/bin/python benchmarks/mutations.py [--out docs/mutations.md]

Each mutation is one replacement in a copy of the source; the tests that name the method run on the copy. A mutation that
survives is a hole in the tests, and makes this script fail.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import command_line
from inkfill.checkpoint import written_whole
from inkfill.evaluation.tables import markdown

ROOT = Path(__file__).parent.parent
# As in a patch: the file, what is broken, the text that goes (it must stand there once) and the text that comes.
MUTATIONS = """
# methods/chains.py
replacement: the observation is noised to the level below
-x = torch.where(observation.known, schedule.q_sample(observation.pixels, t, task.noise()), x)
+x = torch.where(observation.known, schedule.q_sample(observation.pixels, max(s, 1), task.noise()), x)
replacement: known pixels are put in clean, not noised
-x = torch.where(observation.known, schedule.q_sample(observation.pixels, t, task.noise()), x)
+x = torch.where(observation.known, observation.pixels, x)
repaint: no noise on the way up
-x = schedule.renoise(x, t, s, task.noise())
+x = schedule.renoise(x, t, s, torch.zeros_like(x))
repaint: jumps start one level late
-range(1, steps - jump + 1, jump)
+range(2, steps - jump + 1, jump)
dps: one norm for the whole batch
-misfit(x0_hat).flatten(1).norm(dim=1).clamp(min=1e-8).view(-1, *[1] * (x.ndim - 1))
+misfit(x0_hat).norm().clamp(min=1e-8)
dps: up the gradient
-+ 2 * strength * gradient / norm
+- 2 * strength * gradient / norm
# methods/guided.py
ddnm: the known pixels are not put into the prediction
-return torch.where(task.observation.known, task.observation.pixels, x0_hat)
+return x0_hat
pigdm: the guidance without its factor (1 - alpha_bar) / sqrt(alpha_bar)
-return task.clip(x0_hat + (1 - a) / a**0.5 * gradient)
+return task.clip(x0_hat + gradient)
# methods/particles.py
mcgdiff: weights without the potential of the level before
-return torch.where(known, after - before, 0.0).flatten(1).sum(1)
+return torch.where(known, after, 0.0).flatten(1).sum(1)
mcgdiff: the gain forgets the noise of the observation
-gain = v / (v + 1 - a_s)
+gain = v / (v + 1)
tds: the proposal is not paid for in the weights
-self.correction = ratio.flatten(1).sum(1) - self.twist[ancestors]
+self.correction = -self.twist[ancestors]
filters: log-weights are not carried when nothing is resampled
-log_w = torch.where(degenerate[:, None], 0.0, log_w)
+log_w = torch.zeros_like(log_w)
filters: particles of one row are taken for another's
-ancestors = (rows + chosen).flatten()
+ancestors = chosen.flatten()
# denoiser.py
tds: the twist without its normaliser
-log_p.detach() - known / 2 * math.log(2 * math.pi * variance), gradient
+log_p.detach(), gradient
# schedule.py
all: the ancestral step ends one level off
-a_t, a_s = self.signal(t, x_t), self.signal(s, x_t)
-        sigma2
+a_t, a_s = self.signal(t, x_t), self.signal(max(s - 1, 0), x_t)
+        sigma2
# inpainting.py
all: known pixels come from the network
-flat[chunk] = np.where(hidden[image], found, pictures[image])
+flat[chunk] = found
all: noise depends on the place in the batch
-seed, first + image, sample,
+seed, np.arange(len(sample)), sample,
"""
TESTS = ("tests/test_schedule.py", "tests/test_methods.py", "tests/test_inpainting.py")


def mutations() -> Iterator[tuple[str, str, str, str]]:
    """The file, what is broken, the text that goes and the text that comes, of every mutation."""
    for part in MUTATIONS.split("\n# ")[1:]:
        file, _, body = part.partition("\n")
        for what, *texts in re.findall(r"^(\w.*)\n((?:-.*\n)+)((?:\+.*\n)+)", body + "\n", re.MULTILINE):
            before, after = (re.sub(r"^[-+]", "", text.rstrip("\n"), flags=re.MULTILINE) for text in texts)
            yield file, what, before, after


def run_tests(source: Path, about: str) -> tuple[bool, str]:
    """Whether the tests pass on this source, and the first that failed; ``about`` chooses tests by name."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "--no-header", "-rf", "--numprocesses", "auto", "-k", about, *TESTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    if result.returncode not in (0, 5) and not failed:  # 5: no test has such a name
        sys.exit(f"the tests did not run: {result.stdout[-500:]}{result.stderr[-500:]}")
    return not failed, failed[0].removeprefix("FAILED ").split(" - ")[0] if failed else ""


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--out", type=Path, help="write the table here, as Markdown")
    out, lines, survived = parser.parse_args().out, [], 0
    for file, what, before, after in mutations():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "src" / "inkfill", Path(folder) / "inkfill")
            path = Path(folder) / "inkfill" / file
            text = path.read_text()
            if text.count(before) != 1:
                sys.exit(f"{what}: its text stands {text.count(before)} times in {file}")
            path.write_text(text.replace(before, after))
            word = what.split(":")[0]
            passed, first = run_tests(Path(folder), {"all": "", "filters": "mcgdiff or tds"}.get(word, word))
        survived += passed
        lines.append([what, "**survived**" if passed else "caught", f"`{first}`" if first else ""])
        print(f"{'SURVIVED' if passed else 'caught  '}  {what}  {first}", flush=True)
    if out:
        with written_whole(out) as temporary:
            temporary.write_text(markdown(["mutation", "result", "first test that failed"], lines, left=3) + "\n")
    sys.exit(survived > 0)


if __name__ == "__main__":
    main()
