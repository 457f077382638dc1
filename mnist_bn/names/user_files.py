"""Python files of the user's own: their classes, the modules beside them, and their checksums."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import chainer

from mnist_bn.errors import UsageError
from mnist_bn.storage import files

_MAX_BYTES = 2**31


def load(path: Path, flag: str) -> ModuleType:
    """Runs a Python file, which may import the modules beside it, and returns it as a module.

    Args:
        flag: of the command line, for the line that refuses it.

    Raises:
        UsageError: there is no such file, or it cannot be run.
    """
    if not path.is_file():
        raise UsageError(f"{flag} {path}: there is no such file")
    # By its path: two files may have one name.
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"mnist_bn_user_{path.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{flag} {path}: expected a Python file (*.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _neighbours.go_to(path.resolve().parent)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"{path}: {what_failed(error, path)}") from error
    return module


class _Neighbours:
    """Finds the modules beside a user's file: first its own, then those of earlier files.

    Modules beside a file that was loaded before are forgotten, and stay with whoever has imported
    them: two folders may have modules of one name, and a module may have been edited. The folders
    are not in `sys.path`, which new processes take over.
    """

    def __init__(self) -> None:
        self._folders: list[str] = []  # the newest first
        self._others: frozenset[str] = frozenset()  # modules and packages that are no user's

    def go_to(self, folder: Path) -> None:
        if not self._folders:
            self._others = frozenset(sys.modules)
            sys.meta_path.append(self)  # last, so that they shadow nothing
        for name in set(sys.modules) - self._others:
            if name.partition(".")[0] not in self._others and self._has(name):
                del sys.modules[name]
        self._folders = list(dict.fromkeys([str(folder), *self._folders]))
        importlib.invalidate_caches()

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        """Python's protocol for finders of modules; `path` is that of a package."""
        return PathFinder.find_spec(name, self._folders) if path is None else None

    def _has(self, name: str) -> bool:
        return any(_is_beside(sys.modules[name], name, Path(one)) for one in self._folders)


_neighbours = _Neighbours()


def _is_beside(module: ModuleType, name: str, folder: Path) -> bool:
    """Tells whether a module, or the package that it is of, lies in the folder itself."""
    # Its own attributes only: some modules answer to any name with an object (torch.classes).
    own = getattr(module, "__dict__", {})
    places = [own.get("__file__"), *own.get("__path__", ())]
    top = name.partition(".")[0]
    for place in filter(None, places):
        if Path(place).is_relative_to(folder):
            # Not what an environment inside the folder has installed.
            return Path(place).relative_to(folder).parts[0].partition(".")[0] == top
    return False


def checksums(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of a user's file and of all modules beside it that it needs, by name.

    Needed is what an `import` anywhere in the file names, or `import_module` with a word, in what
    it names in turn, and so on; not seen are a name that is put together, and files of data. A
    module that an installed one shadows counts too.

    Returns:
        Path from the file's folder -> hexadecimal digits; the file itself is the first.
    """
    folder = path.resolve().parent
    found = {path.name: _sha256(path)}
    waiting = [(path, "")]  # files, and the packages that they are of
    while waiting:
        importing, package = waiting.pop()
        for module in _imported(importing, package):
            for file, its_package in _files_of(module, folder):
                name = file.relative_to(folder).as_posix()
                if name not in found:
                    found[name] = _sha256(file)
                    waiting.append((file, its_package))
    first, *others = found.items()
    return dict([first, *sorted(others)])


def check_apart(path: Path | None, other: Path | None) -> None:
    """Checks that no module beside one file of a run has the name of another beside the other.

    Raises:
        UsageError: two have; an import within a function could take either.
    """
    if path is None or other is None or path.resolve().parent == other.resolve().parent:
        return
    beside, beside_other = (list(checksums(one))[1:] for one in (path, other))
    for name in beside:
        if name in beside_other:
            raise UsageError(
                f"{path.parent / name} and {other.parent / name} would be one module: rename one, "
                f"or put {path.name} and {other.name} in one folder"
            )


def _sha256(path: Path) -> str:
    # Not files.sha256, which reads a file once a process: this one may be edited.
    return hashlib.sha256(files.read_bytes(path, _MAX_BYTES)).hexdigest()


def combined(sums: dict[str, str] | None) -> str | None:
    """Returns one SHA-256 for those of several files; of one file alone it is its own."""
    if sums is None:
        return None
    if len(sums) == 1:
        return next(iter(sums.values()))
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def _imported(path: Path, package: str) -> Iterator[str]:
    """Yields the dotted names of what a file imports, maybe also of what is no module."""
    try:
        tree = ast.parse(files.read_bytes(path, _MAX_BYTES))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # whoever imports it says so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            of = package.split(".") if package else []
            above = of[: max(0, len(of) - node.level + 1)]
            parts = [*(above if node.level else ()), *filter(None, [node.module])]
            yield from (".".join([*parts, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = getattr(node.func, "attr", getattr(node.func, "id", None))
            if function in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def _files_of(module: str, folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields the files in the folder that importing a module runs, each with its package."""
    parts = module.split(".")
    if not all(map(str.isidentifier, parts)):
        return
    if parts[0] in (*sys.stdlib_module_names, "mnist_bn", "models"):
        return  # never found there: ours may be, if the file is in the project's own folder
    for end in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:end])
        as_package, as_module = place / "__init__.py", place.with_name(f"{place.name}.py")
        if as_package.is_file():
            yield as_package, ".".join(parts[:end])
        elif as_module.is_file():
            yield as_module, ".".join(parts[: end - 1])


def what_failed(error: BaseException, path: Path | None) -> str:
    """Returns the error in one line, with the line of the user's file, if any, that raised it."""
    if isinstance(error, SyntaxError):
        where = f"line {error.lineno}: " if error.lineno else ""
        return f"{where}SyntaxError: {error.msg}"
    numbers = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if path is not None and Path(frame.filename).resolve() == path.resolve()
    ]
    where = f"line {numbers[-1]}: " if numbers else ""
    # Chainer's messages have several lines, the first of them empty.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = "".join(f": {text}" for text in ["; ".join(lines[:3])] if text)
    return f"{where}{type(error).__name__}{said}{_hint(error)}"


# What Python or Chainer 7 says of something that Chainer 1 had -> what to write.
_HINTS = {
    r"^(train|test) argument": "leave it out: what trains and tests the network sets it for all",
    r"dropout\(\) takes .* positional": "leave the third argument out",
    r"^(volatile|deterministic) argument|argument.* '(use_cudnn|deterministic)'": "leave it out",
    r"'chainer.functions' has no attribute 'MaxPooling2D'": "for spatial pyramids write 'max'",
    r"'chainer' has no attribute 'FunctionSet'": "write chainer.Chain",
    r"unexpected keyword argument 'wscale'": "give initialW= one of chainer.initializers",
    r"unexpected keyword argument 'bias'": "write initial_bias=",
    # Chainer 7's own.
    r"'NoneType' object has no attribute '(enabled|add_hook|hyperparam)'": (
        "update rules come with the optimizer; before that a link's disable_update() works"
    ),
}


def _hint(error: BaseException) -> str:
    """Returns in brackets what to write in place of something that Chainer 1 had, or ""."""
    text = str(error)
    for said, hint in _HINTS.items():
        if re.search(said, text):
            return f" ({hint})"
    found = re.search(r"'chainer\.functions' has no attribute '(\w+)'", text)
    if found and hasattr(chainer.links, found[1]):
        return f" (write L.{found[1]}, with `import chainer.links as L`)"
    return ""
