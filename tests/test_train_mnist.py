"""The command line of train_mnist.py."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import models
import train_mnist
from mnist_bn import report
from mnist_bn.data import Dataset, Split
from mnist_bn.errors import UsageError, UserError

ROOT = Path(__file__).parent.parent


def configs(line):
    return train_mnist.make_configs(train_mnist.parse_arguments(line.split()))


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "train_mnist.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, **environment},
    )


def refused(*arguments):
    """The exit status and the line of a command that cannot be carried out."""
    with pytest.raises(UserError) as error:
        train_mnist.main(arguments)
    return error.value.status, str(error.value)


def test_defaults_are_chainers_examples():
    (config,) = configs("")
    assert (config.batchsize, config.epoch, config.frequency, config.out) == (100, 20, -1, "result")
    assert (config.optimizer, config.lr, config.semantics) == ("Adam", None, "today")


def test_chainers_short_flags():
    (config,) = configs("-m MnistCNN -b 50 -e 3 -f 1 -d @numpy -o there")
    assert (config.model, config.batchsize, config.epoch) == ("MnistCNN", 50, 3)
    assert (config.frequency, config.device, config.out) == (1, "@numpy", "there")
    assert configs("-g -1")[0].device == "-1"


@pytest.mark.parametrize(
    ("flags", "device"), [("-g", "0"), ("--gpu", "0"), ("-g 2", "2"), ("-d @cupy:1", "@cupy:1")]
)
def test_gpu_flags_reach_the_device(flags, device):
    assert str(train_mnist.parse_arguments(flags.split()).device) == device


def test_several_values_are_every_combination():
    made = configs("--model MnistCNN MnistCNN_BN_after --optimizer SGD Adam --seed 0 1 2")
    assert len(set(made)) == 12


@pytest.mark.parametrize(
    ("spaces", "commas"),
    [
        ("--model MnistCNN ReluMLP(slope=0.1)", "--model MnistCNN,ReluMLP(slope=0.1)"),
        ("--optimizer SGD Adam", "--optimizer SGD,Adam,SGD"),
        ("--seed 0 1 2", "--seed 0,1 --seed 2"),
        ("--lr-drop 3 5", "--lr-drop 3,5"),
        ("--observe dead-units gradient-norms", "--observe dead-units,gradient-norms,dead-units"),
    ],
)
def test_lists_are_the_same_with_spaces_and_with_commas(spaces, commas):
    assert configs(spaces) == configs(commas)


@pytest.mark.parametrize(
    ("model", "observer", "missing"),
    [
        ("MnistCNN", "variance-shift", "MnistCNN has none"),
        ("ReluMLP", "reestimated-bn", "ReluMLP has none"),
        ("Plain", "activation-percentiles", "Plain uses none"),
        ("Lazy", "weight-updates", "l of Lazy gets its own with the first batch"),
    ],
)
def test_a_network_without_what_is_observed_is_refused_before_any_trains(
    model, observer, missing, tmp_path, tiny_data
):
    if model in ("Plain", "Lazy"):
        (tmp_path / "nets.py").write_text(
            "import chainer\nimport chainer.links as L\n"
            "class Plain(L.Linear):\n"
            "    def __init__(self): super().__init__(784, 10)\n"
            "class Lazy(chainer.Chain):\n"
            "    def __init__(self): super().__init__(l=L.Linear(None, 10))\n"
            "    def forward(self, x): return self.l(x)\n"
        )
        model = f"{tmp_path}/nets.py:{model}"
    out = tmp_path / "out"
    models = ("MnistCNN_BN_before", model)  # the first could be trained
    asked = ("--model", *models, "--observe", observer, "--out", str(out), "-b", "4")
    status, line = refused(*asked)
    assert status == 2
    assert line.startswith(f"--observe {observer}: expected ") and line.endswith(missing)
    assert not out.exists()


@pytest.mark.parametrize(
    ("signum", "left", "line"),
    [
        (signal.SIGINT, [], "SIGINT: the last run was just finished"),
        (signal.SIGTERM, [1], "SIGTERM: 1 run is not finished; go on with:"),
        (signal.SIGHUP, [1, 2], "SIGHUP: 2 runs are not finished; go on with:"),
    ],
)
def test_what_is_said_when_a_sweep_is_stopped(signum, left, line):
    said, command = report.describe_stop(signum, [], left)
    assert said == f"train_mnist.py: {line}"
    assert command.endswith(" --autoload") == bool(left)


@pytest.mark.parametrize(
    ("finished", "runs", "line"),
    [
        (1, 1, "The run is finished already: skipped"),
        (1, 3, "1 of 3 runs is finished already: skipped"),
        (3, 3, "3 of 3 runs are finished already: skipped"),
    ],
)
def test_what_is_said_of_finished_runs(finished, runs, line):
    assert report.describe_finished(finished, runs) == line


def test_digits_in_place_of_mnist_are_said_first():
    found = Dataset("digits", *[Split(np.zeros((n, 784)), np.zeros(n)) for n in (3, 2)], {}, "s")
    line = "Dataset digits: 3 training and 2 test images, from s"
    assert report.describe_dataset(found) == [line]
    stand_in = dataclasses.replace(found, tried=("here: nothing", "there: no connection"))
    assert report.describe_dataset(stand_in) == [
        "MNIST not found: training on scikit-learn's digits instead; give its folder with "
        "--data-dir",
        "- here: nothing",
        "- there: no connection",
        line,
    ]


def test_a_study_is_its_runs_and_the_command_line_goes_before_it():
    full = configs("--study blog --preset full")
    assert len(full) == 4 * 9 * 3
    assert {(c.epoch, c.study, c.out) for c in full} == {(20, "blog", "result/blog")}
    some = configs("--study blog --optimizer RMSprop --epoch 2 --semantics 2016 -o x")
    assert [(c.model, c.optimizer, c.seed) for c in some] == [
        (name, "RMSprop", 0) for name in models.names()[:4]
    ]
    assert {(c.epoch, c.semantics, c.out) for c in some} == {(2, "2016", "x/blog")}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-m MnistCNN_BN", "no model named 'MnistCNN_BN'; did you mean 'MnistCNN'? --list-models"),
        ("--optimizer sdg", "no optimizer named 'sdg'; did you mean 'SGD'? --help has all names"),
        ("--optimizer SGD AdaDelta --lr-drop 5", "--lr-drop: AdaDelta has no learning rate; leave"),
        ("--unverified-data", "--unverified-data goes with --dataset cifar10"),
        ("--dataset mnist --unverified-data", "--unverified-data goes with --dataset cifar10"),
        (
            "--dataset cifar10-unverified",
            "argument --dataset: invalid choice: 'cifar10-unverified' (expected auto, mnist, "
            "digits or cifar10)",
        ),
        ("--study blgo", "no study named 'blgo': choose one of best-rate, blog, cs231n, "),
        ("--study blog --preset fast", "--preset fast: blog has quick, short, full"),
        ("--lr 1 --optimizer SGD AdaDelta", "--lr: AdaDelta has no learning rate"),
        ("--momentum 0.5 --optimizer Adam", "--momentum: Adam has no momentum"),
        ("--batchsize 0", "--batchsize 0: expected 1 or more"),
        (
            "--batchsize many",
            "argument -b/--batchsize: 'many': expected a whole number (see",
        ),
        ("--bogus", "unrecognized arguments: --bogus (see --help)"),
        ("-g 0 -d @numpy", "argument -d/--device: not allowed with argument -g/--gpu"),
        ("-e 2 --iteration 9", "argument --iteration: not allowed with argument -e/--epoch"),
        ("--evaluate-every 0", "--evaluate-every 0: expected 1 or more"),
        ("--observe dead-unit", "--observe dead-unit: choose from activation-moments, "),
        ("-m ReluMLP(slope)", "--model ReluMLP(slope): expected numbers, or words"),
        ("--preset full", "--preset full goes with --study"),
        (
            "--dataset digits --data-dir x",
            "--data-dir is for MNIST's or CIFAR-10's files: leave it out",
        ),
        ("-g first", "argument -g/--gpu: 'first': expected a whole number (see --help)"),
        ("--jobs 0", "--jobs 0: expected 1 or more"),
        (
            "--resume tests",
            "--resume tests: expected a file, its snapshot_iter_N, found a folder; ",
        ),
        ("--resume none.npz", "--resume none.npz: there is no such file"),
        ("--init none.npz", "--init none.npz: there is no such file"),
        (f"--resume {'x' * 300}", "--resume xxx"),
        ("--resume x --seed 0 1", "--resume goes with one run, and these are 2; see --autoload"),
    ],
)
def test_a_wrong_argument_is_one_line(line, message):
    with pytest.raises(UsageError) as error:
        configs(line)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("--study blgo", "blog"),
        ("--study BLOG", "blog"),
        ("--study dying_relu", "dying-relu"),
        ("--study blog --preset ful", "full"),
        ("--observe dead-unit", "dead-units"),
        ("--dataset mnst", "mnist"),
        ("--sampling Shuffle", "shuffle"),
        ("--modle MnistCNN", "--model"),
        ("--batch-size 10", "--batchsize"),
        ("--optimizer Adam(amsgrd=True)", "amsgrad"),
        ("--model ReluMLP(Slope=0.1)", "slope"),
    ],
)
def test_a_wrong_name_is_told_the_nearest_right_one(line, right):
    with pytest.raises(UsageError) as error:
        configs(line)
    # Of an argument Python 3.13 says it itself, with a capital letter.
    assert str(error.value).lower().count(f" did you mean '{right.lower()}'?") == 1


def test_exit_status_and_line_of_a_wrong_name():
    done = command("--model", "MnistCNN_BN")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("train_mnist.py: no model named 'MnistCNN_BN'; did you mean ")
    assert done.stderr.count("\n") == 1


def test_exit_status_and_line_of_a_convolution_that_there_is_not():
    done = command("-e", "1", MNIST_BN_CONVOLUTION="fft")
    line = "train_mnist.py: MNIST_BN_CONVOLUTION=fft: expected auto, direct or winograd"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, line)


def test_list_models(capsys):
    assert train_mnist.main(["--list-models"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == models.names()


def test_one_run_from_any_folder_then_again(tmp_path, capsys):
    arguments = ["--dataset", "digits", "-e", "1", "-b", "200", "-o", str(tmp_path / "result")]
    done = command(*arguments)
    folder = tmp_path / "result" / "MnistCNN_BN_before-Adam-digits-b200-s0"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Dataset digits: 1,497 training and 300 test images")
    to_draw = f"{sys.executable} {ROOT / 'plot_results.py'} {folder}"
    assert done.stdout.endswith(f"Results in {folder}. To draw them: {to_draw}\n")
    assert train_mnist.main(arguments) == 0
    assert "The run is finished already: skipped" in capsys.readouterr().out


def test_a_single_run_that_diverged_says_so(tmp_path, tiny_data, no_plots, capsys):
    line = f"-m MnistCNN --optimizer SGD --lr 1e4 -b 8 -e 2 --dataset mnist -o {tmp_path}"
    assert train_mnist.main(line.split()) == 0
    assert ": epoch 1, diverged at iteration " in capsys.readouterr().out
    assert train_mnist.main([*line.split(), "--on-divergence", "continue", "--lr", "0.01"]) == 0
    assert "diverged" not in capsys.readouterr().out


def test_of_several_wrong_names_the_first_is_refused():
    names = ["Cnn", "Mlp", "Net", "Foo", "Bar"]  # a set would begin with any of them
    with pytest.raises(UsageError, match="no model named 'Cnn'"):
        configs(f"--model {' '.join(names)}")


@pytest.mark.parametrize(
    ("broken", "status"),
    [("", 2), ("raise RuntimeError('broken')", 1), ("raise KeyError(self.nothing)", 1)],
)
def test_only_a_request_that_is_refused_in_the_run_gives_exit_status_2(
    tmp_path, tiny_data, no_plots, capsys, monkeypatch, broken, status
):
    """Snapshots are read by the run: that of a longer run is refused as `-e 0` is."""
    net = tmp_path / "net.py"
    body = f"        if chainer.config.train and {bool(broken)}:\n            {broken or 'pass'}\n"
    net.write_text(
        "import chainer\n"
        "class Other(chainer.Chain):\n"
        "    def forward(self, x):\n" + body + "        return x[:, :10]\n"
    )
    line = f"--dataset mnist -b 20 -o {tmp_path / 'result'}"
    assert train_mnist.main(f"--model ReluMLP -e 2 {line}".split()) == 0
    (folder,) = (tmp_path / "result").iterdir()
    (folder / "model.npz").unlink()  # as of a run that was stopped
    models_ = f"ReluMLP {net}:Other" if broken else "ReluMLP"
    assert train_mnist.main(f"--model {models_} -e 1 --autoload {line}".split()) == status
    printed = capsys.readouterr().err
    assert "of epoch 2.00: --epoch must not be below that" in " ".join(printed.split())
    assert "Traceback" not in printed


def test_a_failing_run_of_several_gives_exit_status_1(tmp_path, tiny_data, no_plots, capsys):
    net = tmp_path / "net.py"
    net.write_text(
        "import chainer\n"
        "class Broken(chainer.Chain):\n"
        "    def forward(self, x):\n"
        "        if chainer.config.train:\n"
        "            raise RuntimeError('broken')\n"
        "        return x[:, :10]\n"
    )
    line = f"--model MnistCNN {net}:Broken --dataset mnist -e 1 -b 20 -o {tmp_path / 'result'}"
    assert train_mnist.main(line.split()) == 1
    printed = capsys.readouterr()
    assert "train_mnist.py: 1 of 2 runs failed:" in printed.err
    assert "Traceback" not in printed.err
    assert printed.out.count("\nMnistCNN: validation accuracy") == 1
    assert printed.out.count("\nBroken: failed: RuntimeError: broken (traceback in ") == 1


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert refused("--dataset", "digits", "-e", "1", "-o", str(tmp_path / "file")) == (
        1,
        f"{tmp_path / 'file'}: cannot be written (a file is where the folder would be); choose "
        "another --out",
    )


def test_a_batch_larger_than_the_data(tmp_path):
    assert refused("--dataset", "digits", "-b", "2000", "-o", str(tmp_path)) == (
        2,
        "--batchsize 2000: expected at most 1497, the training images of digits",
    )


def test_two_networks_of_one_name_are_not_mixed(tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(
            "import chainer\n"
            "class Net(chainer.Chain):\n"
            "    def forward(self, x):\n"
            "        return x[:, :10]\n"
        )
    specs = [f"{tmp_path}/a.py:Net", f"{tmp_path}/b.py:Net"]
    status, line = refused("--dataset", "digits", "--model", *specs, "-o", str(tmp_path))
    assert status == 2
    assert line.startswith(f"{specs[0]} and {specs[1]} would share the folder")


def test_resuming_a_finished_run_is_refused(tmp_path, tiny_data, no_plots):
    arguments = ["--dataset", "mnist", "-e", "1", "-b", "20", "-o", str(tmp_path)]
    folder = tmp_path / "MnistCNN_BN_before-Adam-b20-s0"
    assert train_mnist.main(arguments) == 0
    assert refused(*arguments, "--resume", str(folder / "snapshot_iter_2")) == (
        2,
        f"--resume: {folder} is finished; more epochs are -e N",
    )


def test_ctrl_c_is_one_line_and_status_130(tmp_path):
    arguments = ["--dataset", "digits", "-e", "1000", "-f", "1", "-o", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train_mnist.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stdout:
        if line.startswith("1 "):  # the first epoch's numbers
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("train_mnist.py: SIGINT: MnistCNN_BN_before-Adam-digits-s0: ")
    assert "; go on with: " in errors
    assert errors.count("\n") == 1
