"""Short trainings side by side: what lowers the validation loss of a minute of training?

    .venv/bin/python benchmarks/race.py --minutes 1 --out docs/race.json

Every variant starts from the same random weights and trains for the same time on this machine, one after another, twice
round, so that a machine that changes speed in between shows as a difference between the rounds. The loss is the noise
error on validation digits, as it is and weighed as v, from the running mean of the weights.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from inkfill import data, masks
from inkfill.checkpoint import load_network, written_whole
from inkfill.rng import stream
from inkfill.schedule import Schedule
from inkfill.train import TrainConfig, draw_batch, squared_errors, train
from inkfill.unet import UNetConfig

BASE = TrainConfig(warmup=50, ema=0.98)
VARIANTS = {
    "as shipped": BASE,
    "AdamW for everything": replace(BASE, muon_rate=0.0),
    "noise weighting": replace(BASE, weighting="noise"),
    "batch 128": replace(BASE, batch_size=128),
    "batch 32": replace(BASE, batch_size=32),
    "Muon rate 0.05": replace(BASE, muon_rate=0.05),
    "Muon rate 0.01": replace(BASE, muon_rate=0.01),
    "wider, 64 and 256": replace(BASE, unet=UNetConfig(widths=(64, 256))),
    "deeper, 3 blocks": replace(BASE, unet=UNetConfig(blocks=(1, 3))),
    "linear schedule": replace(BASE, schedule="linear"),
    "float32": replace(BASE, bfloat16=False),
}


def score(run: Path, config: TrainConfig, images: data.Images) -> dict[str, float]:
    """Validation errors on one set of draws, under the cosine schedule whatever the variant was trained on."""
    net, recipe = load_network(run / "model.safetensors")
    schedule, spec = Schedule.named(recipe["schedule"], recipe["T"]), masks.parse(BASE.masks)
    totals = {"noise": 0.0, "v": 0.0}
    for part in range(8):
        batch = draw_batch(replace(BASE, batch_size=250), images, spec, stream(0, "race", part))
        for weighting in totals:
            errors = squared_errors(net, schedule, batch, config.bfloat16, weighting)
            totals[weighting] += float(errors.sum()) / batch.missing / 8
    return {"step": recipe["step"], **totals}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--out", type=Path, help="write the rows here, as JSON")
    arguments = parser.parse_args()

    images = data.load("auto").validation
    rows = []
    print(f"{'variant':24s} round   steps  noise error  v error")
    for turn in range(arguments.rounds):
        for name in arguments.variants:
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                train(VARIANTS[name], run, arguments.minutes, look_every=10**9, quiet=True)
                found = score(run, VARIANTS[name], images)
            rows.append({"variant": name, "round": turn, "minutes": arguments.minutes, **found})
            print(f"{name:24s} {turn:5d} {found['step']:7.0f}  {found['noise']:11.5f}  {found['v']:7.5f}", flush=True)
    if arguments.out:
        with written_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
