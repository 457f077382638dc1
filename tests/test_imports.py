"""Which module imports which: no circle, and each room keeps to what it is for."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [*(ROOT / "mnist_bn").rglob("*.py"), *(ROOT / "models").glob("*.py"), ROOT / "door.py"]


def _name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in FILES}
NETWORKS = [name for name in MODULES if name.startswith("models.")]


def _statements(body):
    """Yields the statements that run when a module is imported: not those in functions."""
    for statement in body:
        is_for_types = isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types:
            continue
        yield statement
        for field in ("body", "orelse", "finalbody", "handlers"):
            yield from _statements(getattr(statement, field, []))


def imported(source, modules=()):
    """Returns the names of the modules that importing `source` imports, without their packages."""
    found = set()
    for statement in _statements(ast.parse(source).body):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        if isinstance(statement, ast.ImportFrom):
            assert not statement.level, "imports say the whole name"
            names = {f"{statement.module}.{alias.name}" for alias in statement.names}
            found |= names & set(modules)
            if names - set(modules):
                found.add(statement.module)
    return found


IMPORTS = {name: imported(path.read_text(), MODULES) for name, path in MODULES.items()}


def circle(imports):
    """Returns the modules of a circle, each importing the next; None: there is none."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return None


def test_there_is_no_circle():
    assert circle(IMPORTS) is None


def test_a_circle_is_found():
    a = "try:\n    from pack import b\nexcept ImportError:\n    pass"
    b = "class B:\n    import pack.a"
    imports = {"pack.a": imported(a, ["pack.b"]), "pack.b": imported(b)}
    assert set(circle(imports)) == {"pack.a", "pack.b"}
    later = "def f():\n    import pack.a\nif TYPE_CHECKING:\n    import pack.a"
    assert circle(imports | {"pack.b": imported(later)}) is None


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_import_chainer_and_numpy_only(name):
    packages = {module.partition(".")[0] for module in IMPORTS[name]} - sys.stdlib_module_names
    assert packages <= {"chainer", "numpy", "models"}
    assert "models" not in IMPORTS[name]  # the list of networks, which imports ours


# Room -> what nothing in it may import.
CLOSED = {
    "storage": ("observers", "plotting", "studies"),
    "data": ("observers", "plotting", "studies", "kernels", "trainer"),
    "kernels": ("observers", "plotting", "studies", "data", "storage"),
    "observers": ("studies",),
    "plotting": ("observers", "studies"),
}


@pytest.mark.parametrize(("room", "closed"), CLOSED.items())
def test_a_room_keeps_to_itself(room, closed):
    rooms = tuple(f"mnist_bn.{other}" for other in closed)
    inside = [name for name in MODULES if name.startswith(f"mnist_bn.{room}")]
    found = [(name, one) for name in inside for one in IMPORTS[name] if one.startswith(rooms)]
    assert inside and not found


def test_only_the_doors_import_the_studies():
    room = "mnist_bn.studies"
    of_studies = [n for n, found in IMPORTS.items() if any(one.startswith(room) for one in found)]
    assert of_studies and all(name.startswith(room) for name in of_studies)
