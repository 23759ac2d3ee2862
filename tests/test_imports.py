"""The rules for imports, checked for every module of the package.

Imports are read from the source (nothing is imported), including those inside
functions. Modules that a registry loads by name (`importlib.import_module`) are not
seen.

`python -m tests.test_imports` prints the floors and the number of arrows between rooms.
"""

import ast
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "earthformer_jax"
REPOSITORY = Path(__file__).parents[1]
FILES_PER_FOLDER = 16
OUTSIDE = ("benchmarks", "configs", "datasets", "experiments", "tests")

_MODELS = "checks ops ops.tuned layers models models.contract"
_HALL = "settings statistics ops metrics data.readers data"
_WINGS = "data.cubes data.enso data.mnist data.sevir"
_TRADES = "plotting training reports profiling interop"

# Room: the other rooms it may import. A module belongs to the innermost room that holds
# it, so `data.enso.twin` to `data.enso` and `data.pipeline` to `data`.
ROOMS = {
    "settings": "",
    "checks": "settings",
    "ops": "checks settings",
    "ops.tuned": "checks ops",
    "losses": "checks settings ops",
    "layers": "checks settings ops ops.tuned",
    "models": "checks settings ops ops.tuned losses layers models.contract",
    "models.contract": "",
    "statistics": "",
    "metrics": "checks settings",
    "plotting": "",
    "pretrained": "",
    "data.readers": "",
    "data": "settings statistics ops metrics data.readers",
    "data.cubes": _HALL,
    "data.enso": _HALL,
    "data.mnist": _HALL,
    "data.sevir": _HALL,
    "training": "checks settings ops ops.tuned losses metrics data models.contract",
    "interop": f"settings {_MODELS}",
    "profiling": f"{_MODELS} {_HALL} {_WINGS}",
    "reports": f"{_MODELS} {_HALL} {_WINGS} plotting forecast",
    "forecast": _HALL,
    "look": f"{_HALL} {_WINGS} plotting",
    "run": f"{_MODELS} {_HALL} {_WINGS} {_TRADES} forecast pretrained",
    "__main__": "",
    "main": f"{_MODELS} {_HALL} {_WINGS} {_TRADES} run",
}

# (importing module, imported room): why the law does not hold there. An exception that
# is no longer needed is an error, so this list only holds what is true.
EXCEPTIONS = {
    ("data.__main__", "look"): "an entry point: `python -m earthformer_jax.data`",
    ("data.__main__", "run"): "an entry point: it reads the config of a run",
}


@dataclasses.dataclass(frozen=True)
class Import:
    """`importer` imports `imported` in `line` of its file; names as in Python."""

    importer: str
    imported: str
    line: int


