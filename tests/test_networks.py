"""A user's own network from a Python file."""

import hashlib

import chainer
import numpy as np
import pytest

from mnist_bn import networks
from mnist_bn.errors import UsageError

GOOD = """
import chainer
import chainer.links as L

class MyNet(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l = L.Linear(784, 10)

    def forward(self, x):
        return self.l(x)

class Needy(chainer.Chain):
    def __init__(self, size):
        super().__init__()

class NotAChain:
    pass
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(GOOD)
    return path


def refusal(spec):
    with pytest.raises(UsageError) as error:
        networks.create(str(spec))
    return str(error.value)


def test_it_is_made_and_runs(net):
    network = networks.create(f"{net}:MyNet")
    assert network(np.zeros((2, 784), np.float32)).shape == (2, 10)


def test_it_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_net.py").write_text(GOOD)
    (tmp_path / "net.py").write_text(
        "import neighbour_of_net\nclass Mine(neighbour_of_net.MyNet):\n    pass\n"
    )
    assert networks.create(f"{tmp_path}/net.py:Mine").count_params() == 7850


def test_names_of_models_still_work():
    assert type(networks.create("MnistCNN")).__name__ == "MnistCNN"


def test_refusals_are_one_line(net, tmp_path):
    none = tmp_path / "none.py"
    assert refusal(f"{none}:A") == f"--model {none}: there is no such file"
    assert refusal(net) == f"--model {net}: say which class of it, as {net}:ClassName"
    assert refusal(f"{net}:MyNett") == (
        f"{net}: no chainer.Link class named 'MyNett'; it has MyNet, Needy; did you mean 'MyNet'?"
    )
    assert refusal(f"{net}:NotAChain").startswith(f"{net}: no chainer.Link class named 'NotAChain'")
    assert refusal(f"{net}:Needy").startswith(f"{net}:Needy: TypeError: Needy.__init__() missing")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nx = = 2\n", "line 2: SyntaxError: invalid syntax"),
        ("\n\nimport chainer_that_is_not\n", "line 3: ModuleNotFoundError: No module named"),
        ("", "no chainer.Link class named 'A'; it defines none"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(tmp_path, source, message):
    path = tmp_path / "broken.py"
    path.write_text(source)
    line = refusal(f"{path}:A")
    assert line.startswith(f"{path}: {message}")
    assert "\n" not in line


def test_what_is_no_python_file(tmp_path):
    path = tmp_path / "net.txt"
    path.write_text(GOOD)
    assert refusal(f"{path}:MyNet") == f"--model {path}: expected a Python file (*.py)"


def test_source_sum_follows_the_file(net):
    before = networks.checksums(f"{net}:MyNet")
    assert before == {"net.py": hashlib.sha256(GOOD.encode()).hexdigest()}
    net.write_text(GOOD + "\n")
    assert networks.checksums(f"{net}:MyNet") != before
    assert networks.checksums("MnistCNN") is None


def test_arguments_in_brackets_reach_the_class(net):
    assert networks.create("ReluMLP(slope=0.25)").slope == 0.25
    assert networks.create("ExerciseMLP_BN(trained=True)").bnorm1.gamma is not None
    assert type(networks.create(f"{net}:Needy(size=3)")).__name__ == "Needy"


@pytest.mark.parametrize(
    "spec",
    [
        *("ReluMLP(0.1)", "ReluMLP(slope='a b')", "ReluMLP(slope=", "ReluMLP()x"),
        *("ReluMLP(slope='../a')", "ReluMLP(slope='é')", "ReluMLP(slope='')"),
        *("ReluMLP(slope=0.1)#/../../../escaped", "ReluMLP(slope=0.1)#)", "ReluMLP(slope=0.1) "),
        *("ReluMLP(slope=0.1)\n", "ReluMLP(slope=\n0.1)", "ReluMLP(slope=0.1\f)"),
        *("ReluMLP(slope=0.5)(slope=0.1)", "ReluMLP(**1)", "ReluMLP(slope=1e999)"),
        *("ReluMLP(slope={[]})", "ReluMLP(**{})"),
        *("ReluMLP(slope=exit(3))", f"ReluMLP(slope={'-' * 6000}1)"),
        *("ReluMLP(slope=0.1, slope=0.2)", f"ReluMLP(slope={10**400})"),
    ],
)
def test_arguments_that_are_neither_numbers_nor_words_by_name(spec):
    assert refusal(spec) == (
        f"--model {spec}: expected numbers, or words in quotes, by their names in the brackets, "
        "as in ReluMLP(slope=0.1)"
    )


def test_a_word_reaches_the_class_which_may_refuse_it():
    assert networks.create('ResNetCIFAR(depth=8, bn="end")').bn == "end"
    assert refusal("ReluMLP(slope='a')").startswith("ReluMLP(slope='a'): ValueError: could not")


def test_an_argument_that_the_class_does_not_take():
    assert refusal("ReluMLP(slop=0.1)").startswith(
        "ReluMLP(slop=0.1): TypeError: ReluMLP.__init__()"
    )
    assert refusal("Relu(slope=0.1)").startswith("no model named 'Relu'; did you mean")


def test_a_network_that_takes_the_images(net, tiny_data):
    for spec in ("MnistCNN", "ReluMLP_BN", f"{net}:MyNet"):
        networks.check(spec, tiny_data, chainer.get_device("@numpy"))


@pytest.mark.parametrize(
    ("forward", "failed"),
    [
        ("raise RuntimeError('no\\nway')", "line 6: RuntimeError: no; way"),
        ("return x.reshape(3, 5)", "line 6: ValueError: cannot reshape array"),
        ("return x[:, :4]", "ValueError: expected logits (2, 10), found shape (2, 4)"),
        ("return x[:, :10, None]", "ValueError: expected logits (2, 10), found shape (2, 10, 1)"),
        ("return x[:, :10].sum(0)", "ValueError: expected logits (2, 10), found shape (10,)"),
        ("return x, x", "ValueError: expected logits (2, 10), found tuple"),
        ("raise SystemExit", "line 6: SystemExit"),
        ("assert False", "line 6: AssertionError"),
    ],
)
def test_a_network_that_does_not_take_the_images(tmp_path, tiny_data, forward, failed):
    path = tmp_path / "net.py"
    path.write_text(
        "import chainer\n"
        "class Net(chainer.Chain):\n"
        "    def fit_input(self, images):\n"
        "        assert len(images) > 2 and images.shape[1:] == (784,)\n"
        "    def forward(self, x):\n"
        f"        {forward}\n"
    )
    with pytest.raises(UsageError) as error:
        networks.check(f"{path}:Net", tiny_data, chainer.get_device("@numpy"))
    line = str(error.value)
    assert line.startswith(
        f"{path}:Net: not a network for mnist, which maps images, float32 (N, 784), to logits "
        f"(N, 10): {failed}"
    )
    assert "\n" not in line and not line.endswith((":", " "))


@pytest.mark.parametrize(
    ("method", "failed"),
    [
        ("fit_input(self, images): images -= images.mean()", "ValueError: output array is read-on"),
        ("forward(self, x): x *= 0; return x", None),
    ],
)
def test_a_network_that_writes_to_its_images_does_not_change_the_datasets(
    tmp_path, tiny_data, method, failed
):
    path = tmp_path / "net.py"
    path.write_text(f"import chainer\nclass Net(chainer.Chain):\n    def {method}\n")
    before = tiny_data.train.images.copy()
    try:
        networks.check(f"{path}:Net", tiny_data, chainer.get_device("@numpy"))
    except UsageError as error:
        assert failed is not None and failed in str(error)
    else:
        assert failed is None
    assert np.array_equal(tiny_data.train.images, before)


@pytest.mark.parametrize(
    "spec", ["", "a/b", "../escaped", "Relu MLP", "ReluMLP ", "-x", "ReluMLP#"]
)
def test_what_is_no_name_of_a_class(spec):
    assert refusal(spec) == (
        f"--model {spec!r}: expected a class's name, as ReluMLP(slope=0.1), or "
        "path/to/file.py:ClassName"
    )


def test_names_in_any_case(net):
    assert networks.canonical("relumlp(slope=0.25)") == "ReluMLP(slope=0.25)"
    assert networks.canonical(f"{net}:mynet") == f"{net}:MyNet"
    assert networks.create("relumlp(slope=0.25)").slope == 0.25
    assert "; did you mean 'ReluMLP'? " in refusal("RelluMLP")


LINKS = """
import chainer
import chainer.functions as F
import chainer.links as L
from chainer import Sequential
from beside_links import Imported

