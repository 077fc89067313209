"""The mean of the weights of several trainings, of which each began with the weights of the one before.

    .venv/bin/python docs/average.py runs/few/model.safetensors runs/few2/model.safetensors --out mnist-few.safetensors

Written in 16 bits, with the recipe of the first and the steps of all (Wortsman et al. 2022, "Model soups").
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
    parser.add_argument("files", type=Path, nargs="+", help="few-step weights or others, all of one shape")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    main(arguments.files, arguments.out)
