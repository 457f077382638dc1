"""Python files of the user's own, and what lies beside them."""

import dataclasses
import importlib
import sys
import types

import numpy as np
import pytest

from mnist_bn import networks, optimizers, sweep, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError, UserError
from mnist_bn.names import user_files
from mnist_bn.storage import snapshots
from mnist_bn.training import prepare

NET = """
import chainer
import chainer.links as L
{imports}

class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l = L.Linear(784, 10)

    def forward(self, x):
        {in_forward}
        return self.l(x) * {scale}
"""


def write(folder, name="net.py", imports="", in_forward="pass", scale="1"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(NET.format(imports=imports, in_forward=in_forward, scale=scale))
    return path


def module(path, text="scale = 1\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("imports", "in_forward"),
    [
        ("import beside", "pass"),
        ("from beside import scale", "pass"),
        ("", "import beside as b"),
        ("", "from beside import scale"),
        ("import importlib", "importlib.import_module('beside')"),
        ("from package import one", "pass"),
        ("import package.one", "pass"),
        ("import chainer as c, package.one as one", "pass"),
    ],
)
def test_what_a_file_imports_is_summed_with_it(tmp_path, imports, in_forward):
    path = write(tmp_path, imports=imports, in_forward=in_forward)
    module(tmp_path / "beside.py", "import farther\n")
    module(tmp_path / "farther.py")
    module(tmp_path / "other.py")
    module(tmp_path / "package/__init__.py", "from .two import scale\n")
    module(tmp_path / "package/one.py", "from . import three\n")
    for name in ("two", "three", "other"):
        module(tmp_path / f"package/{name}.py")
    of_package = [f"package/{name}.py" for name in ("__init__", "one", "three", "two")]
    of_module = ["beside.py", "farther.py"]
    is_package = "package" in imports
    found = user_files.checksums(path)
    assert list(found) == ["net.py", *(of_package if is_package else of_module)]
    before = user_files.combined(found)
    module(tmp_path / ("package/three.py" if is_package else "farther.py"), "scale = 2\n")
    assert user_files.combined(user_files.checksums(path)) != before


def test_a_file_alone_has_its_own_sum_and_ours_are_not_the_users(tmp_path):
    path = write(tmp_path, imports="import random, models, mnist_bn.training\nfrom . import x")
    for name in ("random", "models", "mnist_bn"):
        module(tmp_path / f"{name}.py")
    (name, own), *others = user_files.checksums(path).items()
    assert (name, others) == ("net.py", [])
    assert user_files.combined({name: own}) == own


@pytest.mark.parametrize(
    "imports",
    [
        "from . import beside",
        "from ... import above",
        "import importlib\nimportlib.import_module('..above')",
        "import importlib\nimportlib.import_module('/above')",
        "import importlib\nimportlib.import_module('')",
        "import importlib\nimportlib.import_module('a b.' + 'c')",
        "from user import *",
        "import = 3",
        "\0",
    ],
)
def test_what_cannot_be_imported_stops_no_sum_and_leaves_no_folder(tmp_path, imports):
    for name in ("above", "user"):
        module(tmp_path / f"{name}.py")
    path = write(tmp_path / "user", imports=imports)
    assert list(user_files.checksums(path)) == ["net.py"]


def run(path, out, **settings):
    return RunConfig(
        f"{path}:Net", "SGD", dataset="mnist", batchsize=8, epoch=2, out=str(out),
        accelerate="off", **settings,
    )  # fmt: skip


def test_a_run_does_not_go_on_with_another_version_of_what_it_imports(
    tmp_path, tiny_data, no_plots
):
    path = write(tmp_path / "user", imports="from beside import scale", scale="scale")
    module(tmp_path / "user/beside.py", "from farther import scale\n")
    module(tmp_path / "user/farther.py")
    config = prepare(run(path, tmp_path / "out")).config
    training.train(prepare(config))
    assert sweep.is_finished(prepare(config))
    (newest,) = snapshots.found(config.folder)
    longer = dataclasses.replace(config, epoch=3)
    module(tmp_path / "user/farther.py", "scale = 2\n")
    other = "another version of farther.py, which net.py imports"
    with pytest.raises(UserError, match=f"{newest} was taken with {other}: resume with"):
        training.train(prepare(longer), resume=newest)
    with pytest.raises(UserError, match=f"holds a finished run with {other}: choose"):
        sweep.is_finished(prepare(config))
    module(tmp_path / "user/farther.py")
    training.train(prepare(longer), resume=newest)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match=f"{newest} was taken with another version of net.py: res"):
        training.train(prepare(longer), resume=newest)


