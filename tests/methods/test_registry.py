"""The registry: costs, settings, and which method suits which prior."""

import pytest
import torch

from inkfill.core.denoiser import ConditionalPrior, GenerativePrior, Prior
from inkfill.errors import InputError
from inkfill.methods import METHODS, Method, find_method, mean_methods


def test_steps_within_a_budget():
    assert METHODS["ddnm"].steps_for(48) == 48
    assert METHODS["tds"].steps_for(48) == 6
    repaint = METHODS["repaint"]
    assert repaint.evaluations(repaint.steps_for(48)) <= 48 < repaint.evaluations(repaint.steps_for(48) + 1)
    assert METHODS["tds"].steps_for(3) == 1  # at least one


def test_settings_have_defaults_types_and_ranges():
    assert METHODS["tds"].settings() == {"particles": 8, "threshold": 0.5, "prior_variance": 0.3}
    assert METHODS["tds"].settings({"particles": 3.0}) == {"particles": 3, "threshold": 0.5, "prior_variance": 0.3}
    assert METHODS["tds"].particles({"particles": 3}) == 3
    assert METHODS["ddnm"].particles() == 1
    assert METHODS["tds"].evaluations(5, {"particles": 3}) == 15
    for value in (float("nan"), -1, "4"):
        with pytest.raises(InputError, match="setting strength must be a number from 0 to"):
            METHODS["dps"].settings({"strength": value})
    for method, name, value in (("ddrm", "eta", 1.5), ("mgps", "middle", 2), ("pigdm", "prior_variance", 0)):
        with pytest.raises(InputError, match=f"setting {name} must be a number from"):
            METHODS[method].settings({name: value})
    for value in (0, 2.5):
        with pytest.raises(InputError, match="integer from 1 to 10,000"):
            METHODS["tds"].settings({"particles": value})
    with pytest.raises(InputError, match="unknown setting 'power': its settings are strength"):
        METHODS["dps"].settings({"power": 1})
    with pytest.raises(InputError, match="this method has no settings"):
        METHODS["ddnm"].settings({"power": 1})


class Few(GenerativePrior):
    generative = True


def test_methods_suit_priors():
    means = {name for name in METHODS if name != "few"}
    assert set(mean_methods()) == means
    for prior, names in ((ConditionalPrior(), means), (Prior(), means - {"conditional"}), (Few(), {"few"})):
        assert {name for name, method in METHODS.items() if method.suits(prior)} == names


def test_methods_by_name():
    def own(task):
        return torch.zeros(1)

    assert find_method("ddnm") is METHODS["ddnm"]
    assert isinstance(find_method(own), Method)
    with pytest.raises(InputError, match=r"unknown method 'magic': choose one of conditional, ddnm"):
        find_method("magic")
    with pytest.raises(InputError, match=r"method conditional: needs a conditional denoiser.*choose one of ddnm"):
        find_method("conditional", Prior())
    with pytest.raises(InputError, match="method ddnm: needs posterior means, which this prior lacks: choose few"):
        find_method("ddnm", Few())
    with pytest.raises(InputError, match="method ddnm: takes observed pixels as exact: choose one of"):
        find_method("ddnm", Prior(), noisy=True)
    with pytest.raises(InputError, match="exact: choose none"):
        find_method("few", Few(), noisy=True)