def modules(root: Path) -> dict[str, Path]:
    """Dotted name of every module below `root/PACKAGE`: its file."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(files: Mapping[str, Path]) -> Iterator[Import]:
    """Every import in `files` (as from `modules`), of modules rather than names."""
    for importer, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(importer, alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                above = importer.split(".")
                if path.name != "__init__.py":
                    above = above[:-1]
                base = above[: len(above) + 1 - node.level] if node.level else []
                base = ".".join([*base, *filter(None, [node.module])])
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    yield Import(importer, full if full in files else base, node.lineno)


def room_of(module: str, rooms: Mapping[str, str]) -> str | None:
    """The innermost of `rooms` that holds `module`; None if none does."""
    name = module.removeprefix(PACKAGE).removeprefix(".")
    holding = [r for r in rooms if f"{name}.".startswith(f"{r}.")]
    return max(holding, key=len, default=None)


def find_circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """A shortest way from a module back to itself; empty if there is none."""
    for start in sorted(arrows):
        paths, seen = [[start]], set()
        while paths:
            path = paths.pop(0)
            for following in sorted(arrows.get(path[-1], ())):
                if following == start:
                    return [*path, start]
                if following not in seen:
                    seen.add(following)
                    paths.append([*path, following])
    return []


def broken_laws(
    root: Path, rooms: Mapping[str, str], exceptions: Mapping[tuple[str, str], str]
) -> list[str]:
    """What is wrong with the imports of the package in `root`, one message each.

    Args:
        root: the folder that holds the package.
        rooms: for each room, the other rooms it may import, separated by spaces.
        exceptions: (module, room) pairs that are allowed all the same, with the reason.
    """
    files = modules(root)
    short = {name: name.removeprefix(f"{PACKAGE}.") for name in files}
    found = []
    for name in files:
        if name != PACKAGE and room_of(name, rooms) is None:
            found.append(f"{name} is in no room; add its folder to ROOMS")
    named = {r for row in rooms.items() for r in " ".join(row).split()}
    named |= {name for pair in exceptions for name in pair}
    for name in sorted(named - set(short.values())):
        found.append(f"{name} does not exist; remove it from ROOMS and EXCEPTIONS")

    needed, arrows = set(), {}
    for item in imports(files):
        where = f"{files[item.importer].relative_to(root)}:{item.line}"
        if item.imported.split(".")[0] in OUTSIDE:
            found.append(
                f"{where} imports {item.imported}, which is not part of the package; "
                "move what it needs into the package"
            )
        if item.imported not in files:
            continue
        arrows.setdefault(item.importer, set()).add(item.imported)
        source, target = room_of(item.importer, rooms), room_of(item.imported, rooms)
        if source is None or target == source or target in rooms[source].split():
            continue
        exception = (short[item.importer], target)
        if exception in exceptions:
            needed.add(exception)
        else:
            found.append(
                f"{where} imports {item.imported}, but {source} may import only "
                f"{', '.join(rooms[source].split()) or 'itself'}; move what is shared "
                "into a room that both may import, or pass it as an argument"
            )
    for module, room in sorted(set(exceptions) - needed):
        found.append(
            f"{module} no longer imports {room}; remove that line from EXCEPTIONS"
        )
    if circle := find_circle(arrows):
        found.append(
            f"a circle of imports: {' -> '.join(circle)}; move what two of them share "
            "into a module of its own"
        )
    for folder in sorted({path.parent for path in files.values()}):
        if (count := len(list(folder.glob("*.py")))) > FILES_PER_FOLDER:
            found.append(
                f"{folder.relative_to(root)} has {count} .py files, more than "
                f"{FILES_PER_FOLDER}; make a folder of those that belong together"
            )
    return found


def test_the_package_keeps_the_laws():
    found = broken_laws(REPOSITORY, ROOMS, EXCEPTIONS)
    assert not found, "\n" + "\n".join(found)


def test_the_table_itself_allows_no_circle():
    allowed = {room: set(row.split()) for room, row in ROOMS.items()}
    assert find_circle(allowed) == []


def test_wings_know_only_the_hall():
    wings = {r for r in ROOMS if r.startswith("data.")} - {"data.readers"}
    for wing in wings:
        assert not wings & set(ROOMS[wing].split()), wing


_ROOMS = {"ops": "", "layers": "ops", "data": "", "data.a": "data", "data.b": "data"}
_SOUND = {
    "__init__.py": "",
    "ops/__init__.py": "import numpy",
    "ops/dense.py": "",
    "layers/__init__.py": "from earthformer_jax.ops import dense",
    "data/__init__.py": "",
    "data/a/__init__.py": "from earthformer_jax import data",
    "data/b/__init__.py": "import earthformer_jax.data",
}


def _check(root, changes, exceptions=None, rooms=_ROOMS):
    for name, text in (_SOUND | changes).items():
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return broken_laws(root, rooms, exceptions or {})


def test_a_sound_tree_has_no_complaint(tmp_path):
    assert _check(tmp_path, {}) == []


def test_an_exception_is_allowed_while_needed(tmp_path):
    changes = {"ops/dense.py": "from earthformer_jax.data import a"}
    exceptions = {("ops.dense", "data.a"): "a reason"}
    assert _check(tmp_path, changes, exceptions) == []


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"ops/up.py": "\nfrom earthformer_jax import layers"},
            "earthformer_jax/ops/up.py:2 imports earthformer_jax.layers, but ops may "
            "import only itself",
        ),
        (
            {"ops/up.py": "def f():\n    import earthformer_jax.layers"},
            "ops/up.py:2 imports earthformer_jax.layers, but",
        ),
        ({"ops/up.py": "from ..layers import x"}, "imports earthformer_jax.layers,"),
        ({"ops/up.py": "from .. import layers"}, "imports earthformer_jax.layers,"),
        ({"ops/__init__.py": "from ..data import a"}, "imports earthformer_jax.data.a"),
        (
            {"data/b/x.py": "from earthformer_jax.data.a import f"},
            "imports earthformer_jax.data.a, but data.b may import only data;",
        ),
        (
            {"ops/up.py": "import earthformer_jax"},
            "ops/up.py:1 imports earthformer_jax, but ops may",
        ),
        (
            {"ops/up.py": "from experiments import leaderboard"},
            "imports experiments, which is not part of the package",
        ),
        ({"cellar/__init__.py": ""}, "earthformer_jax.cellar is in no room"),
        ({"roof.py": ""}, "earthformer_jax.roof is in no room"),
        (
            {
                "ops/dense.py": "from earthformer_jax.ops.up import f",
                "ops/up.py": "def f():\n    from earthformer_jax.ops import dense",
            },
            "earthformer_jax.ops.dense -> earthformer_jax.ops.up -> "
            "earthformer_jax.ops.dense",
        ),
        ({f"ops/f{i}.py": "" for i in range(15)}, "ops has 17 .py files"),
    ],
)
def test_a_broken_law_is_named(tmp_path, changes, message):
    (found,) = _check(tmp_path, changes)
    assert message in found


@pytest.mark.parametrize(
    "rooms, exceptions, message",
    [
        (_ROOMS | {"attic": ""}, {}, "attic does not exist"),
        (_ROOMS | {"layers": "ops oops"}, {}, "oops does not exist"),
        (_ROOMS, {("ops.dense", "data"): "?"}, "ops.dense no longer imports data"),
    ],
)
def test_a_table_that_is_not_true_is_named(tmp_path, rooms, exceptions, message):
    (found,) = _check(tmp_path, {}, exceptions, rooms)
    assert message in found


def floors(rooms: Mapping[str, str]) -> list[list[str]]:
    """Rooms by height: those of a floor import only rooms below it."""
    height = {}
    while len(height) < len(rooms):
        for room, row in rooms.items():
            if all(below in height for below in row.split()):
                height[room] = max((height[b] + 1 for b in row.split()), default=0)
    return [
        [r for r in rooms if height[r] == h] for h in range(len(set(height.values())))
    ]


def main() -> None:
    """Prints the floors, top first, and how many imports go between rooms."""
    for height, names in reversed(list(enumerate(floors(ROOMS)))):
        print(f"{height}  {'  '.join(names)}")
    files, count = modules(REPOSITORY), {}
    for item in imports(files):
        if item.imported in files:
            arrow = room_of(item.importer, ROOMS), room_of(item.imported, ROOMS)
            count[arrow] = count.get(arrow, 0) + 1
    for (source, target), number in sorted(count.items(), key=str):
        if source != target:
            print(f"{number:4} {source} -> {target}")


if __name__ == "__main__":
    main()
