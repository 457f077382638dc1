"""Finding MNIST: small stand-ins for its four files, with their own checksums, on this machine."""

import errno
import gzip
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

from mnist_bn import data
from mnist_bn.data import download, mnist
from mnist_bn.errors import UsageError, UserError
from mnist_bn.storage import files

REAL_MNIST = os.environ.get("MNIST_BN_DATA")
REAL_SHA256 = dict(mnist.SHA256)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = REAL_SHA256

_random = np.random.RandomState(0)
PIXELS = {n: _random.randint(0, 256, (n, 28, 28)).astype(np.uint8) for n in (5, 3)}
DIGITS = {n: _random.randint(0, 10, n).astype(np.uint8) for n in (5, 3)}


def idx_bytes(array):
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


CONTENTS = {
    TRAIN_IMAGES: idx_bytes(PIXELS[5]),
    TRAIN_LABELS: idx_bytes(DIGITS[5]),
    TEST_IMAGES: idx_bytes(PIXELS[3]),
    TEST_LABELS: idx_bytes(DIGITS[3]),
}
GZIPPED = {f"{name}.gz": gzip.compress(content) for name, content in CONTENTS.items()}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
# A file that parses and is not the right one.
OTHER_LABELS = idx_bytes((DIGITS[5] + 1) % 10)
NO_SERVER = "http://127.0.0.1:9/"


@pytest.fixture(autouse=True)
def stand_ins(tmp_path, monkeypatch):
    """The stand-ins' checksums, empty caches, no network."""
    monkeypatch.setattr(mnist, "SHA256", SHA256)
    monkeypatch.setattr(mnist, "MIRRORS", (NO_SERVER,))
    monkeypatch.delenv("MNIST_BN_DATA", raising=False)
    monkeypatch.setenv("MNIST_BN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CHAINER_DATASET_ROOT", str(tmp_path / "chainer"))
    monkeypatch.setenv("NO_PROXY", "*")