class AsSequential(chainer.Sequential):
    def __init__(self, units=5):
        super().__init__(L.Linear(784, units), F.relu, L.Linear(units, 10))

class AsList(chainer.ChainList):
    def __init__(self):
        super().__init__(L.Linear(784, 5), L.Linear(5, 10))
    def forward(self, x):
        for link in self:
            x = link(x)
        return x

class AsLink(L.Linear):
    def __init__(self):
        super().__init__(784, 10)

class Mute(chainer.Link):
    pass

model = AsSequential()

def make():
    return AsSequential()
"""


@pytest.fixture
def links(tmp_path):
    (tmp_path / "beside_links.py").write_text(GOOD.replace("MyNet", "Imported"))
    path = tmp_path / "links.py"
    path.write_text(LINKS)
    return path


@pytest.mark.parametrize("name", ["AsSequential", "AsSequential(units=3)", "AsList", "AsLink"])
def test_any_link_class_is_a_network(links, tiny_data, name):
    networks.check(f"{links}:{name}", tiny_data, chainer.get_device("@numpy"))


def test_a_class_that_the_file_imports_is_a_network_too(links, tiny_data):
    networks.check(f"{links}:Imported", tiny_data, chainer.get_device("@numpy"))


def test_what_is_no_class_is_refused_with_what_to_write(links, tiny_data):
    assert refusal(f"{links}:make") == (
        f"{links}: make is no class (its type is function): expected the network as a class, such "
        "as class Make(chainer.Chain)"
    )
    assert refusal(f"{links}:model").startswith(f"{links}: model is no class (its type is AsSeq")
    with pytest.raises(UsageError, match="not a network for mnist"):
        networks.check(f"{links}:Mute", tiny_data, chainer.get_device("@numpy"))
