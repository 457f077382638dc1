"""The kernels on an emulated ARM processor: their NEON code, from Debian's and PyPI's packages.

python tests/campaigns/arm.py FOLDER
python tests/campaigns/arm.py FOLDER --tests    # and a sample of the kernels' tests

As root on Debian 12, x86-64. Nothing of ARM is installed: packages are only unpacked into FOLDER,
which is used again if it is there. The kernels are compiled by this machine's cross compilers, from
inside the emulated Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("qemu-user-static", "g++-aarch64-linux-gnu", "clang")
# Python and what it is linked with.
PACKAGES = (
    *("python3.11", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libc6", "libstdc++6", "libgcc-s1", "zlib1g", "libexpat1", "libssl3", "libffi8"),
    *("libbz2-1.0", "liblzma5", "libsqlite3-0", "libuuid1", "libncursesw6", "libtinfo6"),
    *("libreadline8", "libcrypt1", "libdb5.3", "libnsl2", "libtirpc3"),
)
WHEELS = (
    *("numpy", "scipy", "filelock", "joblib", "platformdirs", "pooch", "psutil"),
    *("threadpoolctl", "matplotlib", "pillow", "rich", "requests", "pytest", "hypothesis"),
    *("pytest-timeout", "six", "typing_extensions", "protobuf", "setuptools", "packaging"),
)
PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
COMPILERS = {
    "GCC": "aarch64-linux-gnu-g++",
    "Clang": "clang++ --target=aarch64-linux-gnu",
}
SAMPLE = ("test_depthwise.py", "test_pooling.py", "test_layers.py", "test_convolution.py")


def run(*words: object, **options) -> None:
    """Runs a command, which must succeed."""
    subprocess.run(list(map(str, words)), check=True, **options)


def prepare(folder: Path) -> None:
    """Unpacks an ARM Python with the project's requirements into the folder."""
    if (folder / "ready").exists():
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-q", env=environment)
    run("apt-get", "install", "-qy", "--no-install-recommends", *TOOLS, env=environment)
    packages, wheels = folder / "packages", folder / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    packages.mkdir(parents=True)
    run("dpkg", "--add-architecture", "arm64")
    try:
        run("apt-get", "update", "-q")
        run("apt-get", "download", *(f"{name}:arm64" for name in PACKAGES), cwd=packages)
    finally:
        run("dpkg", "--remove-architecture", "arm64")
    run("apt-get", "update", "-q")
    for package in packages.iterdir():
        run("dpkg", "-x", package, folder / "root")
    pip = (sys.executable, "-m", "pip")
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    run(*pip, "download", "-q", "-d", wheels, *platforms, "--python-version", "3.11",
        "--implementation", "cp", "--only-binary=:all:", *WHEELS)  # fmt: skip
    run(*pip, "wheel", "-q", "--no-deps", "-w", wheels, ROOT / "chainer-build")
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    (folder / "ready").touch()


def emulated(folder: Path, compiler: str, *words: object) -> int:
    """Runs the emulated Python; returns its exit status."""
    environment = {
        **os.environ,
        "PYTHONHOME": str(folder / "root/usr"),
        "PYTHONPATH": f"{folder / 'site'}:{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CXX": compiler,
        "MNIST_BN_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    python = folder / "root/usr/bin/python3.11"
    line = ["qemu-aarch64-static", "-L", folder / "root", python, *words]
    return subprocess.run(list(map(str, line)), cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    """Returns 1 if anything is not as on this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for what is unpacked, half a gigabyte")
    parser.add_argument("--tests", action="store_true", help="also a sample of the kernels' tests")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    prepare(folder)
    failed = 0
    for name, compiler in COMPILERS.items():
        print(f"{name}: {compiler}", flush=True)
        failed += emulated(folder, compiler, ROOT / "tests/campaigns/arm_values.py") != 0
    if arguments.tests:
        tests = [ROOT / "tests/kernels" / name for name in SAMPLE]
        options = ("-q", "-p", "no:cacheprovider", "--timeout", "3000")
        failed += emulated(folder, COMPILERS["GCC"], "-m", "pytest", *options, *tests) != 0
    print("failed" if failed else "all as on this machine")
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