def write(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def assert_is_stand_in(dataset):
    assert dataset.name == "mnist"
    assert dataset.note == ""
    assert dataset.sha256 == SHA256
    for split, n in ((dataset.train, 5), (dataset.test, 3)):
        assert split.images.dtype == np.float32
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(np.rint(split.images * 255), PIXELS[n].reshape(n, 784))
        np.testing.assert_array_equal(split.labels, DIGITS[n])


def complaint(name="mnist", data_dir=None):
    with pytest.raises(UserError) as caught:
        data.load(name, data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the user's folder ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "contents",
    [
        CONTENTS,
        GZIPPED,
        {name.replace("-idx", ".idx"): content for name, content in CONTENTS.items()},
        {name.replace("-idx", ".idx"): content for name, content in GZIPPED.items()},
        {name: gzip.compress(content) for name, content in CONTENTS.items()},
    ],
    ids=["plain", "gz", "dotted", "dotted gz", "gzip data without .gz"],
)
@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_data_dir(tmp_path, monkeypatch, contents, name):
    folder = write(tmp_path / "data", contents)
    dataset = data.load(name, folder)
    assert_is_stand_in(dataset)
    assert dataset.origin == str(folder)
    monkeypatch.setenv("MNIST_BN_DATA", str(folder))
    assert_is_stand_in(data.load(name))


def test_pixels_have_the_bits_of_chainers_get_mnist(tmp_path, monkeypatch):
    from chainer.datasets.mnist import preprocess_mnist  # mnist_bn makes Chainer importable

    every_value = np.resize(np.arange(256, dtype=np.uint8), (5, 28, 28))
    content = idx_bytes(every_value)
    monkeypatch.setitem(SHA256, TRAIN_IMAGES, hashlib.sha256(content).hexdigest())
    ours = data.load("mnist", write(tmp_path / "data", {**CONTENTS, TRAIN_IMAGES: content})).train

    raw = {"x": every_value.reshape(5, 784), "y": DIGITS[5]}
    theirs = preprocess_mnist(raw, True, 1, 1.0, np.float32, np.int32, False)
    images, labels = (np.stack(column) for column in zip(*theirs, strict=True))
    assert ours.images.tobytes() == images.tobytes()
    assert ours.labels.tobytes() == labels.tobytes()
    assert (ours.images.dtype, ours.labels.dtype) == (images.dtype, labels.dtype)
    assert (ours.images.min(), ours.images.max()) == (0, 1)


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_what_the_user_named_is_never_swapped(tmp_path, monkeypatch, name):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(UsageError) as caught:
        data.load(name, nowhere)
    assert str(caught.value) == (
        f"--data-dir {nowhere}: expected a folder of MNIST's files, found nothing"
    )
    nowhere.touch()
    monkeypatch.setenv("MNIST_BN_DATA", str(nowhere))
    with pytest.raises(UsageError) as caught:
        data.load(name)
    assert str(caught.value) == (
        f"MNIST_BN_DATA {nowhere}: expected a folder of MNIST's files, found a file"
    )

    folder = write(tmp_path / "data", {TRAIN_IMAGES: b"", TEST_LABELS: b""})
    assert complaint(name, folder) == (
        f"{folder}: expected MNIST's four files, found 2; add {TRAIN_LABELS}, {TEST_IMAGES}"
    )

    write(folder, {**CONTENTS, TEST_LABELS: CONTENTS[TEST_LABELS][:-1]})
    assert complaint(name, folder) == (
        f"{folder / TEST_LABELS}: expected 3 labels in 3 bytes after the header, found 2; "
        "get the file again"
    )

    write(folder, {**CONTENTS, TRAIN_LABELS: CONTENTS[TEST_LABELS]})
    assert complaint(name, folder) == (
        f"{folder / TRAIN_LABELS}: expected 5 labels, as many as there are images in "
        f"{TRAIN_IMAGES}, found 3; get both again"
    )

    write(folder, {**CONTENTS, TRAIN_LABELS: OTHER_LABELS})
    assert complaint(name, folder) == (
        f"{folder / TRAIN_LABELS}: not MNIST's published bytes: expected SHA-256 "
        f"{SHA256[TRAIN_LABELS]} (uncompressed), found {hashlib.sha256(OTHER_LABELS).hexdigest()}; "
        "get the file again"
    )


@pytest.mark.parametrize("name", SHA256)
@pytest.mark.parametrize("variant", ["{}", "{}.gz"])
def test_a_folder_called_as_a_file_hides_none(tmp_path, name, variant):
    folder = write(tmp_path / "data", GZIPPED if variant == "{}" else CONTENTS)
    (folder / variant.format(name)).mkdir()
    assert_is_stand_in(data.load("mnist", folder))


def test_a_broken_link_hides_no_file(tmp_path):
    folder = write(tmp_path / "data", GZIPPED)
    (folder / TRAIN_IMAGES).symlink_to("nowhere")
    assert_is_stand_in(data.load("mnist", folder))


@pytest.mark.parametrize("dotted", [False, True])
def test_each_file_in_a_folder_of_its_own(tmp_path, dotted):
    for name, content in CONTENTS.items():
        folder = tmp_path / "data" / (name.replace("-idx", ".idx") if dotted else name)
        write(folder, {name: content})
    assert_is_stand_in(data.load("mnist", tmp_path / "data"))


@pytest.mark.parametrize("name", ["mnist", "auto"])
@pytest.mark.parametrize("inner", ["MNIST/raw", "raw", "MNIST", "mnist"])
def test_the_files_in_a_usual_folder_of_the_one_named(tmp_path, name, inner):
    folder = write(tmp_path / "data" / inner, GZIPPED)
    write(tmp_path / "data", {TRAIN_IMAGES: b"a part of them does not count"})
    dataset = data.load(name, tmp_path / "data")
    assert_is_stand_in(dataset)
    assert dataset.origin == str(folder)


def test_a_part_of_the_files_is_named_where_it_is(tmp_path):
    folder = write(tmp_path / "MNIST" / "raw", {TRAIN_IMAGES: b"", TRAIN_LABELS: b""})
    assert complaint("auto", tmp_path) == (
        f"{folder}: expected MNIST's four files, found 2; add {TEST_IMAGES}, {TEST_LABELS}"
    )


@pytest.mark.parametrize(
    ("files", "more"), [({}, ""), ({"mnist.npz": b""}, ", and Keras's mnist.npz is not read")]
)
def test_a_folder_with_none_of_the_files_is_told_which(tmp_path, files, more):
    folder = write(tmp_path / "data", files)
    assert data.load("auto", folder).tried[0] == (
        f"{folder} has none of its files (expected {', '.join(SHA256)}, gzipped or not){more}"
    )


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)  # chmod does not stop root
    assert complaint("auto", tmp_path) == f"{tmp_path}: cannot be read: Permission denied"


def test_a_folder_without_any_of_the_files_is_passed_over(tmp_path):
    write(mnist.cache_folder(), GZIPPED)
    folder = write(tmp_path / "data", {"README": b""})
    assert_is_stand_in(data.load("mnist", folder))


def test_an_unknown_name():
    with pytest.raises(UsageError) as caught:
        data.load("minst")
    assert str(caught.value) == (
        "--dataset minst: expected auto, mnist, digits or cifar10; did you mean 'mnist'?"
    )


# --- Chainer's cache --------------------------------------------------------------------------


