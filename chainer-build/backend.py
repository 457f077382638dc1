"""Builds the wheel of Chainer 7.8.1: what `./chainer-build` in requirements.txt runs (PEP 517).

Chainer is published as source only, and its build imports `pkg_resources`, which is gone from
setuptools 82. No line of a requirements file can choose the setuptools of another package's build;
a project of our own can, in its pyproject.toml. So this one builds Chainer, from the published
source with the known hash, mended for today's libraries (`mends`), in the environment that pip (or
uv) has made for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import mends

REQUIREMENT = (
    "chainer==7.8.1"
    " --hash=sha256:179f06176f8d7a42385bc7811956db04e68213cfe30f5081491b9e2b6ff70de8\n"
)

BUILD_FAILED = "subprocess-exited-with-error"  # in pip's words

# pip's settings that say where packages come from. The others (constraints, targets, hashes of
# other packages, ...) are meant for the pip that called us and would mislead the one we call.
KEPT_PIP_SETTINGS = {
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_ISOLATED",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_CACHE_DIR",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_RETRIES",
    "PIP_TIMEOUT",
    "PIP_TRUSTED_HOST",
}


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    """Builds the wheel into `wheel_directory` and returns its file name.

    Raises:
        SystemExit: pip could not get or build it; the message is one line.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = _mended_source(Path(folder))
        _run_pip("wheel", "--no-index", "--wheel-dir", folder, str(source))
        (wheel,) = Path(folder).glob("chainer-*.whl")
        return Path(shutil.move(wheel, wheel_directory)).name


def _mended_source(folder: Path) -> Path:
    """Downloads the published source into `folder`; returns where it is, unpacked and mended."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT)
    source = ["--no-binary", "chainer", "--dest", str(folder)]
    _run_pip("download", *source, "--requirement", str(requirements))
    (archive,) = folder.glob("chainer-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python before 3.11.4
        tar.extractall(folder)
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    mends.apply(unpacked)
    return unpacked


def _run_pip(command: str, *arguments: str) -> None:
    """Runs a command of pip's that needs no other package.

    Raises:
        SystemExit: it failed; the message is one line.
    """
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    run = subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *arguments],
        env=environment_of_pip(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if run.returncode != 0:
        if BUILD_FAILED in run.stdout:  # then one line does not tell enough
            print(run.stdout)
        raise SystemExit(failure(run.stdout))
    print(run.stdout)


def build_sdist(sdist_directory, config_settings=None) -> str:
    """Refuses: there is nothing here that PyPI does not have.

    Raises:
        SystemExit: always.
    """
    raise SystemExit("chainer-build has no source archive: use `pip download chainer==7.8.1`")


def environment_of_pip(environment) -> dict[str, str]:
    """Returns `environment` for the pip that we call, without what was meant for our caller.

    That is also the variables by which the caller's pip tells its hooks (us) where the backend is:
    they would send the build of Chainer back to this file.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in KEPT_PIP_SETTINGS
        or not name.startswith(("PIP_", "_PIP_", "PEP517_", "_PYPROJECT_HOOKS_"))
    }


def failure(output: str) -> str:
    """Returns one line for the person at the keyboard, from the `output` of pip that failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
    reason = (errors or lines or ["pip said nothing"])[-1].removeprefix("ERROR: ")
    return (
        f"chainer-build: pip could not get or build chainer 7.8.1 ({reason}): "
        "check the network and pip's index; options of the command line do not reach this build, "
        "PIP_INDEX_URL and pip's configuration file do"
    )
