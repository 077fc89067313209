"""The registered names that the help lists, from ``choices.json``, so that ``--help`` imports no torch.

``python -m inkfill.app.choices`` writes the file; a test compares it with the registries.
"""

import json
from pathlib import Path

FILE = Path(__file__).with_name("choices.json")


def registered() -> dict[str, list[str]]:
    """The names in the registries."""
    from inkfill.core.objectives import OBJECTIVES
    from inkfill.core.samplers import SAMPLERS
    from inkfill.core.schedule import SCHEDULES
    from inkfill.data.datasets import DATASETS
    from inkfill.data.images import TRANSFORMS
    from inkfill.evaluation.baselines import BASELINES
    from inkfill.methods import METHODS
    from inkfill.training import few  # noqa: F401 (registers the objective few)

    return {
        "samplers": [*SAMPLERS],
        "schedules": [*SCHEDULES],
        "objectives": [*OBJECTIVES],
        "data": [*DATASETS],
        "transforms": [*TRANSFORMS],
        "methods": [*METHODS],
        "baselines": [*BASELINES],
    }


CHOICES: dict[str, list[str]] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}

if __name__ == "__main__":
    FILE.write_text(json.dumps(registered(), indent=1) + "\n", encoding="utf-8")
