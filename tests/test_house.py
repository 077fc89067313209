"""The shape of the house: a ladder of rooms, small functions, light doors. ``make shape`` prints its figures."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from inkfill.evaluation.cells import imported

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "inkfill"
LADDER = [  # from the top down: a room imports from rooms below it and from itself
    ("app", "__init__", "__main__"),
    ("imputer", "lazy"),
    ("evaluation",),
    ("training",),
    ("inpainting",),
    ("windows",),
    ("methods",),
    ("adapters", "diffusers_unet"),
    ("model",),
    ("samplers",),
    ("denoiser",),
    ("schedule",),
    ("data",),
    ("checkpoint",),
    ("unet",),
    ("web",),
    ("rng",),
    ("errors", "defaults", "progress"),
]
LONGEST = 60  # lines of a function
BENCHMARKS = 2000  # lines of all benchmarks together


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name under ``inkfill``."""
    return {".".join(p.relative_to(SRC).with_suffix("").parts): p for p in sorted(SRC.rglob("*.py"))}


def imports() -> dict[str, set[str]]:
    """Which modules a module imports, names within modules resolved to their module."""
    known = modules()

    def resolve(name: str) -> str | None:
        parts = name.split(".")[1:]
        for end in range(len(parts), 0, -1):
            for found in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
                if found in known:
                    return found
        return None

    return {name: {r for i in imported(path) if (r := resolve(i)) and r != name} for name, path in known.items()}


def rank(module: str) -> int:
    room = module.split(".")[0]
    return next(i for i, rooms in enumerate(LADDER) if room in rooms)


def functions(folder: Path) -> list[tuple[int, str]]:
    """Lines and name of every function, longest first."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append((node.end_lineno - node.lineno + 1, f"{path.relative_to(ROOT)}:{node.name}"))
    return sorted(found, reverse=True)


def test_every_room_has_its_place():
    assert {name.split(".")[0] for name in modules()} <= {room for rooms in LADDER for room in rooms}


def test_rooms_import_downwards_only():
    wrong = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if rank(other) < rank(name)
        or (rank(other) == rank(name) and other.split(".")[0] != name.split(".")[0] and name != "__main__")
    ]
    assert wrong == []


def test_there_is_no_import_circle():
    graph, done = imports(), set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("module", ["schedule", "denoiser", "samplers", "methods"])
def test_the_mathematics_loads_nothing_but_torch_numpy_and_itself(module):
    code = (
        "import sys, torch, numpy; before = set(sys.modules)\n"
        f"import inkfill.{module}\n"
        "print(*sorted({n for n in set(sys.modules) - before if not n.startswith(('torch', 'numpy'))}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    allowed = {"methods", "samplers", "denoiser", "schedule", "rng", "errors", "defaults"}
    others = {name for name in found if "." not in name and "cython" not in name}  # which numpy brings
    assert others <= {"inkfill"} | set(sys.stdlib_module_names)
    assert {name.split(".")[1] for name in found if name.startswith("inkfill.")} <= allowed


@pytest.mark.parametrize("folder", ["src", "benchmarks"])
def test_no_function_is_long(folder):
    assert [(lines, name) for lines, name in functions(ROOT / folder) if lines > LONGEST] == []


def test_benchmarks_are_short():
    assert sum(len(path.read_text().splitlines()) for path in (ROOT / "benchmarks").glob("*.py")) < BENCHMARKS


def test_nobody_assigns_to_another_modules_globals():
    wrong = []
    for path in [*SRC.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        tree = ast.parse(path.read_text())
        nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
        names = {(alias.asname or alias.name).split(".")[0] for node in nodes for alias in node.names}
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else []
            targets = [*targets, *([node.target] if isinstance(node, (ast.AugAssign, ast.For)) else [])]
            for target in targets:
                if isinstance(target, (ast.Attribute, ast.Subscript)):
                    value = target.value
                    if isinstance(value, ast.Name) and value.id in names:
                        wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


def test_the_readme_names_every_module():
    readme = (ROOT / "README.md").read_text()
    missing = [
        name
        for name in modules()
        if not name.endswith(("__init__", "__main__")) and f"{name.split('.')[-1]}.py" not in readme
    ]
    assert missing == []


if __name__ == "__main__":
    graph = imports()
    rooms = {name.split(".")[0] for name in graph}
    print(f"modules        {len(graph)} in {len(rooms)} rooms, {sum(map(len, graph.values()))} imports")
    print(f"lines          {sum(len(p.read_text().splitlines()) for p in modules().values()):,} in src/inkfill")
    print(f"benchmarks     {sum(len(p.read_text().splitlines()) for p in (ROOT / 'benchmarks').glob('*.py')):,} lines")
    for test in (test_there_is_no_import_circle, test_rooms_import_downwards_only):
        test()
    print("import circles 0; imports upwards 0")
    print("longest functions:")
    for lines, name in functions(SRC)[:8]:
        print(f"    {lines:3d}  {name}")
