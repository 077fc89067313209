"""The package layout: layers that import downwards, and a core that stands alone. ``make shape`` prints its figures."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "inkfill"
GROUND = ("errors", "defaults", "progress", "processes", "tables", "files")
LAYERS = [  # from the top down: a layer imports from layers below it and from itself
    ("app", "__main__"),
    ("web",),
    ("integrations",),
    ("evaluation",),
    ("training",),
    ("filling",),
    ("models",),
    ("methods",),
    ("data",),
    ("core",),
    GROUND,
]
FRONT = "__init__"  # the public names, which import from any layer


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name under ``inkfill``; a package by its ``__init__``."""
    return {".".join(p.relative_to(SRC).with_suffix("").parts): p for p in sorted(SRC.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports anywhere, with those imported from a module appended to it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports() -> dict[str, set[str]]:
    """The modules that each module imports, names within modules resolved to their module."""
    known = modules()

    def resolve(name: str) -> str | None:
        top, *parts = name.split(".")
        if top != "inkfill":
            return None
        for end in range(len(parts), -1, -1):
            for found in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
                if found in known:
                    return found
        return None

    return {name: {r for i in imported(path) if (r := resolve(i)) and r != name} for name, path in known.items()}


def layer(module: str) -> int:
    return next(i for i, layers in enumerate(LAYERS) if module.split(".")[0] in layers)


def test_every_module_has_a_layer():
    assert {name.split(".")[0] for name in modules()} == {name for layers in LAYERS for name in layers} | {FRONT}


def test_layers_import_downwards_only():
    wrong = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if name != FRONT and other != FRONT and layer(other) < layer(name)
    ]
    assert wrong == []


def test_nothing_below_the_top_imports_the_public_names():
    """``inkfill/__init__.py`` leads to every layer, so a lower one would import upwards through it."""
    assert [name for name, others in imports().items() if FRONT in others and layer(name) > 0] == []


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


def loaded(module: str) -> set[str]:
    """The modules that an import of ``module`` loads in a new process, besides those of torch and numpy."""
    code = (
        "import sys, torch, numpy; before = set(sys.modules)\n"
        f"import {module}\n"
        "print(*sorted({n for n in set(sys.modules) - before if not n.startswith(('torch', 'numpy'))}))"
    )
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def check_loads(found: set[str], allowed: set[str]) -> None:
    others = {name for name in found if "." not in name and "cython" not in name}  # numpy's Cython
    assert others <= {"inkfill"} | set(sys.stdlib_module_names)
    assert {name.split(".")[1] for name in found if name.startswith("inkfill.")} <= allowed


@pytest.mark.parametrize("name", sorted(name for name in modules() if name.startswith("core.")))
def test_core_imports_nothing_of_inkfill_but_itself_and_errors(name):
    """As written, and torch, numpy and the standard library beside it."""
    names = imported(modules()[name])
    ours = {each.split(".")[1] for each in names if each.split(".")[0] == "inkfill"}
    assert ours <= {"core", "errors"}
    assert {each.split(".")[0] for each in names} <= {"torch", "numpy", "inkfill"} | set(sys.stdlib_module_names)


def test_core_loads_nothing_of_inkfill_but_itself_and_errors():
    """As run, ``inkfill/__init__.py`` aside, which reads ``defaults`` for the version."""
    whole = ", ".join(f"inkfill.{name}" for name in modules() if name.startswith("core."))
    check_loads(loaded(whole), {"core", "errors", "defaults"})


def test_methods_load_core_alone():
    check_loads(loaded("inkfill.methods"), {"methods", "core", "errors", "defaults"})


def test_nobody_assigns_to_another_modules_globals():
    wrong = []
    for path in [*SRC.rglob("*.py"), *(ROOT / "reports").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
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


if __name__ == "__main__":
    graph = imports()
    folders = {name.split(".")[0] for name in graph}
    print(f"modules        {len(graph)} in {len(folders)} folders and ground modules")
    print(f"imports        {sum(map(len, graph.values()))}")
    print(f"lines          {sum(len(p.read_text().splitlines()) for p in modules().values()):,} in src/inkfill")
    for test in (test_there_is_no_import_circle, test_layers_import_downwards_only):
        test()
    print("import circles 0; imports upwards 0")
