"""The processes of one job, in this process."""

import pytest
import torch

from inkfill.processes import ALONE, Processes, processes

TWO = [Processes(rank, 2, torch.device("cpu")) for rank in range(2)]


def test_one_process_needs_no_messages():
    assert ALONE.first
    assert ALONE.slice(7) == slice(0, 7)
    assert ALONE.total(2.5) == ALONE.from_first(2.5) == 2.5
    assert ALONE.gather("x") == ["x"]
    ALONE.await_first()


@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_rows_are_shared_evenly(count):
    parts = [each.slice(count) for each in TWO]
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    assert max(part.stop - part.start for part in parts) - min(part.stop - part.start for part in parts) <= 1


def test_others_wait_through_the_heartbeats_of_rank_0(monkeypatch):
    values = iter([0.0, 0.0, 1.0, 0.0])
    monkeypatch.setattr(Processes, "total", lambda *_: next(values))
    TWO[1].await_first()
    assert list(values) == [0.0]


@pytest.mark.parametrize(("given", "local", "expected"), [(None, 0, 0), ("cuda", 1, 1), ("cuda:3", 1, 3)])
def test_a_cuda_device_has_an_index(given, local, expected, monkeypatch):
    """``torch.cuda.set_device`` refuses a device without one."""
    chosen = []
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    with processes(torch.device(given) if given else None) as joined:
        assert joined.device == torch.device("cuda", expected)
    assert [device.index for device in chosen] == [expected]
