"""Sweeps on a Dask cluster of two workers: the bits of a local one, with its folder or without."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import train_mnist
from mnist_bn.cluster import client, task
from mnist_bn.errors import UsageError, UserError

distributed = pytest.importorskip("distributed")

ROOT = Path(__file__).parents[2]
RUNS = [
    *("--dataset", "digits", "--model", "MnistCNN", "MnistCNN_BN_before"),
    *("--optimizer", "SGD", "--epoch", "2", "--train-images", "200", "--batchsize", "20"),
]


def start(folder, *words):
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]],
        **{"cwd": folder, "env": environment, "start_new_session": True},
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL},
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A scheduler and two workers, each in a folder of its own, as processes."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    processes = [
        start(folder, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
              "--scheduler-file", str(file))
    ]  # fmt: skip
    for name in "ab":
        processes.append(
            start(folder / name, "worker", "--scheduler-file", str(file), "--nthreads", "1",
                  "--no-dashboard", "--no-nanny")
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while not file.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with distributed.Client(scheduler_file=str(file), set_as_default=False) as waiting:
        waiting.wait_for_workers(2, timeout=60)
    yield str(file)
    for process in reversed(processes):  # a worker takes long to end if its scheduler is gone
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def parameters(folder):
    return {
        path.parent.name: {name: array.tobytes() for name, array in np.load(path).items()}
        for path in sorted(folder.glob("*/model.npz"))
    }


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    out = tmp_path_factory.mktemp("local")
    assert train_mnist.main([*RUNS, "--out", str(out)]) == 0
    return parameters(out)


def test_in_a_shared_folder_it_has_the_bits_of_a_local_sweep(address, local, tmp_path, capsys):
    line = [*RUNS, "--out", str(tmp_path), "--cluster", address]
    assert train_mnist.main(line) == 0
    said = capsys.readouterr()
    assert "2 workers, which share this machine's folder" in said.err
    assert "2 runs, on the cluster" in said.out
    assert parameters(tmp_path) == local
    assert not list(tmp_path.glob(".cluster-*"))
    assert train_mnist.main(line) == 0
    assert "2 of 2 runs are finished already" in capsys.readouterr().out


def test_without_one_the_folders_come_back(address, local, tmp_path, monkeypatch, capsys):
    # What a worker looks for is not what the client has put there.
    marked = client._marked

    def elsewhere(configs):
        with marked(configs) as markers:
            yield {path: "another token" for path in markers}

    monkeypatch.setattr(client, "_marked", client.contextlib.contextmanager(elsewhere))
    assert train_mnist.main([*RUNS, "--out", str(tmp_path), "--cluster", address]) == 0
    assert "which do not share" in capsys.readouterr().err
    assert parameters(tmp_path) == local
    (run,) = tmp_path.glob("MnistCNN-*")
    assert {"args", "log", "loss.png"} <= {path.name for path in run.iterdir()}
    assert json.loads((run / "args").read_text())["command"]


def test_a_signal_stops_the_runs_with_snapshots_and_the_same_command_goes_on(address, tmp_path):
    line = [
        *(sys.executable, str(ROOT / "train_mnist.py"), *RUNS, "--epoch", "400"),
        *("--out", str(tmp_path), "--cluster", address, "--autoload"),
    ]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*/log"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert out.decode().count("stopped at iteration") == 2
    assert len(list(tmp_path.glob("*/snapshot_iter_*"))) >= 2
    assert b"Traceback" not in err


def test_a_run_that_fails_is_one_line(address, tmp_path, capsys):
    net = tmp_path / "net.py"
    net.write_text(
        "import chainer, os\n"
        "class Net(chainer.Chain):\n"
        "    def forward(self, x):\n"
        "        if chainer.config.train: os.kill(os.getpid(), 9)\n"
        "        return x[:, :10]\n"
    )
    line = ["--dataset", "digits", "--model", f"{net}:Net", "--epoch", "1", "--cluster", address]
    assert train_mnist.main([*line, "--out", str(tmp_path / "r")]) == 1
    assert "its process was killed (out of memory?)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"versions": {"Python": "3.11", "NumPy": "1.0", "Chainer": "7"}}, "has NumPy 1.0, not"),
        ({"kernels": "neon"}, "has kernels neon, not off"),
        ({"source": "0"}, "another version of the project's program text"),
    ],
)
def test_a_worker_that_differs_is_named(different, said, monkeypatch):
    alike = {
        "versions": {"Python": "3.11", "NumPy": "2.4", "Chainer": "7"},
        "kernels": "off",
        "source": "1",
        "data": {"digits": {}},
        "is_shared": True,
    }

    class Client:
        def scheduler_info(self, n_workers):
            return {"workers": {"tcp://a": {}}}

        def run(self, *_, **__):
            return {"tcp://a": {**alike, **different}}

    monkeypatch.setattr(task, "facts", lambda *_: alike)
    lines = client.compare(Client(), "tcp://s:1", [], {})
    assert said in lines[0] and "tcp://a" in lines[0]


def test_a_worker_without_the_images_is_refused(monkeypatch):
    here = {"data": {"mnist": {"a": "1"}}}

    class Client:
        def scheduler_info(self, n_workers):
            return {"workers": {"tcp://a": {}}}

        def run(self, *_, **__):
            return {"tcp://a": {"data": {"mnist": "no MNIST"}}}

    monkeypatch.setattr(task, "facts", lambda *_: here)
    with pytest.raises(UserError, match=r"worker tcp://a has no mnist \(no MNIST\)"):
        client.compare(Client(), "tcp://s:1", [], {})


@pytest.mark.parametrize("words", [["nonsense"], ["tcp://h:1", "--jobs", "2"]])
def test_bad_usage_is_one_line(words):
    with pytest.raises(UsageError):
        train_mnist.make_configs(train_mnist.parse_arguments(["--cluster", *words]))


def test_no_scheduler_is_one_line(monkeypatch):
    monkeypatch.setattr(client, "SECONDS_TO_CONNECT", 0.3)
    with (
        pytest.raises(UserError, match="no scheduler answers"),
        client.connected("tcp://127.0.0.1:9"),
    ):
        pass
