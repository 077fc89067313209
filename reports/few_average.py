"""The mean of the weights of several trainings (Wortsman et al. 2022, "Model soups").

    .venv/bin/python reports/few_average.py FILE FILE ... --out mnist-few.safetensors

Written in float16, with the training configuration of the first and the steps of all.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from inkfill.models.checkpoint import FORMAT, load_network, write_weights


def main(files: list[Path], out: Path) -> None:
    """Average and write."""
    nets, recipes = zip(*map(load_network, files), strict=True)
    states, recipe = [net.state_dict() for net in nets], dict(recipes[0])
    weights = {name: sum(state[name] for state in states) / len(states) for name in states[0]}
    recipe["training"] = {**recipe["training"], "averaged": ", ".join(f"{each['step']} steps" for each in recipes)}
    recipe["step"] = sum(each["step"] for each in recipes)
    write_weights(out, weights, {"format": FORMAT, "unet": asdict(nets[0].config), "recipe": recipe}, torch.float16)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="checkpoints of one architecture")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    main(arguments.files, arguments.out)
