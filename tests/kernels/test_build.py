"""Compiling the kernels: the compiler, the cache folder, and what is said where it fails."""

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mnist_bn import kernels
from mnist_bn.errors import UsageError
from mnist_bn.kernels import build, build_folders, compiler, trust

# In place of the kernels, which take seconds to compile.
TINY = 'extern "C" int mnist_bn_kernels_version() { return %d; }'


@pytest.fixture
def cxx():
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
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv(build._FAILED, "")
    build._load.cache_clear()
    yield source, tmp_path / "cache" / "kernels"
    build._load.cache_clear()


def fresh_load():
    os.environ[build._FAILED] = ""
    build._load.cache_clear()
    return build.load()


def compiled(monkeypatch):
    """Returns a list that grows by one whenever something is compiled."""
    calls, compile_ = [], build._compile
    monkeypatch.setattr(build, "_compile", lambda *a: calls.append(a) or compile_(*a))
    return calls


def test_a_second_load_takes_the_library_from_the_cache(cxx, tiny_source, monkeypatch):
    _, cache = tiny_source
    calls = compiled(monkeypatch)
    fresh_load()
    assert sorted(path.suffix for path in cache.iterdir()) == [".sha256", ".so"]
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["kernels.cpp", "another.cpp", "header.h"])
def test_another_source_is_another_library(cxx, tiny_source, name):
    source, cache = tiny_source
    fresh_load()
    with (source.parent / name).open("a") as file:
        file.write("\n")
    fresh_load()
    assert len(list(cache.glob("*.so"))) == 2


def test_several_sources_are_one_library(cxx, tiny_source):
    source, _ = tiny_source
    source.with_name("one.h").write_text("constexpr int ONE = 1;")
    source.with_name("another.cpp").write_text(
        '#include "one.h"\nextern "C" int f() { return ONE; }'
    )
    library = fresh_load()
    assert (library.f(), library.mnist_bn_kernels_version()) == (1, build.KERNELS_VERSION)


@pytest.mark.parametrize("damage", [b"", b"not a library", None])
def test_a_damaged_library_is_compiled_anew(cxx, tiny_source, damage, monkeypatch):
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


def test_a_library_of_another_version_is_refused(cxx, tiny_source):
    source, _ = tiny_source
    source.write_text(TINY % (build.KERNELS_VERSION + 1))
    with pytest.raises(build.Unavailable, match="not a library of these kernels"):
        fresh_load()


def test_a_cache_folder_that_cannot_be_made_is_done_without(cxx, tiny_source, monkeypatch):
    _, cache = tiny_source
    cache.parent.write_text("a file where the folder would be")
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION


def test_several_at_once(cxx, tiny_source):
    _, cache = tiny_source
    program = (
        "import sys, pathlib, mnist_bn; from mnist_bn.kernels import build;"
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


def test_a_source_that_does_not_compile(cxx, tiny_source):
    tiny_source[0].write_text("this is not C++")
    with pytest.raises(build.Unavailable, match=r"do not compile.*error.*ziglang") as caught:
        fresh_load()
    assert "\n" not in str(caught.value)


def test_cxx_comes_first_and_may_carry_arguments(cxx, monkeypatch):
    assert build._compilers(f"{cxx[0]} -pipe")[0] == [cxx[0], "-pipe"]
    assert build._compilers("no-such-compiler")[:1] == [cxx]


def test_cxx_that_fails_leaves_the_others(cxx, tiny_source, monkeypatch):
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
    names = {path.name for path in build._sources("*.cpp", "*.h")}
    assert names == {
        *("blocks.cpp", "convolution.cpp", "depthwise.cpp", "layers.cpp", "linear.cpp"),
        *("parallel.cpp", "pooling.cpp", "updates.cpp", "winograd.cpp"),
        *("convolution.h", "parallel.h", "products.h", "tiles.h", "vector.h", "windows.h"),
        "winograd.h",
    }


def script(path, body):
    """Writes a compiler that is a shell script; returns its path."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "cxx_variable",
    ['g++ "', "no-such-compiler", "/", "'", "\udcff", "a" * 5000],
    ids=["quotation", "missing", "folder", "quote", "no UTF-8", "long"],
)
def test_a_cxx_that_is_none_leaves_the_others(cxx, tiny_source, monkeypatch, cxx_variable):
    monkeypatch.setenv("CXX", cxx_variable)
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION


COMPILERS = {
    "no UTF-8": (r"printf '\377\376 error: \033[31mbad\n'; exit 1", "\ufffd+ error: [?]\\[31mbad"),
    "silent": ("exit 3", "exit status 3"),
    "killed": ("kill -9 $$", "ended by signal 9"),
    "makes nothing": ("exit 0", "cannot open shared object file"),
    "a novel": ("yes error | head -c 1000000; exit 1", "error"),
    "one long line": ("yes | tr -d '\\n' | head -c 1000000; exit 1", r"y{200}\.\.\."),
}


@pytest.mark.parametrize("name", COMPILERS)
def test_a_bad_compiler_is_one_line(tiny_source, monkeypatch, tmp_path, name):
    body, reason = COMPILERS[name]
    program = script(tmp_path / "cxx", body)
    monkeypatch.setattr(build, "_compilers", lambda _: [[program]])
    with pytest.raises(build.Unavailable, match=rf"^the kernels do not compile \({program}: ") as e:
        fresh_load()
    line = str(e.value)
    assert "\n" not in line and line.isprintable() and len(line) < 600
    assert kernels.install("auto") == "off"
    with pytest.raises(kernels.AccelerationUnavailable, match=reason):
        kernels.install("on")


def test_processes_of_this_one_do_not_wait_for_bad_compilers_again(
    tiny_source, monkeypatch, tmp_path
):
    program = script(tmp_path / "cxx", f"echo called >> {tmp_path}/calls; exit 1")
    monkeypatch.setattr(build, "_compilers", lambda _: [[program]])
    for start in (fresh_load, build.load, lambda: (build._load.cache_clear(), build.load())):
        with pytest.raises(build.Unavailable, match="exit status 1"):
            start()
    assert (tmp_path / "calls").read_text().splitlines() == ["called"]
    monkeypatch.setenv("CXX", "another")  # is tried
    with pytest.raises(build.Unavailable, match="exit status 1"):
        build.load()
    assert (tmp_path / "calls").read_text().splitlines() == ["called"] * 2


def running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    return False


def ends(pid):
    """Tells whether a program ends: it was killed, and is gone a moment later."""
    for _ in range(250):
        if not running(pid):
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def hanging(tmp_path):
    """A compiler that waits for ever for a program that it started; and where that one's ID is."""
    child = tmp_path / "child"
    body = f'[ "$2" ] || {{ echo 1; exit; }}; sleep 60 & echo $! > {child}.new; '
    return script(tmp_path / "cxx", f"{body} mv {child}.new {child}; wait"), child


def wait_for(path):
    for _ in range(500):
        if path.exists():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{path} does not come")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
def test_a_compiler_that_hangs_is_ended_and_the_next_tried(cxx, tiny_source, monkeypatch, hanging):
    program, child = hanging
    monkeypatch.setattr(build, "COMPILE_SECONDS", 0.3)
    began = time.monotonic()
    monkeypatch.setattr(build, "_compilers", lambda _: [[program], [program]])
    with pytest.raises(build.Unavailable, match=rf"\({program}: not ready after 0 s\)"):
        fresh_load()
    assert time.monotonic() - began < 5  # once, though it is named twice
    assert ends(wait_for(child))
    monkeypatch.setattr(build, "COMPILE_SECONDS", 60)
    monkeypatch.setattr(build, "VERSION_SECONDS", 0.3)
    program = script(Path(program), "exec sleep 60")
    monkeypatch.setattr(build, "_compilers", lambda _: [[program], cxx])
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION


LOAD = """
import sys, pathlib, mnist_bn
from mnist_bn.kernels import build
from mnist_bn.trainer import signals
build._SOURCE_FOLDER = pathlib.Path(sys.argv[1])
build._compilers = lambda _: [[sys.argv[2]]]
with signals.deferred() if sys.argv[3:] else open(sys.argv[1] + "/kernels.cpp"):
    try:
        build.load()
    except signals.Stopped as stopped:
        sys.exit(str(stopped))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, "deferred"])
def test_a_signal_ends_the_compiler_too(tiny_source, hanging, signum):
    source, cache = tiny_source
    program, child = hanging
    command = [sys.executable, "-c", LOAD, str(source.parent), program]
    is_deferred = signum == "deferred"
    if is_deferred:
        signum = signal.SIGTERM
        command.append("deferred")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        pid = wait_for(child)
        assert running(pid) and len(list(cache.glob("build-*"))) == 1
        process.send_signal(signum)
        process.wait(timeout=10)
        message = process.stderr.read()
    assert process.returncode == (1 if is_deferred else -signum)
    assert message == ("stopped before the training began\n" if is_deferred else message)
    assert ends(pid)
    assert not list(cache.glob("build-*"))


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(cxx, tiny_source, hanging):
    source, cache = tiny_source
    program, child = hanging
    cache.mkdir(parents=True)
    left = cache / "build-abcdefgh"
    left.mkdir()
    (left / "kernels.so").touch()
    (cache / "build-a-file").touch()
    (cache / "build-a-link").symlink_to(source.parent)
    command = [sys.executable, "-c", LOAD, str(source.parent), program]
    with subprocess.Popen(command) as process:
        try:
            pid = wait_for(child)
            (in_use,) = {*cache.glob("build-*")} - {cache / "build-a-file", cache / "build-a-link"}
            fresh_load()
            assert in_use.exists() and not left.exists()
        finally:
            process.kill()
            process.wait()
            os.kill(pid, signal.SIGKILL)
    fresh_load()
    assert not in_use.exists()
    assert (cache / "build-a-file").exists() and source.exists()


def test_on_a_file_system_that_locks_no_folders_age_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(build_folders, "_lock", lambda folder: None)
    new, old = tmp_path / "build-1", tmp_path / "build-2"
    for folder in (new, old):
        folder.mkdir()
    os.utime(old, (1, 1))
    with build_folders.make(tmp_path, "build-") as folder:
        build_folders.remove_stale(tmp_path, "build-")
        assert {*tmp_path.iterdir()} == {new, folder}
    assert not folder.exists()


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    path.mkdir()


def no_utf8(path):
    path.write_bytes(b"\xff\xfe" * 32)


def link(path):
    content = path.read_bytes()
    path.unlink()
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)


def open_to_all(path):
    path.chmod(0o777)


@pytest.mark.parametrize("suffix", [".so", ".sha256"])
@pytest.mark.parametrize("spoil", [fifo, folder, no_utf8, link, open_to_all])
def test_a_file_in_the_cache_that_is_not_ours_is_compiled_anew(
    cxx, tiny_source, monkeypatch, suffix, spoil
):
    _, cache = tiny_source
    fresh_load()
    (path,) = cache.glob(f"*{suffix}")
    if suffix == ".so":  # not written over: this process has it open
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    spoil(path)
    calls = compiled(monkeypatch)
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION
    assert len(calls) == 1
    if spoil is not folder:  # which stays: nothing of anybody's is removed
        assert fresh_load() and len(calls) == 1
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) and not mode & 0o022


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_a_folder_that_others_can_write_is_not_used(cxx, tiny_source, monkeypatch, mode):
    _, cache = tiny_source
    fresh_load()
    calls = compiled(monkeypatch)
    fresh_load()
    assert not calls  # the control: it is used
    for part in (cache, cache.parent):
        part.chmod(mode)
        if part == cache or not mode & stat.S_ISVTX:
            assert trust.why_not(cache) == f"others can write to {part}"
            calls.clear()
            assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION
            assert len(calls) == 1
        part.chmod(0o755)
    assert trust.why_not(cache) is None


def test_a_folder_of_another_users_is_not_used(tiny_source, monkeypatch):
    _, cache = tiny_source
    cache.mkdir(parents=True)
    monkeypatch.setattr(trust.os, "geteuid", lambda: cache.stat().st_uid + 1)
    if cache.stat().st_uid != 0:
        assert "belongs to another user" in trust.why_not(cache)
    if os.getuid() == 0:
        os.chown(cache, 12345, -1)
        assert trust.why_not(cache) == f"{cache} belongs to another user"


def test_a_group_of_ones_own_may_write(tmp_path, monkeypatch):
    user = pwd.getpwuid(os.getuid())
    group = trust.grp.struct_group
    for name, members, is_private in [
        (user.pw_name, [], True),
        (user.pw_name, [user.pw_name], True),
        (user.pw_name, ["somebody"], False),
        ("staff", [], False),
    ]:
        entry = group((name, "x", user.pw_gid or 4711, members))
        monkeypatch.setattr(trust.grp, "getgrgid", lambda gid, entry=entry: entry)
        monkeypatch.setattr(
            trust.pwd,
            "getpwuid",
            lambda uid, g=entry.gr_gid: pwd.struct_passwd((user.pw_name, "x", uid, g, "", "", "")),
        )
        assert trust._is_private(entry.gr_gid) is is_private


def test_without_a_cache_folder_the_kernels_are_compiled_in_a_temporary_one(
    cxx, tiny_source, tmp_path, monkeypatch
):
    monkeypatch.delenv("MNIST_BN_CACHE")
    homeless = {"user_cache_dir": lambda name: f"~/.cache/{name}"}
    monkeypatch.setattr(build, "platformdirs", types.SimpleNamespace(**homeless))
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert fresh_load().mnist_bn_kernels_version() == build.KERNELS_VERSION
    assert set(tmp_path.iterdir()) == before


def test_what_is_waited_for_is_said_on_a_terminal(cxx, tiny_source, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fresh_load()
    assert capsys.readouterr().err == f"Kernels: compiling the kernels with {cxx[0]}, once ...\n"
    fresh_load()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("share", "hangs"), [(0.02, False), (0.001, True), (1, True)])
def test_a_compiler_that_computes_on_a_busy_machine_does_not_hang(monkeypatch, share, hangs):
    began = time.monotonic()

    def computed(_pid):
        return share * (time.monotonic() - began)

    monkeypatch.setattr(compiler, "_seconds_computed", computed)
    monkeypatch.setattr(compiler, "MOST_TIMES", 1000)  # where the tests are what waits
    command = [sys.executable, "-c", "import time; time.sleep(1)"]
    with pytest.raises(compiler.CompilerHangs) if hangs else contextlib.nullcontext():
        compiler.run(command, 0.2)


def test_the_time_that_a_compiler_has_computed_counts_those_that_it_started():
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE) as process:
        children = []
        try:
            process.stdout.readline()
            children = psutil.Process(process.pid).children()
            assert compiler._seconds_computed(process.pid) >= 0.3
        finally:
            for one in (*children, process):
                one.kill()
    assert compiler._seconds_computed(process.pid) == 0  # there is none


def test_output_without_end_is_not_kept():
    command = [sys.executable, "-c", "print('x' * 10**7)"]
    assert len(compiler.run(command, 60)) == compiler.MAX_OUTPUT_BYTES
    with pytest.raises(compiler.CompilerError, match="embedded null byte"):
        compiler.run(["\0"], 1)


@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_a_library_of_cpp_is_not_linked_unasked(name, tiny_source, monkeypatch, tmp_path):
    if sys.platform != "linux" or not (shutil.which(name) and shutil.which("readelf")):
        pytest.skip(f"there is no {name} here, or no readelf")
    monkeypatch.setenv("CXX", name)
    monkeypatch.setenv("MNIST_BN_CACHE", str(tmp_path))
    fresh_load()
    (library,) = (tmp_path / "kernels").glob("*.so")
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    assert "libstdc++" not in needed.stdout and "libgcc_s" not in needed.stdout