def write_chainer_cache(tmp_path, train_labels=DIGITS[5]):
    folder = write(tmp_path / "chainer/pfnet/chainer/mnist", {})
    np.savez_compressed(folder / "train.npz", x=PIXELS[5].reshape(5, 784), y=train_labels)
    np.savez_compressed(folder / "test.npz", x=PIXELS[3].reshape(3, 784), y=DIGITS[3])
    return folder


def test_chainers_cache(tmp_path):
    folder = write_chainer_cache(tmp_path)
    dataset = data.load("mnist")
    assert_is_stand_in(dataset)
    assert dataset.origin == f"Chainer's cache ({folder})"


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_in_chainers_cache_is_not_opened(tmp_path):
    trap = tmp_path / "trap"
    folder = write_chainer_cache(tmp_path, np.array([Malicious(str(trap))]))
    reason = f"Chainer's cache {folder / 'train.npz'} is bad (it holds a Python object (pickle)"
    assert reason in complaint()
    assert not trap.exists()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.roll(DIGITS[5], 1), "not MNIST's published bytes"),
        (DIGITS[5].astype(np.int8), "is bad (found x uint8 (5, 784), y int8 (5,))"),
        (DIGITS[3], "is bad (found x uint8 (5, 784), y uint8 (3,))"),
        (np.zeros(70_000_000, np.uint8), "bytes would unpack to 70,"),
    ],
)
def test_a_bad_chainer_cache_is_passed_over(tmp_path, labels, reason):
    write_chainer_cache(tmp_path, labels)
    assert reason in complaint()
    write(mnist.cache_folder(), GZIPPED)
    assert data.load("mnist").origin == f"the cache ({mnist.cache_folder()})"


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_truncated_chainer_cache_is_passed_over(tmp_path, keep):
    folder = write_chainer_cache(tmp_path)
    os.truncate(folder / "test.npz", keep)
    assert f"Chainer's cache {folder / 'test.npz'} is bad (" in complaint()


# --- our cache and the mirrors ----------------------------------------------------------------


def test_download_then_offline_with_a_warm_cache(serve, monkeypatch, capfd):
    address, asked = serve(GZIPPED)
    monkeypatch.setattr(mnist, "MIRRORS", (address,))
    dataset = data.load("auto")
    assert_is_stand_in(dataset)
    assert dataset.origin == f"downloaded from {address}"
    assert asked == list(GZIPPED)
    assert capfd.readouterr() == ("", "")  # a progress bar is for a terminal

    monkeypatch.setattr(mnist, "MIRRORS", (NO_SERVER,))
    dataset = data.load("auto")
    assert_is_stand_in(dataset)
    assert dataset.origin == f"the cache ({mnist.cache_folder()})"
    assert sorted(os.listdir(mnist.cache_folder())) == sorted(GZIPPED)


def test_a_corrupt_file_in_the_cache_is_fetched_anew(serve, monkeypatch):
    address, asked = serve(GZIPPED)
    monkeypatch.setattr(mnist, "MIRRORS", (address,))
    wrong = {f"{TRAIN_LABELS}.gz": gzip.compress(OTHER_LABELS), f"{TEST_LABELS}.gz": b"\x1f\x8b"}
    write(mnist.cache_folder(), {**GZIPPED, **wrong})
    assert_is_stand_in(data.load("mnist"))
    assert asked == [f"{TRAIN_LABELS}.gz", f"{TEST_LABELS}.gz"]
    assert (mnist.cache_folder() / f"{TRAIN_LABELS}.gz").read_bytes() == GZIPPED[
        f"{TRAIN_LABELS}.gz"
    ]


@pytest.mark.parametrize(
    "answer",
    [
        gzip.compress(OTHER_LABELS),
        CONTENTS[TRAIN_LABELS],
        b"<html>Log in to this network</html>",
        b"",
        GZIPPED[f"{TRAIN_LABELS}.gz"][:-1],
        404,
        503,
    ],
    ids=["other labels", "not gzip", "log-in page", "empty", "truncated", "404", "503"],
)
def test_the_next_mirror_is_tried(serve, monkeypatch, answer):
    bad, asked_bad = serve({**GZIPPED, f"{TRAIN_LABELS}.gz": answer})
    good, asked_good = serve(GZIPPED)
    monkeypatch.setattr(mnist, "MIRRORS", (bad, good))
    assert_is_stand_in(data.load("mnist"))
    assert asked_bad == list(GZIPPED)
    assert asked_good == [f"{TRAIN_LABELS}.gz"]


