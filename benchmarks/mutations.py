"""Break each method in one way known from the field, and see the test suite go red.

    .venv/bin/python benchmarks/mutations.py [--out docs/mutations.md]

Each mutation is one replacement in a copy of the source; the tests that name the method run on the copy. A mutation that
survives is a hole in the tests, and makes this script fail.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutation:
    what: str
    file: str
    before: str
    after: str


MUTATIONS = (
    Mutation(
        "replacement: the observation is noised to the level below",
        "inpainting.py",
        "x = torch.where(observation.known, schedule.q_sample(observation.pixels, t, task.noise()), x)",
        "x = torch.where(observation.known, schedule.q_sample(observation.pixels, max(s, 1), task.noise()), x)",
    ),
    Mutation(
        "replacement: known pixels are put in clean, not noised",
        "inpainting.py",
        "x = torch.where(observation.known, schedule.q_sample(observation.pixels, t, task.noise()), x)",
        "x = torch.where(observation.known, observation.pixels, x)",
    ),
    Mutation(
        "repaint: no noise on the way up",
        "inpainting.py",
        "x = schedule.renoise(x, t, s, task.noise())",
        "x = schedule.renoise(x, t, s, torch.zeros_like(x))",
    ),
    Mutation(
        "repaint: jumps start one level late",
        "inpainting.py",
        "range(1, steps - jump + 1, jump)",
        "range(2, steps - jump + 1, jump)",
    ),
    Mutation(
        "ddnm: the known pixels are not put into the prediction",
        "inpainting.py",
        "return torch.where(task.observation.known, task.observation.pixels, x0_hat)  # eq. 13, with A a mask",
        "return x0_hat",
    ),
    Mutation(
        "dps: one norm for the whole batch",
        "inpainting.py",
        "misfit.flatten(1).norm(dim=1).clamp(min=1e-8).view(-1, *[1] * (x.ndim - 1))",
        "misfit.norm().clamp(min=1e-8)",
    ),
    Mutation(
        "dps: up the gradient",
        "inpainting.py",
        "+ 2 * strength * pull / norm",
        "- 2 * strength * pull / norm",
    ),
    Mutation(
        "pigdm: the guidance without its factor (1 - alpha_bar) / sqrt(alpha_bar)",
        "inpainting.py",
        "return task.model.clip(x0_hat + (1 - a) / a**0.5 * pull)",
        "return task.model.clip(x0_hat + pull)",
    ),
    Mutation(
        "mcgdiff: weights without the potential of the level before",
        "smc.py",
        "return torch.where(known, after - before, 0.0).flatten(1).sum(1)",
        "return torch.where(known, after, 0.0).flatten(1).sum(1)",
    ),
    Mutation(
        "mcgdiff: the gain forgets the noise of the observation",
        "smc.py",
        "gain = v / (v + 1 - a_s)",
        "gain = v / (v + 1)",
    ),
    Mutation(
        "tds: the proposal is not paid for in the weights",
        "smc.py",
        "self.correction = owed.flatten(1).sum(1) - self.twist[ancestors]",
        "self.correction = -self.twist[ancestors]",
    ),
    Mutation(
        "tds: the twist without its normaliser",
        "denoiser.py",
        "log_p.detach() - known / 2 * math.log(2 * math.pi * variance), gradient",
        "log_p.detach(), gradient",
    ),
    Mutation(
        "filters: log-weights are not carried when nothing is resampled",
        "smc.py",
        "log_w = torch.where(tired[:, None], 0.0, log_w)",
        "log_w = torch.zeros_like(log_w)",
    ),
    Mutation(
        "filters: particles of one row are taken for another's",
        "smc.py",
        "ancestors = (rows + chosen).flatten()",
        "ancestors = chosen.flatten()",
    ),
    Mutation(
        "all: the ancestral step ends one level off",
        "schedule.py",
        "a_t, a_s = self.signal(t, x_t), self.signal(s, x_t)\n        sigma2",
        "a_t, a_s = self.signal(t, x_t), self.signal(max(s - 1, 0), x_t)\n        sigma2",
    ),
    Mutation(
        "all: known pixels come from the network",
        "inpainting.py",
        "flat[chunk] = np.where(mask[image], model.pixels(x0), images[image])",
        "flat[chunk] = model.pixels(x0)",
    ),
    Mutation(
        "all: noise depends on the place in the batch",
        "inpainting.py",
        "noise = SampleNoise(seed, first + image, sample, (1, h, w), model.device)",
        "noise = SampleNoise(seed, np.arange(len(chunk)), sample, (1, h, w), model.device)",
    ),
)
TESTS = ("tests/test_schedule.py", "tests/test_methods.py", "tests/test_inpainting.py")


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the table here, as Markdown")
    out = parser.parse_args().out
    rows, survived = [], 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        for mutation in MUTATIONS:
            shutil.rmtree(source / "inkfill", ignore_errors=True)
            shutil.copytree(ROOT / "src" / "inkfill", source / "inkfill")
            path = source / "inkfill" / mutation.file
            text = path.read_text()
            if text.count(mutation.before) != 1:
                sys.exit(f"{mutation.what}: its line stands {text.count(mutation.before)} times in {mutation.file}")
            path.write_text(text.replace(mutation.before, mutation.after))
            word = mutation.what.split(":")[0]
            about = {"all": "", "filters": "mcgdiff or tds"}.get(word, word)
            passed, first = run_tests(source, about)
            survived += passed
            rows.append((mutation.what, "**survived**" if passed else "caught", f"`{first}`" if first else ""))
            print(f"{'SURVIVED' if passed else 'caught  '}  {mutation.what}  {first}", flush=True)
    if out:
        lines = ["| mutation | result | first test that failed |", "| --- | --- | --- |"]
        lines += [f"| {a} | {b} | {c} |" for a, b, c in rows]
        out.write_text("\n".join(lines) + "\n")
    sys.exit(survived > 0)


if __name__ == "__main__":
    main()
