"""Files: written whole or not at all, and strict JSON."""

import errno
from pathlib import Path

import pytest

from inkfill.errors import InputError
from inkfill.files import MANIFEST, folder_written_whole, read_json, write_json, written_whole


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    with written_whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "out"
    with folder_written_whole(folder) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(RuntimeError), folder_written_whole(folder) as temporary:  # noqa: PT012
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "a"]
    with folder_written_whole(folder) as temporary:
        (temporary / "c").write_text("new")
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "c"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("failing", [2, 3])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch, failing, kind):
    """Whichever of the two renames of folders fails (the first is that of the manifest), the old folder stays."""
    folder, replace, calls = tmp_path / "out", Path.replace, []
    with folder_written_whole(folder) as temporary:
        (temporary / "a").write_text("old")

    def renamed(path, target):
        calls.append(target)
        if len(calls) == failing:
            raise kind
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", renamed)
    with pytest.raises(kind), folder_written_whole(folder) as temporary:
        (temporary / "b").write_text("new")
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "a"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_reported_with_the_file(tmp_path):
    for error in (OSError(errno.ENOSPC, "no"), OSError("376320 requested and 65408 written")):
        with pytest.raises(OSError, match="No space left") as found, written_whole(tmp_path / "x.npy"):
            raise error
        assert found.value.filename == str(tmp_path / "x.npy")
    assert not list(tmp_path.iterdir())


def test_json_is_strict_and_bounded(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": float("nan"), "b": [float("inf"), 1.5], "c": ("x",)})
    assert read_json(path) == {"a": None, "b": [None, 1.5], "c": ["x"]}
    for text in ("{", "[" * 100_000, "9" * 5000):
        path.write_text(text)
        with pytest.raises(InputError, match=r"a\.json"):
            read_json(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "none.json")


def test_a_name_of_the_longest_kind_can_be_written(tmp_path):
    """244 bytes: the temporary name is not longer."""
    with written_whole(tmp_path / ("\U0001f9ff" * 60 + ".npy")) as temporary:
        temporary.write_text("x")
    assert len(list(tmp_path.iterdir())) == 1
