"""The inpainting methods by name, with what to know before choosing one.

A method is a function of a :class:`Task` and of settings with defaults, registered by the decorator ``@method(...)``.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

from inkfill.core.denoiser import ConditionalPrior, Prior
from inkfill.errors import InputError

Settings = Mapping[str, float]
# Ranges of settings other than 1 to MOST (integers) or 0 to MOST: fractions, and a variance that is a divisor.
RANGES = {"eta": (0, 1), "zeta": (0, 1), "middle": (0, 1), "prior_variance": (1e-6, 1e6)}
MOST = {int: 10_000, float: 1e6}  # more would run for ever, or out of memory
NEEDS = {"conditional": "a conditional denoiser", "generative": "a few-step model", "": "posterior means"}


@dataclass(frozen=True)
class Method:
    """An inpainting method: a function of a task and of its settings, keyword arguments with defaults."""

    run: Callable[..., Tensor]
    paper: str = "your own"
    exact: str = ""  # when it samples the posterior
    gradient: bool = False  # runs backward passes through the denoiser
    needs: str = ""  # of the prior: "conditional" (a conditional denoiser) or "generative" (a few-step model)
    noisy: bool = False  # the observed pixels may be noisy
    cost: Callable[[int, Settings], int] = lambda steps, settings: steps  # NFE: network evaluations per sample

    def defaults(self) -> dict[str, float]:
        """The settings with their default values."""
        parameters = list(inspect.signature(self.run).parameters.values())[1:]
        numbers = (p for p in parameters if isinstance(p.default, (int, float)) and not isinstance(p.default, bool))
        return {p.name: p.default for p in numbers}

    def settings(self, given: Settings | None = None) -> dict[str, float]:
        """All settings, with ``given`` values. Raises InputError for an unknown setting or a value out of range."""
        found = self.defaults()
        for name, value in (given or {}).items():
            if name not in found:
                known = f"its settings are {', '.join(found)}" if found else "this method has no settings"
                raise InputError(f"unknown setting {name!r}: {known}")
            whole = isinstance(found[name], int)
            least, most = RANGES.get(name, (int(whole), MOST[type(found[name])]))
            numeric = isinstance(value, Real) and math.isfinite(value)
            if not numeric or not least <= value <= most or (whole and value != int(value)):
                kind = "an integer" if whole else "a number"
                raise InputError(f"the setting {name} must be {kind} from {least:g} to {most:,g}, not {value!r}")
            found[name] = int(value) if whole else float(value)
        return found

    def evaluations(self, steps: int, given: Settings | None = None) -> int:
        """NFE: network evaluations per sample."""
        return self.cost(steps, self.settings(given))

    def particles(self, given: Settings | None = None) -> int:
        """States evaluated together for one sample."""
        return int(self.settings(given).get("particles", 1))

    def steps_for(self, evaluations: int, given: Settings | None = None) -> int:
        """The largest number of steps that costs at most ``evaluations`` NFE; at least one."""
        return max(n for n in range(1, evaluations + 1) if n == 1 or self.evaluations(n, given) <= evaluations)

    def suits(self, prior: Prior) -> bool:
        """Whether the method runs on a prior."""
        if prior.generative or self.needs == "generative":
            return prior.generative and self.needs == "generative"
        return isinstance(prior, ConditionalPrior) or self.needs != "conditional"


METHODS: dict[str, Method] = {}


def method(paper: str, exact: str, **about: Any) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a method under its function's name; ``about`` are further fields of :class:`Method`."""

    def register(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        METHODS[run.__name__] = Method(run, paper, exact, **about)
        return run

    return register


def mean_methods() -> dict[str, Method]:
    """The methods that run on posterior means: all but that of few-step models."""
    return {name: each for name, each in METHODS.items() if each.needs != "generative"}


def find_method(method: str | Callable[..., Any], prior: Prior | None = None, noisy: bool = False) -> Method:
    """A method by name, or made of a function of a task, checked against the prior.

    ``noisy``: the observed pixels are noisy. Raises InputError, with the methods that fit.
    """
    if callable(method):
        return Method(method)
    runs = [name for name, each in METHODS.items() if prior is None or each.suits(prior)]
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: choose one of {', '.join(runs)}")
    if method not in runs:
        needs = NEEDS[METHODS[method].needs]
        raise InputError(f"method {method}: needs {needs}, which this prior lacks: choose {_one_of(runs)}")
    if noisy and not METHODS[method].noisy:
        can = [name for name in runs if METHODS[name].noisy]
        raise InputError(f"method {method}: takes observed pixels as exact: choose {_one_of(can) if can else 'none'}")
    return METHODS[method]


def _one_of(names: list[str]) -> str:
    return f"{'one of ' * (len(names) > 1)}{', '.join(names)}"
