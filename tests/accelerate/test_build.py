"""Compiling the kernels: the compiler, the cache folder, and what is said where it fails."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mnist_bn.accelerate import build
from mnist_bn.errors import UsageError

# In place of the kernels, which take seconds to compile.
TINY = 'extern "C" int mnist_bn_kernels_version() { return %d; }'


@pytest.fixture
def compiler():
    found = build._compilers("")
    if not found:
        pytest.skip("no C++ compiler found")
    return found[0]


@pytest.fixture
def tiny_source(tmp_path, monkeypatch):
    """Puts a tiny source in the kernels' place, and an empty cache folder; returns both."""
    source = tmp_path / "source" / "kernels.cpp"
    source.parent.mkdir()
    source.write_text(TINY % build.KERNELS_VERSION)
    monkeypatch.setattr(build, "_SOURCE_FOLDER", source.parent)
    monkeypatch.setenv("MNIST_BN_CACHE", str(tmp_path / "cache"))
    build._load.cache_clear()
    yield source, tmp_path / "cache" / "kernels"
    build._load.cache_clear()


def fresh_load():
    build._load.cache_clear()
    return build.load()


def compiled(monkeypatch):
    """Returns a list that grows by one whenever something is compiled."""
    calls, compile_ = [], build._compile
    monkeypatch.setattr(build, "_compile", lambda *a: calls.append(a) or compile_(*a))
    return calls


def test_a_second_load_takes_the_library_from_the_cache(compiler, tiny_source, monkeypatch):
    _, cache = tiny_source
    calls = compiled(monkeypatch)
    fresh_load()
    assert sorted(path.suffix for path in cache.iterdir()) == [".sha256", ".so"]
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION
    assert len(calls) == 1


def test_another_source_is_another_library(compiler, tiny_source):
    source, cache = tiny_source
    fresh_load()
    source.write_text(source.read_text() + "\n")
    fresh_load()
    assert len(list(cache.glob("*.so"))) == 2


@pytest.mark.parametrize("damage", [b"", b"not a library", None])
def test_a_damaged_library_is_compiled_anew(compiler, tiny_source, damage, monkeypatch):
    _, cache = tiny_source
    fresh_load()
    (library,) = cache.glob("*.so")
    whole = library.read_bytes()
    library.unlink()  # not written over: this process has it open
    library.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    calls = compiled(monkeypatch)
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION
    assert len(calls) == 1
    assert library.stat().st_size == len(whole)


def test_a_library_of_another_version_is_refused(compiler, tiny_source):
    source, _ = tiny_source
    source.write_text(TINY % (build.KERNELS_VERSION + 1))
    with pytest.raises(build.Unavailable, match="not a library of these kernels"):
        fresh_load()


def test_a_cache_folder_that_cannot_be_made_is_done_without(compiler, tiny_source, monkeypatch):
    _, cache = tiny_source
    cache.parent.write_text("a file where the folder would be")
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION


def test_several_at_once(compiler, tiny_source):
    _, cache = tiny_source
    program = (
        "import sys, pathlib, mnist_bn; from mnist_bn.accelerate import build;"
        "build._SOURCE_FOLDER = pathlib.Path(sys.argv[1]); build.load(); print('loaded')"
    )
    command = [sys.executable, "-c", program, str(tiny_source[0].parent)]
    with ThreadPoolExecutor() as pool:
        outputs = pool.map(lambda _: subprocess.check_output(command, text=True), range(3))
    assert list(outputs) == ["loaded\n"] * 3
    assert len(list(cache.glob("*.so"))) == 1
    assert not list(cache.glob("build-*"))


def test_no_compiler(tiny_source, monkeypatch):
    monkeypatch.setattr(build, "_compilers", lambda cxx: [])
    with pytest.raises(build.Unavailable, match=r"no C\+\+ compiler found.*pip install ziglang"):
        fresh_load()


def test_a_source_that_does_not_compile(compiler, tiny_source):
    tiny_source[0].write_text("this is not C++")
    with pytest.raises(build.Unavailable, match=r"do not compile.*error.*ziglang") as caught:
        fresh_load()
    assert "\n" not in str(caught.value)


def test_cxx_comes_first_and_may_carry_arguments(compiler, monkeypatch):
    assert build._compilers(f"{compiler[0]} -pipe")[0] == [compiler[0], "-pipe"]
    assert build._compilers("no-such-compiler")[:1] == [compiler]


def test_cxx_that_fails_leaves_the_others(compiler, tiny_source, monkeypatch):
    monkeypatch.setenv("CXX", sys.executable)  # not a compiler
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION


def test_the_instruction_set_can_be_forced(monkeypatch):
    supported = build._supported_instruction_sets()
    if not supported:
        pytest.skip("this CPU has none of the kernels' instruction sets")
    monkeypatch.setenv("MNIST_BN_ISA", supported[-1])
    assert build.instruction_set() == supported[-1]
    monkeypatch.delenv("MNIST_BN_ISA")
    assert build.instruction_set() == supported[0]


def test_an_instruction_set_that_there_is_not(monkeypatch):
    if not build._supported_instruction_sets():
        pytest.skip("this CPU has none of the kernels' instruction sets")
    monkeypatch.setenv("MNIST_BN_ISA", "mmx")
    with pytest.raises(UsageError, match="MNIST_BN_ISA=mmx: this CPU has"):
        build.instruction_set()


def test_a_cpu_without_any(monkeypatch):
    monkeypatch.setattr(build, "_supported_instruction_sets", lambda: ())
    with pytest.raises(build.Unavailable, match="stock Chainer"):
        build.instruction_set()


def test_the_sources_are_there():
    assert (Path(build.__file__).parent / "kernels.cpp").is_file()
