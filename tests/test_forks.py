"""Work in forked copies of this process."""

import os
import warnings

import pytest

from mnist_bn import forks
from mnist_bn.errors import UserError


@pytest.fixture(params=[1, 3])
def cores(request, monkeypatch):
    monkeypatch.setattr(forks, "cpu_count", lambda: request.param)
    return request.param


def test_all_work_is_done_when_the_block_ends(cores, tmp_path):
    with forks.side_by_side() as copies:
        for n in range(8):
            copies.do(lambda n=n: (tmp_path / str(n)).write_text(str(os.getpid())))
    processes = {(tmp_path / str(n)).read_text() for n in range(8)}
    assert (processes == {str(os.getpid())}) == (cores == 1)


def test_an_error_is_the_blocks_own(cores, tmp_path):
    def fail():
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"), forks.side_by_side() as copies:
        copies.do(lambda: (tmp_path / "first").touch())
        copies.do(fail)
    assert (tmp_path / "first").exists()


def test_a_copy_that_is_killed_is_made_up_for(tmp_path, monkeypatch):
    monkeypatch.setattr(forks, "cpu_count", lambda: 2)
    here = os.getpid()

    def work():
        if os.getpid() != here:
            os.kill(os.getpid(), 9)
        (tmp_path / "done").touch()

    with forks.side_by_side() as copies:
        copies.do(work)
    assert (tmp_path / "done").exists()


def test_a_warning_is_given_here(tmp_path, monkeypatch):
    monkeypatch.setattr(forks, "cpu_count", lambda: 2)
    with pytest.warns(UserWarning, match="no such letter"), forks.side_by_side() as copies:
        copies.do(lambda: warnings.warn("no such letter", stacklevel=1))
