"""Cells: their identity, and their samples in files."""

import numpy as np
import pytest

from inkfill import defaults
from inkfill.errors import InputError
from inkfill.evaluation.cells import Cell, complete, identity, kept


def counted(run):
    calls = []

    def called():
        calls.append(1)
        return run()

    return called, calls


def test_the_identity_depends_on_everything_that_samples_depend_on(monkeypatch):
    cell, about = Cell("half:left", "dps"), {"weights": "a", "data": "b", "dtype": "c"}
    others = [
        Cell("half:right", "dps"), Cell("half:left", "ddnm"), Cell("half:left", "dps", steps=9),
        Cell("half:left", "dps", samples=9), Cell("half:left", "dps", seed=9),
        Cell("half:left", "dps", sampler="ddim"), Cell("half:left", "dps", settings={"strength": 1.0}),
    ]  # fmt: skip
    found = [identity(cell, about), *(identity(other, about) for other in others)]
    found += [identity(cell, {**about, name: "x"}) for name in about]
    assert len(set(found)) == len(found)
    monkeypatch.setattr(defaults, "VERSION", "another")
    assert identity(cell, about) not in found


def test_stored_samples_are_reused_for_equal_weights_only(tmp_path, digits, model):
    cell = Cell("half:left", steps=2, samples=2)
    run, calls = counted(lambda: complete(model, digits[:3], cell))
    first = kept(tmp_path, cell, {"weights": "a"}, run)
    again = kept(tmp_path, cell, {"weights": "a"}, run)
    assert calls == [1]
    for name in ("filled", "mask"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.evaluations, first.machine) == (again.evaluations, again.machine) == (2.0, again.machine)
    kept(tmp_path, cell, {"weights": "b"}, run)
    assert calls == [1, 1]


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "shape", "pickle"])
def test_a_damaged_cell_is_drawn_again(tmp_path, digits, model, damage):
    cell = Cell("half:left", steps=1, samples=2)
    run, calls = counted(lambda: complete(model, digits[:3], cell))
    whole = kept(tmp_path, cell, {}, run)
    (path,) = (tmp_path / "cells").iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "words":
        path.write_text("not this")
    elif damage == "shape":
        np.savez(path, filled=np.zeros((1, 2), np.uint8), mask=whole.mask, cost=[1.0, 1.0], machine="x")
    else:
        np.savez(path, filled=np.array([{}], object), mask=whole.mask, cost=[1.0, 1.0], machine="x")
    again = kept(tmp_path, cell, {}, run)
    assert calls == [1, 1]
    np.testing.assert_array_equal(again.filled, whole.filled)
    assert kept(tmp_path, cell, {}, run).filled.shape == (3, 2, 28, 28)
    assert calls == [1, 1]


def test_unknown_methods_and_missing_networks_are_refused(digits, model):
    with pytest.raises(InputError, match="--method: unknown method 'magic': choose from"):
        Cell("half:left", "magic").check()
    with pytest.raises(InputError, match="nearest: training images are required"):
        complete(model, digits[:1], Cell("half:left", "nearest"))
    with pytest.raises(InputError, match="regression: a network"):
        complete(model, digits[:1], Cell("half:left", "regression"))