def test_all_mirrors_fail(serve, monkeypatch, tmp_path):
    missing, asked = serve({})
    wrong, _ = serve({f"{TRAIN_IMAGES}.gz": GZIPPED[f"{TEST_IMAGES}.gz"]})
    monkeypatch.setattr(mnist, "MIRRORS", (missing, wrong, NO_SERVER))
    found = hashlib.sha256(CONTENTS[TEST_IMAGES]).hexdigest()
    tried = (
        f"Chainer's cache {tmp_path}/chainer/pfnet/chainer/mnist has no train.npz",
        f"{missing}{TRAIN_IMAGES}.gz: HTTP status 404; "
        f"{wrong}{TRAIN_IMAGES}.gz: not MNIST's published bytes: expected SHA-256 "
        f"{SHA256[TRAIN_IMAGES]} (uncompressed), found {found}; get the file again; "
        f"{NO_SERVER}{TRAIN_IMAGES}.gz: no connection",
    )
    assert complaint() == (
        f"no MNIST: {'; '.join(tried)}; name a folder of its four files with --data-dir, "
        f"copy {tmp_path}/cache/mnist from a machine that has a network, or use --dataset digits"
    )
    assert asked == [f"{TRAIN_IMAGES}.gz"]  # the other files are not tried
    assert os.listdir(mnist.cache_folder()) == []

    dataset = data.load("auto")
    assert dataset.name == "digits"
    assert dataset.tried == tried


def test_a_silent_server_does_not_hold_us_up(monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(mnist, "MIRRORS", (address,))
        assert f"{address}{TRAIN_IMAGES}.gz: no answer in time" in complaint()


def test_a_download_on_a_terminal_has_a_bar(serve, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    address, _ = serve({"file": bytes(5000)})
    assert len(download.get(f"{address}file")) == 5000
    shown = capsys.readouterr().err
    assert "5.0/5.0 kB" in shown
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", shown))
    assert max(map(len, lines)) <= 80


def test_an_answer_without_end_is_broken_off(serve, monkeypatch):
    address, _ = serve({"file": bytes(5000)})
    assert len(download.get(f"{address}file")) == 5000
    monkeypatch.setattr(download, "MAX_BYTES", 4999)
    with pytest.raises(UserError, match=f"^{address}file: more than 4,999 bytes$"):
        download.get(f"{address}file")


def test_an_unwritable_cache(serve, monkeypatch, tmp_path):
    address, asked = serve(GZIPPED)
    monkeypatch.setattr(mnist, "MIRRORS", (address,))
    monkeypatch.setenv("MNIST_BN_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    reason = (
        f"{tmp_path / 'file' / 'mnist'}: cannot keep files there: Not a directory; "
        "name another cache folder with MNIST_BN_CACHE"
    )
    assert reason in complaint()
    assert asked == []
    assert data.load("auto").tried[-1] == reason


def test_a_full_disk(serve, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    address, _ = serve(GZIPPED)
    monkeypatch.setattr(mnist, "MIRRORS", (address,))
    monkeypatch.setattr(files.os, "replace", full)
    assert f"{mnist.cache_folder()}: cannot keep files there: No space left" in complaint()
    assert os.listdir(mnist.cache_folder()) == []


LOAD_AND_TELL = """
import json, sys
from mnist_bn import data
from mnist_bn.data import mnist
mnist.SHA256, mnist.MIRRORS = json.loads(sys.argv[1])
dataset = data.load("mnist")
print(dataset.origin, dataset.train.images.shape)
"""


def test_two_processes_at_once_with_an_empty_cache(serve):
    both_ask = threading.Barrier(2, timeout=30)
    address, asked = serve(GZIPPED, before=both_ask.wait)
    command = [sys.executable, "-c", LOAD_AND_TELL, json.dumps([SHA256, [address]])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert outputs == [(f"downloaded from {address} (5, 784)\n", "")] * 2
    assert sorted(asked) == sorted([*GZIPPED, *GZIPPED])
    assert sorted(os.listdir(mnist.cache_folder())) == sorted(GZIPPED)


# --- the real one -----------------------------------------------------------------------------


@pytest.mark.skipif(not REAL_MNIST, reason="MNIST_BN_DATA names no folder with MNIST")
def test_the_real_mnist(monkeypatch):
    monkeypatch.setattr(mnist, "SHA256", REAL_SHA256)
    dataset = data.load("mnist", REAL_MNIST)
    assert dataset.sha256 == REAL_SHA256
    for split, counts, mean in (
        # Class counts as LeCun's data have them; 0.1307 is the mean that everyone normalizes with.
        (dataset.train, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 0.1307),
        (dataset.test, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], 0.1325),
    ):
        assert split.images.shape == (sum(counts), 784)
        np.testing.assert_array_equal(np.bincount(split.labels), counts)
        assert abs(split.images.mean(dtype=np.float64) - mean) < 1e-4
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
