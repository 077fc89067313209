"""The methods by name, with what to know before choosing one. A new method is a function and a line here."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

from torch import Tensor

from inkfill.denoiser import ConditionalPrior, Prior, draws
from inkfill.errors import InputError
from inkfill.methods.chains import daps, ddrm, diffpir, dps, few, repaint, repaint_path, replacement
from inkfill.methods.guided import conditional, ddnm, mmps, pigdm, tmpd
from inkfill.methods.optimised import copaint, mgps
from inkfill.methods.particles import mcgdiff, tds

Settings = Mapping[str, float]
# Of settings that cannot be any number from 0 on: shares, and a variance that is divided by.
RANGES = {"eta": (0, 1), "zeta": (0, 1), "middle": (0, 1), "prior_variance": (1e-6, math.inf)}


@dataclass(frozen=True)
class Method:
    """An inpainting method: a function of a task and of its settings, which are keyword arguments with defaults."""

    run: Callable[..., Tensor]
    paper: str = "your own"
    exact: str = ""  # when it draws from the posterior
    gradient: bool = False  # whether it runs backward passes through the denoiser
    conditional: bool = False  # whether it needs a prior that can be told what is known
    draws: bool = False  # whether it needs a prior that draws, and has no posterior mean
    noisy: bool = False  # whether what is known may be noisy
    cost: Callable[[int, Settings], int] = lambda steps, settings: steps  # network evaluations per completion

    def defaults(self) -> dict[str, float]:
        """The settings and their values where none are given."""
        parameters = list(inspect.signature(self.run).parameters.values())[1:]
        numbers = (p for p in parameters if isinstance(p.default, (int, float)) and not isinstance(p.default, bool))
        return {p.name: p.default for p in numbers}

    def settings(self, given: Settings | None = None) -> dict[str, float]:
        """All settings, of which some are given. Raises InputError for one that there is not, or that cannot be."""
        found = self.defaults()
        for name, value in (given or {}).items():
            if name not in found:
                has = f"its settings are {', '.join(found)}" if found else "this method has none"
                raise InputError(f"unknown setting {name!r}: {has}")
            whole = isinstance(found[name], int)
            least, most = RANGES.get(name, (int(whole), math.inf))
            if (
                not isinstance(value, Real)
                or not math.isfinite(value)
                or not least <= value <= most
                or (whole and value != int(value))
            ):
                kind = f"a {'whole ' * whole}number from {least} {'on' if most == math.inf else f'to {most}'}"
                raise InputError(f"the setting {name} must be {kind}, not {value!r}")
            found[name] = int(value) if whole else float(value)
        return found

    def evaluations(self, steps: int, given: Settings | None = None) -> int:
        """Network evaluations per completion."""
        return self.cost(steps, self.settings(given))

    def particles(self, given: Settings | None = None) -> int:
        """States that go through the network together for one completion."""
        return int(self.settings(given).get("particles", 1))

    def steps_for(self, evaluations: int, given: Settings | None = None) -> int:
        """The most steps that cost at most so many network evaluations a completion; at least one."""
        return max(n for n in range(1, evaluations + 1) if n == 1 or self.evaluations(n, given) <= evaluations)


def _path_length(steps: int, settings: Settings) -> int:
    path = repaint_path(steps, int(settings["jump"]), int(settings["repeats"]))
    return sum(following < index for index, following in pairwise(path))


def _each_particle(steps: int, settings: Settings) -> int:
    return steps * int(settings["particles"])


def _inner(steps: int, settings: Settings) -> int:
    return steps * int(settings["inner"])


def _iterations(steps: int, settings: Settings) -> int:
    return steps * (1 + int(settings["iterations"]))


def _but_for_the_last(steps: int, settings: Settings) -> int:
    return _iterations(steps, settings) - int(settings["iterations"])


GROW = "steps and particles grow"
METHODS = {
    "conditional": Method(conditional, "this network, trained on masks", "steps grow", conditional=True),
    "few": Method(few, "few-step weights (docs/few.md)", "the weights are", draws=True),
    "replacement": Method(replacement, "Song et al. 2021, arXiv 2011.13456", "never"),
    "repaint": Method(repaint, "Lugmayr et al. 2022, arXiv 2201.09865", "never", cost=_path_length),
    "ddnm": Method(ddnm, "Wang et al. 2022, arXiv 2212.00490", "never"),
    "ddrm": Method(ddrm, "Kawar et al. 2022, arXiv 2201.11793", "never", noisy=True),
    "diffpir": Method(diffpir, "Zhu et al. 2023, arXiv 2305.08995", "never", noisy=True),
    "daps": Method(daps, "Zhang et al. 2024, arXiv 2407.01521", "never", noisy=True, cost=_inner),
    "dps": Method(dps, "Chung et al. 2022, arXiv 2209.14687", "never", gradient=True),
    "copaint": Method(copaint, "Zhang et al. 2023, arXiv 2304.03322", "never", True, noisy=True, cost=_iterations),
    "mgps": Method(mgps, "Moufad et al. 2024, arXiv 2410.09945", "never", True, noisy=True, cost=_but_for_the_last),
    "pigdm": Method(pigdm, "Song et al. 2023, OpenReview 9_gsMA8MRKQ", "one isotropic Gaussian", True, noisy=True),
    "tmpd": Method(tmpd, "Boys et al. 2023, arXiv 2310.06721", "independent Gaussian pixels", True, noisy=True),
    "mmps": Method(mmps, "Rozet et al. 2024, arXiv 2405.13712", "any Gaussian; iterations grow", True, noisy=True),
    "mcgdiff": Method(mcgdiff, "Cardoso et al. 2023, arXiv 2308.07983", GROW, noisy=True, cost=_each_particle),
    "tds": Method(tds, "Wu et al. 2023, arXiv 2306.17775", GROW, True, noisy=True, cost=_each_particle),
}

MEAN_METHODS = {name: method for name, method in METHODS.items() if not method.draws}  # those that need posterior means


def find_method(method: str | Callable[..., Any], prior: Prior | None = None, noisy: bool = False) -> Method:
    """A method by name, or from a function of a task; one that runs on the prior, if it is given. Raises InputError.

    ``noisy``: what is known is, and the method must not take it as exact.
    """
    if callable(method):
        return Method(method)
    runs = [name for name, each in METHODS.items() if prior is None or _suits(each, prior)]
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: choose one of {', '.join(runs)}")
    if method not in runs:
        if prior is not None and draws(prior):
            why = "cannot run here: few-step weights draw completions and have no posterior mean"
        else:
            lacks = "few-step weights" if METHODS[method].draws else "a conditional denoiser"
            why = f"needs {lacks}, which this prior lacks"
        raise InputError(f"the method {method} {why}: choose {'one of ' * (len(runs) > 1)}{', '.join(runs)}")
    if noisy and not METHODS[method].noisy:
        can = ", ".join(name for name in runs if METHODS[name].noisy)
        raise InputError(
            f"the method {method} takes what is known as exact: choose {'one of ' + can if can else 'none'}"
        )
    return METHODS[method]


def _suits(method: Method, prior: Prior) -> bool:
    """Whether a method can run on a prior."""
    if method.draws or draws(prior):
        return method.draws and draws(prior)
    return isinstance(prior, ConditionalPrior) or not method.conditional