@pytest.mark.parametrize("is_lazy", [False, True])
def test_files_and_modules_of_one_name_in_two_folders_are_not_mixed(tmp_path, is_lazy):
    imports, in_forward = ("", "import layers_of_net") if is_lazy else ("import layers_of_net", "")
    outputs = []
    for folder, scale in (("a", 1), ("b", 2), ("a", 1)):
        path = write(
            tmp_path / folder,
            imports=imports,
            in_forward=in_forward or "pass",
            scale="layers_of_net.scale",
        )
        module(tmp_path / folder / "layers_of_net.py", f"scale = {scale}\n")
        network = networks.create(f"{path}:Net")
        network.l.W.array[...] = 1
        outputs.append(float(network(np.ones((1, 784), np.float32)).array[0, 0]))
    assert outputs == [784, 1568, 784]


def test_a_module_that_was_edited_is_read_again(tmp_path):
    path = write(tmp_path, imports="import edited_module", scale="edited_module.scale")
    for scale in ("1", "10"):
        module(tmp_path / "edited_module.py", f"scale = {scale}\n")
        networks.create(f"{path}:Net")
        assert str(sys.modules["edited_module"].scale) == scale


def test_a_module_that_answers_to_any_name_does_no_harm(tmp_path, monkeypatch):
    """As torch.classes does, which a user's file may import."""

    class Answering(types.ModuleType):
        def __getattr__(self, name):
            return object()

    networks.create(f"{write(tmp_path / 'a')}:Net")
    monkeypatch.setitem(sys.modules, "imported_by_net", Answering("imported_by_net"))
    networks.create(f"{write(tmp_path / 'b')}:Net")


def test_modules_of_one_name_beside_network_and_optimizer_are_refused(tmp_path, tiny_data):
    optimizer = "import chainer\nimport layers\nclass Mine(chainer.optimizers.SGD):\n    pass\n"
    path = write(tmp_path / "a", imports="import layers")
    for folder in ("a", "b"):
        module(tmp_path / folder / "layers.py")
    module(tmp_path / "b/mine.py", optimizer)
    config = dataclasses.replace(run(path, tmp_path), optimizer=f"{tmp_path}/b/mine.py:Mine")
    with pytest.raises(UsageError) as error:
        prepare(config)
    assert str(error.value) == (
        f"{tmp_path}/a/layers.py and {tmp_path}/b/layers.py would be one module: rename one, or "
        "put net.py and mine.py in one folder"
    )


def test_what_was_on_the_path_stays_where_it_was_and_our_modules_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(user_files, "_neighbours", user_files._Neighbours())
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    given = [str(tmp_path / "given"), *sys.path]
    monkeypatch.setattr(sys, "path", list(given))
    module(tmp_path / "given/not_of_the_user/__init__.py")
    module(tmp_path / "given/not_of_the_user/late.py")
    package = importlib.import_module("not_of_the_user")
    for folder in ("given", "other", "given"):
        user_files.load(write(tmp_path / folder), "--model")
    assert sys.path == given  # processes that a sweep starts take it over
    late = importlib.import_module("not_of_the_user.late")
    user_files.load(write(tmp_path / "given"), "--model")
    assert sys.modules["not_of_the_user"] is package
    assert sys.modules["not_of_the_user.late"] is late


def test_a_class_by_the_name_that_the_file_gives_it(tmp_path):
    module(tmp_path / "far.py", NET.format(imports="", in_forward="pass", scale="1"))
    module(
        tmp_path / "near.py",
        "from far import Net as Mine\nfrom chainer.optimizers import SGD as Own\n",
    )
    assert networks.canonical(f"{tmp_path}/near.py:Mine") == f"{tmp_path}/near.py:Mine"
    assert optimizers.resolve(f"{tmp_path}/near.py:own")[0] == f"{tmp_path}/near.py:Own"
