"""Finding CIFAR-10: small stand-ins for the archive and its files, with their own checksum."""

import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn import data
from mnist_bn.data import cifar10, mnist
from mnist_bn.errors import UsageError, UserError

NO_SERVER = "http://127.0.0.1:9/"
OFFICIAL_SHA256 = cifar10.SHA256
COUNT = 3  # records in a file of the stand-in

_random = np.random.RandomState(0)
NAMES = [*cifar10.TRAIN_FILES, cifar10.TEST_FILE]
LABELS = {name: _random.randint(0, 10, COUNT).astype(np.uint8) for name in NAMES}
PIXELS = {name: _random.randint(0, 256, (COUNT, 3, 32, 32)).astype(np.uint8) for name in NAMES}


def records(labels, pixels):
    """The binary version: each image's label, then its planes, row by row."""
    return b"".join(
        bytes([label]) + image.tobytes() for label, image in zip(labels, pixels, strict=True)
    )


CONTENTS = {name: records(LABELS[name], PIXELS[name]) for name in NAMES}
SOME = {name: CONTENTS[name] for name in ("data_batch_2.bin", "test_batch.bin")}


def make_archive(contents, folder="cifar-10-batches-bin"):
    """An archive with the other members of the official one, and in another order."""
    members = {"batches.meta.txt": b"airplane\n", **dict(reversed(contents.items()))}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


ARCHIVE = make_archive(CONTENTS)


