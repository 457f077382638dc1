"""NPZ files with a checksum: what goes in comes out, and nothing else is ever let in."""

import hashlib
import io
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_bn.errors import UserError
from mnist_bn.storage import archives

shapes = hnp.array_shapes(min_dims=0, max_side=4)
values = hnp.arrays(st.sampled_from(["f4", "f8", "i8", "u1", "?", "<U3"]), shapes)
ARRAYS = {"conv1/W": np.arange(6, dtype=np.float32).reshape(2, 3), "N": np.int64(7)}


@given(st.dictionaries(st.from_regex(r"[a-z_/]{1,9}", fullmatch=True), values, max_size=4))
def test_what_goes_in_comes_out(arrays):
    content = archives.encode(arrays)
    assert content == archives.encode(arrays)
    with np.load(io.BytesIO(content)) as npz:
        for got in (archives.decode(content), dict(npz)):
            assert list(got) == list(arrays)
            for name, array in arrays.items():
                assert got[name].dtype == array.dtype
                np.testing.assert_array_equal(got[name], array)


@given(st.integers(0), st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(position, bit):
    content = bytearray(archives.encode(ARRAYS))
    content[position % len(content)] ^= 1 << bit
    with pytest.raises(Exception, match=r"checksum"):
        archives.decode(bytes(content))


def test_without_the_checksum_a_flipped_bit_is_read():
    """The control of the test above: a ZIP archive's own sums leave bytes uncovered."""
    content = bytearray(archives.encode(ARRAYS))
    content[12] ^= 1  # the time of the first member
    with np.load(io.BytesIO(content)) as npz:
        assert list(npz) == list(ARRAYS)


@pytest.mark.parametrize("length", [0, 1, 22, 100, -1])
def test_a_file_cut_short_is_one_line(tmp_path, length):
    path = tmp_path / "model.npz"
    path.write_bytes(archives.encode(ARRAYS)[:length])
    with pytest.raises(archives.BadArchiveError, match=f"^{path}: damaged, or no such archive"):
        archives.read(path)


class Bomb:
    """Makes the file `ran` where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (self.folder.joinpath("ran").touch, ())


def malicious(folder):
    """An archive with a right checksum, and a pickle in place of an array."""
    buffer = io.BytesIO()
    np.savez(buffer, **{**ARRAYS, "bomb": np.array(Bomb(folder), dtype=object)})
    content = buffer.getvalue()[:-2] + (71).to_bytes(2, "little") + b"sha256:"
    return content + hashlib.sha256(content).hexdigest().encode()


def test_a_pickle_is_never_run(tmp_path):
    path = tmp_path / "snapshot_iter_5"
    path.write_bytes(malicious(tmp_path))
    with pytest.raises(archives.BadArchiveError, match="pickle"):
        archives.read(path)
    assert not (tmp_path / "ran").exists()


def test_numpy_told_to_unpickle_would_run_it(tmp_path):
    """The control of the test above: the archive does what it is made for."""
    with np.load(io.BytesIO(malicious(tmp_path)), allow_pickle=True) as npz:
        npz["bomb"]
    assert (tmp_path / "ran").exists()


def test_chainers_archives_are_read_where_no_checksum_is_asked_for(tmp_path):
    path = tmp_path / "model.npz"
    np.savez_compressed(path, **ARRAYS)
    assert set(archives.read(path, checksum_required=False)) == set(ARRAYS)
    with pytest.raises(archives.BadArchiveError, match="no checksum"):
        archives.read(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(archives.BadArchiveError):
        archives.read(path, checksum_required=False)


def test_a_header_that_lies_about_the_size_takes_no_memory(tmp_path):
    content = archives.encode({"a": np.zeros(3, np.float64)}).replace(b"(3,)", b"(9999999999,)"[:4])
    with pytest.raises(Exception, match="checksum"):
        archives.decode(content)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    body = buffer.getvalue().replace(b"(3,), }      ", b"(99999999,), }")
    with pytest.raises(ValueError, match="cut off"):
        archives._read_header(io.BytesIO(body), len(body))


def test_what_is_no_file_is_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=f"^{path}: "):
            archives.read(path)


def zipped(members, compression=zipfile.ZIP_DEFLATED):
    """Returns a ZIP archive of (name, bytes) without a checksum, as Chainer's are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, body in members:
            archive.writestr(name, body)
    return buffer.getvalue()


def npy(shape, dtype="'<f4'", body=b"", order="False"):
    """Returns an NPY file whose header says what it likes."""
    header = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


ZEROS = npy("(26214400,)", body=bytes(100 * 2**20))
BOMBS = {
    "zeros": (lambda: zipped([("a.npy", ZEROS)]), "would unpack to 104,857,"),
    "zeros in parts": (
        lambda: zipped([(f"{i}.npy", ZEROS[: 2**20]) for i in range(80)]),
        "would unpack to 83,886,080",
    ),
    "bzip2": (
        lambda: zipped([("a.npy", ZEROS[:999])], zipfile.ZIP_BZIP2),
        "compressed as no NPZ file",
    ),
    "LZMA": (
        lambda: zipped([("a.npy", ZEROS[:999])], zipfile.ZIP_LZMA),
        "compressed as no NPZ file",
    ),
    "shape": (lambda: zipped([("a.npy", npy("(99999999999,)"))]), "cut off"),
    "no shape": (lambda: zipped([("a.npy", npy("(-1, -4)", body=bytes(16)))]), "the shape"),
    "no end": (lambda: zipped([("a.npy", npy("(2,)", body=bytes(16)))]), "more than an array"),
    "dtype": (lambda: zipped([("a.npy", npy("(0,)", "'|V2147483647'"))]), "neither numbers nor"),
    "record": (lambda: zipped([("a.npy", npy("(0,)", "[('x', '<f4')]"))]), "neither numbers nor"),
    "twice": (lambda: zipped([("a.npy", npy("(0,)")), ("a", npy("(0,)"))]), "have one name"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_bad_file_takes_no_memory(tmp_path, name):
    make, reason = BOMBS[name]
    path = tmp_path / "model.npz"
    path.write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(archives.BadArchiveError, match=f"^{path}: damaged.*{reason}"):
            archives.read(path, checksum_required=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size + 2**22


def test_a_long_list_of_arrays_is_not_read(monkeypatch):
    content = archives.encode(ARRAYS)
    archives.decode(content)
    end = content.rindex(b"PK\x05\x06")
    with pytest.raises(ValueError, match="too many arrays"):  # the larger format's
        archives.decode(
            content[:end] + b"PK\x06\x07" + bytes(16) + content[end : end + 22],
            checksum_required=False,
        )
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 100)
    with pytest.raises(ValueError, match="too many arrays"):
        archives.decode(content)


def test_numpy_unpacks_the_bomb():
    """The control of the test above: it is a whole archive, of an array that is mostly zeros."""
    with np.load(io.BytesIO(BOMBS["zeros"][0]())) as npz:
        assert npz["a"].nbytes == 100 * 2**20


def test_what_does_not_fit_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "model.npz"
    content = zipped([("a.npy", npy("(8388608,)", body=bytes(2**25)))])
    path.write_bytes(content)

    def check(kinds):
        assert kinds == {"a": ((8388608,), np.dtype("<f4"))}
        raise UserError("another shape")

    tracemalloc.start()
    with pytest.raises(UserError, match=r"^another shape$"):
        archives.read(path, checksum_required=False, check=check)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    array = archives.read(path, checksum_required=False)["a"]  # it is mostly zeros, yet small
    assert array.shape == (8388608,) and array.flags.writeable


def test_a_flipped_bit_in_a_compressed_array_is_noticed():
    values = np.random.RandomState(0).rand(1000)
    content = bytearray(zipped([("a.npy", npy("(1000,)", "'<f8'", values.tobytes()))]))
    content[1000] ^= 4
    with pytest.raises((zipfile.BadZipFile, zlib.error)):
        archives.decode(bytes(content), checksum_required=False)
