"""Files that are whole or not there, folders that belong to inkfill, locks, and JSON.

A file is written under a temporary name and renamed, so a crash leaves the old file or the new one. A folder that is
replaced as a whole has a manifest with the names of its files; a folder with any other file is never replaced.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from inkfill.errors import InputError

# Errors of numpy for a truncated or altered .npz.
NOT_WHOLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError)
UNFINISHED = ".unfinished-"  # prefix of temporary names; readers of folders skip such names
MANIFEST = ".inkfill.json"  # the files that inkfill wrote into a folder
OF_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini"}  # files that operating systems add to any folder


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to ``path`` at the end, removed if anything fails.

    A symlink is followed: its target is written.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(path.suffix, _unfinished(path.stem), path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("r+b") as file:  # Windows syncs handles that can write
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 is for secrets
        temporary.replace(path)
    except OSError as error:
        # numpy's message for a full disk has no errno.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "requested and" in str(error)
        if error.filename or not full:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to write into; it replaces ``path`` and its contents at the end.

    A symlink is followed. Raises InputError, and changes nothing, if ``path`` holds files that inkfill did not write.
    """
    path = path.resolve()
    check_ours(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_unfinished(path.name)))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        write_json(temporary / MANIFEST, {"files": sorted(contents(temporary))})
        check_ours(path)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=_unfinished(path.name)))
        old = aside / path.name  # Windows renames onto no existing folder
        try:
            if path.exists():
                path.replace(old)
            temporary.replace(path)
        finally:
            if old.exists() and not path.exists():  # after an error, Ctrl-C too: the old folder comes back
                old.replace(path)
            if path.exists() or not old.exists():
                shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def contents(folder: Path) -> set[str]:
    """The files below a folder, symlinks and empty folders included, as relative paths with slashes."""
    found = [p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir() or not any(p.iterdir())]
    return {path.relative_to(folder).as_posix() for path in found}


def foreign(folder: Path) -> list[str]:
    """The files of a folder that inkfill did not write, by its manifest."""
    listed = _manifest(folder).get("files")
    ours = set(map(str, listed)) if isinstance(listed, list) else set()
    others = [name for name in contents(folder) if name not in ours and not name.startswith(UNFINISHED)]
    return sorted(name for name in others if Path(name).name not in {MANIFEST, *OF_SYSTEMS})


def claim(folder: Path, kind: str) -> None:
    """Mark a folder that inkfill adds files to, such as a run, as its own."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MANIFEST, {"kind": kind, "files": []})


def claimed(folder: Path, kind: str) -> bool:
    """Whether a folder was marked by :func:`claim`."""
    return bool(_manifest(folder).get("kind") == kind)


def _manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of a folder says: nothing if it is missing or broken."""
    try:
        found = read_json(folder / MANIFEST)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def check_ours(folder: Path) -> None:
    """Raise InputError for a folder with files that inkfill did not write."""
    if others := foreign(folder):
        raise InputError(f"{folder} holds {others[0]}, which inkfill did not write: give another folder")


def check_apart(out: Path, inputs: Iterable[Path | str | None]) -> None:
    """Raise InputError for an output that is an input, or a folder that holds one: inputs are never replaced."""
    place = out.resolve()
    for given in inputs:
        if given is None or not os.path.exists(given):
            continue
        source = Path(given).resolve()
        if place == source or place in source.parents or (place.is_file() and place.samefile(source)):
            raise InputError(f"{out}: is or holds the input {given}: give another output")


def _unfinished(name: str) -> str:
    """The prefix of a temporary name, cut to what file systems allow: they count bytes."""
    return f"{UNFINISHED}{os.fsdecode(os.fsencode(name)[:100])}-"


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def check_utf8(path: Path) -> None:
    """Raise InputError for a path that safetensors cannot open."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: the name is not UTF-8: rename it") from None


def check_writable(path: Path) -> None:
    """Raise InputError for a path that cannot be written, before minutes of work; creates nothing."""
    try:
        with tempfile.TemporaryFile(dir=next(folder for folder in path.parents if folder.exists())):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): give another path") from None


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Lock a folder for this process. Raises InputError at once if another process holds the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{what}.lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise InputError(f"{folder}: locked by another inkfill {what}: wait for it, or give another --out") from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; NaN and infinity become null."""

    def strict(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strict(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [strict(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(strict(value), indent=1), encoding="utf-8")


def parse_json(text: str, source: object) -> Any:
    """Parse JSON of unknown origin. Raises InputError if it is broken, too deep, or holds overlong numbers."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: broken JSON ({type(error).__name__})") from None


def read_json(path: Path) -> Any:
    """JSON from a file. Raises InputError."""
    try:
        return parse_json(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, first 16 hex digits, for provenance."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