@pytest.fixture(autouse=True)
def stand_ins(tmp_path, monkeypatch):
    """The stand-in's checksum and size, an empty cache, no network."""
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(ARCHIVE).hexdigest())
    monkeypatch.setattr(cifar10, "RECORDS", COUNT)
    monkeypatch.setattr(cifar10, "MIRRORS", (NO_SERVER,))
    monkeypatch.delenv("MNIST_BN_DATA", raising=False)
    monkeypatch.setenv("MNIST_BN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of the user's with these files."""

    def make(contents):
        made = tmp_path / "data"
        for name, content in contents.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        return made

    return make


def test_a_folder_called_as_a_file_hides_none(folder):
    made = folder({f"{name}.gz": gzip.compress(content) for name, content in CONTENTS.items()})
    for name in (cifar10.ARCHIVE, *CONTENTS):
        (made / name).mkdir()
    dataset = data.load("cifar10", made, unverified=True)
    assert_holds(dataset.train, cifar10.TRAIN_FILES)
    assert_holds(dataset.test, [cifar10.TEST_FILE])


def test_the_archive_in_a_folder_called_as_itself(folder):
    made = folder({f"{cifar10.ARCHIVE}/{cifar10.ARCHIVE}": ARCHIVE})
    assert data.load("cifar10", made).name == "cifar10"


def assert_holds(split, names):
    assert (split.images.dtype, split.labels.dtype) == (np.float32, np.int32)
    assert split.images.shape == (COUNT * len(names), 3, 32, 32)
    pixels = np.concatenate([PIXELS[name] for name in names])
    np.testing.assert_allclose(split.images, pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(split.labels, np.concatenate([LABELS[name] for name in names]))


def assert_is_official(dataset):
    assert (dataset.name, dataset.note) == ("cifar10", "")
    assert dataset.sha256 == {"cifar-10-binary.tar.gz": cifar10.SHA256}
    assert_holds(dataset.train, cifar10.TRAIN_FILES)
    assert_holds(dataset.test, [cifar10.TEST_FILE])


def complaint(data_dir=None, error=UserError, unverified=False):
    with pytest.raises(UserError) as caught:
        data.load("cifar10", data_dir, unverified)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is error
    return str(caught.value)


def test_the_published_checksum():
    assert OFFICIAL_SHA256 == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


# --- the official archive ---------------------------------------------------------------------


@pytest.mark.parametrize("unverified", [False, True])
def test_the_archive_in_the_data_dir(folder, monkeypatch, unverified):
    """With --unverified-data too it is simply the official one, whatever lies beside it."""
    made = folder({"cifar-10-binary.tar.gz": ARCHIVE, "data_batch_1.bin": b"junk"})
    dataset = data.load("cifar10", made, unverified)
    assert_is_official(dataset)
    assert dataset.origin == str(made)
    monkeypatch.setenv("MNIST_BN_DATA", str(made))
    assert_is_official(data.load("cifar10", None, unverified))


def test_pixels_have_the_bits_of_chainers_get_cifar10(folder):
    from chainer.datasets.cifar import _preprocess_cifar

    ours = data.load("cifar10", folder({"cifar-10-binary.tar.gz": ARCHIVE})).test
    raw = PIXELS[cifar10.TEST_FILE].reshape(COUNT, 3072), LABELS[cifar10.TEST_FILE]
    theirs = _preprocess_cifar(*raw, True, 3, 1.0, np.float32)
    images, labels = (np.stack(column) for column in zip(*theirs, strict=True))
    assert ours.images.tobytes() == images.tobytes()
    assert ours.labels.tobytes() == labels.tobytes()


@pytest.mark.parametrize("unverified", [False, True])
@pytest.mark.parametrize(
    "content",
    [make_archive({**CONTENTS, "test_batch.bin": CONTENTS["data_batch_1.bin"]}), b"", ARCHIVE[:-1]],
    ids=["another archive", "empty", "cut off"],
)
def test_another_archive_is_not_looked_into(folder, monkeypatch, content, unverified):
    monkeypatch.setattr(tarfile, "open", lambda **_: pytest.fail("it was opened"))
    made = folder({"cifar-10-binary.tar.gz": content})
    assert complaint(made, unverified=unverified) == (
        f"{made}/cifar-10-binary.tar.gz: not the official archive: expected SHA-256 "
        f"{cifar10.SHA256}, found {hashlib.sha256(content).hexdigest()}; get the file again"
    )


def test_what_is_no_file_or_too_large_is_no_archive(folder):
    made = folder({"cifar-10-binary.tar.gz": b""})
    path = made / "cifar-10-binary.tar.gz"
    os.truncate(path, 10**12)
    assert complaint(made) == f"{path}: expected at most 268,435,456 bytes, found more"
    path.unlink()
    os.mkfifo(path)
    assert complaint(made) == f"{path}: expected a file"


def test_sizes_in_the_archive_are_checked(folder, monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", COUNT + 1)
    made = folder({"cifar-10-binary.tar.gz": ARCHIVE})
    assert complaint(made) == (
        f"{made}/cifar-10-binary.tar.gz, cifar-10-batches-bin/test_batch.bin: expected 12,292 "
        "bytes, found 9,219; get the file again"
    )


# --- the cache and the network ----------------------------------------------------------------


def test_download_then_offline_with_a_warm_cache(serve, monkeypatch, folder):
    address, asked = serve({"cifar-10-binary.tar.gz": ARCHIVE})
    monkeypatch.setattr(cifar10, "MIRRORS", (address,))
    # A folder for MNIST alone is passed over where the environment names it.
    monkeypatch.setenv("MNIST_BN_DATA", str(folder({"train-images-idx3-ubyte": b""})))
    dataset = data.load("cifar10")
    assert_is_official(dataset)
    assert dataset.origin == f"downloaded from {address}"
    assert asked == ["cifar-10-binary.tar.gz"]

    monkeypatch.setattr(cifar10, "MIRRORS", (NO_SERVER,))
    dataset = data.load("cifar10")
    assert_is_official(dataset)
    assert dataset.origin == f"the cache ({cifar10.cache_folder()}/cifar-10-binary.tar.gz)"


def test_a_bad_file_in_the_cache_is_fetched_anew(serve, monkeypatch):
    address, _ = serve({"cifar-10-binary.tar.gz": ARCHIVE})
    monkeypatch.setattr(cifar10, "MIRRORS", (address,))
    cifar10.cache_folder().mkdir(parents=True)
    path = cifar10.cache_folder() / "cifar-10-binary.tar.gz"
    path.write_bytes(ARCHIVE[:-1])
    assert_is_official(data.load("cifar10"))
    assert path.read_bytes() == ARCHIVE


def test_nothing_bad_is_kept(serve, monkeypatch):
    address, _ = serve({"cifar-10-binary.tar.gz": b"<html>Log in to this network</html>"})
    monkeypatch.setattr(cifar10, "MIRRORS", (address,))
    assert f"no CIFAR-10: {address}cifar-10-binary.tar.gz: not the official archive" in complaint()
    assert os.listdir(cifar10.cache_folder()) == []


def test_no_network(monkeypatch, folder):
    expected = (
        f"{NO_SERVER}cifar-10-binary.tar.gz: no connection; put cifar-10-binary.tar.gz (from "
        f"{NO_SERVER}cifar-10-binary.tar.gz) in a folder and name it with --data-dir, or copy "
        f"{cifar10.cache_folder()} from a machine that has a network"
    )
    assert complaint() == f"no CIFAR-10: {expected}"
    made = folder({"README": b""})
    monkeypatch.setenv("MNIST_BN_DATA", str(made))
    assert complaint() == f"no CIFAR-10: {made} has none of CIFAR-10's files; {expected}"


def test_auto_is_never_cifar10(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(mnist, "MIRRORS", (NO_SERVER,))
    monkeypatch.setenv("CHAINER_DATASET_ROOT", str(tmp_path))
    assert data.load("auto", folder({"cifar-10-binary.tar.gz": ARCHIVE})).name == "digits"


# --- the user's folder ------------------------------------------------------------------------


@pytest.mark.parametrize("present", ["data_batch_1", "cifar-10-python.tar.gz"])
def test_the_python_version_is_not_opened(folder, monkeypatch, present):
    made = folder({present: b"(lp0\n."})
    what = f"{made} has only CIFAR-10's Python version, whose pickles are not opened"
    assert complaint(made, UsageError) == (
        f"--data-dir: {what}; expected cifar-10-binary.tar.gz (from "
        f"{NO_SERVER}cifar-10-binary.tar.gz)"
    )
    monkeypatch.setenv("MNIST_BN_DATA", str(made))
    assert complaint().startswith(f"no CIFAR-10: {what}; ")


def test_a_data_dir_without_it_is_refused(folder, tmp_path):
    made = folder({"README": b""})
    assert complaint(made, UsageError).startswith(
        f"--data-dir: {made} has none of CIFAR-10's files; expected cifar-10-binary.tar.gz (from"
    )
    assert complaint(tmp_path / "nowhere", UsageError) == (
        f"--data-dir {tmp_path}/nowhere: expected a folder of CIFAR-10's files, found nothing"
    )


@pytest.mark.parametrize("prefix", ["", "cifar-10-batches-bin/"])
def test_extracted_files_are_refused_unless_asked_for(folder, monkeypatch, prefix):
    made = folder({prefix + name: content for name, content in CONTENTS.items()})
    expected = (
        f"{made}: extracted files, which no checksum is known of: put cifar-10-binary.tar.gz (from "
        f"{NO_SERVER}cifar-10-binary.tar.gz) there, or take them as they are with "
        "--unverified-data, and every result is labelled so"
    )
    assert complaint(made) == expected
    monkeypatch.setenv("MNIST_BN_DATA", str(made))
    assert complaint() == expected

    dataset = data.load("cifar10", made, unverified=True)
    assert dataset.name == "cifar10-unverified"
    assert dataset.note == "not verified to be the official images: every result is labelled so"
    assert_holds(dataset.train, cifar10.TRAIN_FILES)
    assert_holds(dataset.test, [cifar10.TEST_FILE])
    assert dataset.sha256 == {n: hashlib.sha256(c).hexdigest() for n, c in CONTENTS.items()}
    again = data.load("cifar10-unverified", made, unverified=True)  # as a resolved config has it
    assert again.sha256 == dataset.sha256


def test_some_files_gzipped(folder):
    made = folder({f"{name}.gz": gzip.compress(content) for name, content in SOME.items()})
    dataset = data.load("cifar10", made, unverified=True)
    assert_holds(dataset.train, ["data_batch_2.bin"])
    assert dataset.sha256 == {n: hashlib.sha256(c).hexdigest() for n, c in SOME.items()}


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("test_batch.bin", "one or more of data_batch_1.bin to data_batch_5.bin"),
        ("data_batch_2.bin", "test_batch.bin"),
    ],
)
def test_training_and_test_images_must_be_there(folder, name, missing):
    made = folder({name: CONTENTS[name]})
    assert complaint(made, unverified=True) == (
        f"{made}: expected training and test images, found {name}; add {missing}"
    )


RECORD = "one record or more, each a label and 3 planes of 32x32, 3,073 bytes"
BAD = {
    "test_batch.bin": (CONTENTS["test_batch.bin"][:-1], f"{RECORD}, found 9,218 bytes"),
    "data_batch_2.bin": (b"", f"{RECORD}, found 0 bytes"),
    "data_batch_3.bin": (
        records([10], PIXELS["test_batch.bin"][:1]),
        "labels from 0 to 9, found 10",
    ),
    "test_batch.bin.gz": (
        CONTENTS["test_batch.bin"],
        "gzip data, as the name says, found other data",
    ),
    "data_batch_2.bin.gz": (
        gzip.compress(CONTENTS["data_batch_2.bin"])[:-9],
        "intact gzip data, found damage (Compressed file ended before the end-of-stream marker was "
        "reached)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_it(folder, name):
    content, expected = BAD[name]
    plain = name.removesuffix(".gz")
    made = folder({**{n: c for n, c in SOME.items() if n != plain}, name: content})
    expected = f"{made / name}: expected {expected}; get the file again"
    assert complaint(made, unverified=True) == expected


def test_what_is_not_a_file(folder):
    made = folder(SOME)
    path = made / "data_batch_4.bin"
    os.mkfifo(path)
    expected = f"{path}: expected a file of CIFAR-10's records, found a device or pipe"
    assert complaint(made, unverified=True) == f"{expected}; get the file again"
    path.unlink()
    path.touch()
    os.truncate(path, 10**12)
    assert "expected at most 268,435,456 bytes, found 1,000,000,000,000" in complaint(
        made, unverified=True
    )


def test_a_gzip_bomb_is_not_unpacked(folder, monkeypatch):
    monkeypatch.setattr(cifar10, "MAX_RECORDS", 100)
    bomb = gzip.compress(bytes(100_000_000), compresslevel=1)
    made = folder({**SOME, "data_batch_1.bin.gz": bomb})
    tracemalloc.start()
    try:
        assert "expected at most 100 records, found more" in complaint(made, unverified=True)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


CHANGES = st.lists(st.tuples(st.integers(0, 3 * 3073 - 1), st.integers(0, 255)), max_size=3)
PLAIN = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda changes, cut, tail: change(CONTENTS["data_batch_1.bin"], changes)[:cut] + tail,
        CHANGES,
        st.sampled_from([0, 1, 3072, 3073, 3074, 2 * 3073, 3 * 3073]),
        st.binary(max_size=4),
    ),
)
ANY = st.one_of(
    PLAIN,
    PLAIN.map(gzip.compress),
    st.builds(
        lambda content, cut, changes: change(gzip.compress(content)[:cut], changes),
        PLAIN,
        st.integers(0, 5000),
        CHANGES,
    ),
)


def change(content, changes):
    changed = bytearray(content)
    for place, value in changes:
        if place < len(changed):
            changed[place] = value
    return bytes(changed)


@given(content=ANY, name=st.sampled_from(["data_batch_1.bin", "data_batch_1.bin.gz"]))
def test_any_bytes_give_images_or_one_line(tmp_path_factory, content, name):
    folder = tmp_path_factory.getbasetemp() / f"any-{name}"
    folder.mkdir(exist_ok=True)
    (folder / "test_batch.bin").write_bytes(CONTENTS["test_batch.bin"])
    (folder / name).write_bytes(content)
    try:
        dataset = data.load("cifar10", folder, unverified=True)
    except UserError as error:
        assert str(error).startswith(f"{folder / name}: expected ")
        assert "\n" not in str(error)
    else:
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        rows = np.frombuffer(plain, np.uint8).reshape(-1, 3073)
        assert dataset.train.labels.tolist() == rows[:, 0].tolist()
        assert dataset.train.labels.max() <= 9
        assert np.array_equal(np.rint(dataset.train.images.reshape(-1, 3072) * 255), rows[:, 1:])
