"""Going on from a snapshot: which one, whether it is of this run, and how a run begins with it."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from pathlib import Path

from chainer.training import Trainer

from mnist_bn import observers
from mnist_bn.config import LENGTHS, RunConfig
from mnist_bn.errors import UsageError, UserError
from mnist_bn.preparation import PreparedRun
from mnist_bn.storage import files, result_folder, snapshots
from mnist_bn.storage.identity import difference
from mnist_bn.storage.snapshots import Snapshot
from mnist_bn.terminal import wording
from mnist_bn.trainer import schedule


class OtherRunError(UsageError):
    """A snapshot is of another run, or of one with other settings."""


def find(run: PreparedRun, resume: Path | None, autoload: bool) -> Snapshot | None:
    """Returns the snapshot that was asked for, read and of this run; None: none, or none there.

    Args:
        resume: its file; before `autoload`.
        autoload: the newest usable one in the run's folder.

    Raises:
        UserError: it cannot be read, or is of another run.
    """
    if resume is not None:
        snapshot = snapshots.read(resume)
        check_same_run(snapshot, run.identity)
        return snapshot
    if not autoload or not snapshots.found(run.folder):
        return None
    has_args = os.path.lexists(run.folder / result_folder.ARGS)
    args = result_folder.read_args(run.folder) if has_args else None
    return newest_usable(run.folder, run.identity, args)


def newest_usable(folder: Path, identity: dict, args: dict | None = None) -> Snapshot | None:
    """Returns the newest snapshot in a folder that is whole and of this run, None for no snapshot.

    Newer ones that are not are set aside: renamed, with a line on stderr. If none is usable, all
    stay as they are.

    Args:
        args: the folder's; only snapshots of the run that they name are usable. None: it has none.

    Raises:
        OtherRunError: the first of them that is whole is of another run or has other settings, and
            none is of this run.
        UserError: there are snapshots, and none is usable.
    """
    refused: list[tuple[Path, UserError]] = []
    for path in snapshots.found(folder):
        try:
            snapshot = snapshots.read(path)
            check_same_run(snapshot, identity)
            _check_same_id(snapshot, args)
        except UserError as error:
            refused.append((path, error))
            continue
        for bad, reason in refused:
            _set_aside(bad, reason, path)
        return snapshot
    for _, reason in refused:
        if isinstance(reason, OtherRunError):
            raise reason
    if refused:
        reasons = "; ".join(str(reason) for _, reason in refused)
        raise UserError(
            f"no usable snapshot ({reasons}): put a good one there, or remove {folder} to "
            "train anew"
        )
    return None


def check_same_run(snapshot: Snapshot, identity: dict) -> None:
    """Checks that the snapshot's run had the same settings, but for its length.

    Raises:
        OtherRunError: one differs; the line names it.
    """
    before = snapshot.header["identity"]
    if other := difference(before, identity):
        raise OtherRunError(
            f"{snapshot.path} was taken with {other}: resume with the same settings (only --epoch "
            "or --iteration may differ)"
        )
    # The numbers of --lr-drop count what the run's length does.
    was, now = ("iteration" if one.get("iteration") else "epoch" for one in (before, identity))
    if identity.get("lr_drop") is not None and was != now:
        raise OtherRunError(
            f"{snapshot.path} was taken with --lr-drop in {was}s, not {now}s: resume with --{was}"
        )


def _check_same_id(snapshot: Snapshot, args: dict | None) -> None:
    """Checks that the snapshot is of the run that `args` beside it names, if there is one."""
    if args is not None and snapshot.header.get("run_id") != args.get("run_id"):
        raise OtherRunError(
            f"{snapshot.path} is of another run than `args` beside it: to go on with that one, "
            "name it with --resume"
        )


def _set_aside(path: Path, reason: UserError, used: Path) -> None:
    # Beside what was set aside under this name before.
    names = (f"{path.name}.refused{number or ''}" for number in itertools.count())
    aside = next(path.with_name(n) for n in names if not os.path.lexists(path.with_name(n)))
    try:
        path.replace(aside)
    except OSError as error:
        raise files.CannotWriteError(aside, error) from error
    note = f"note: {reason}; set aside as {aside.name}, going on from {used.name}"
    wording.say(note, file=sys.stderr)


def load(snapshot: Snapshot, trainer: Trainer, run: PreparedRun) -> None:
    """Brings the trainer to the snapshot.

    Raises:
        UserError: it does not fit the trainer, or is beyond the run's end.
    """
    snapshots.load(snapshot, trainer)
    config, updater = run.config, trainer.updater
    length, unit = schedule.length(config)
    # Epochs are counted when they end, and their last batch may reach into the next.
    is_within = unit == "epoch" and not updater.is_new_epoch
    if getattr(updater, unit) + is_within > length:
        reached = f"{updater.epoch_detail:.2f}" if unit == "epoch" else updater.iteration
        raise UsageError(f"{snapshot.path} is of {unit} {reached}: --{unit} must not be below that")
    diverged_at = trainer.get_extension("Divergence").diverged_at
    has_trained_on = diverged_at is not None and diverged_at["iteration"] < updater.iteration
    if has_trained_on and config.on_divergence != "continue":
        raise UsageError(
            f"{snapshot.path} is of a run that diverged at iteration {diverged_at['iteration']} "
            "and trained on: resume with --on-divergence continue"
        )
    _note_other_circumstances(snapshot, run.circumstances)
    _note_evaluation_for_the_end(snapshot, trainer, config)
    trainer.get_extension("Checkpoint").resumed_from = snapshot


def _note_other_circumstances(snapshot: Snapshot, now: dict) -> None:
    """Says on stderr if the run goes on elsewhere: its numbers are then not quite the same."""
    before = {"convolution": "direct", **snapshot.header["circumstances"]}  # an earlier version
    before = _with_mended_chainer(before, now)
    changed = [
        f"{key} {before.get(key)}, now {now[key]}" for key in now if before.get(key) != now[key]
    ]
    if changed:
        wording.say(
            f"note: {snapshot.path} was taken with {'; '.join(changed)}: from here on the numbers "
            "differ in rounding from a run that was never stopped",
            file=sys.stderr,
        )


def _with_mended_chainer(before: dict, now: dict) -> dict:
    """Gives the Chainer of an earlier version's snapshot today's label: no mend changes a number.

    Earlier labels are none, and others of `chainer-build/mends.py`.
    """
    chainer, versions = now["versions"]["chainer"], before.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    number, _, label = str(versions.get("chainer")).partition("+")
    if number != chainer.partition("+")[0] or not (label == "" or label.startswith("mended.")):
        return before
    return {**before, "versions": {**versions, "chainer": chainer}}


def _note_evaluation_for_the_end(snapshot: Snapshot, trainer: Trainer, config: RunConfig) -> None:
    """Says on stderr if an evaluation at the end of a shorter run stays in the log.

    So of a snapshot by an earlier version; those of today are taken before it.
    """
    before = {unit: snapshot.header["identity"].get(unit) for unit in LENGTHS}
    is_longer = not schedule.is_at_end(trainer, config)
    shorter = dataclasses.replace(config, **before)
    is_evaluated = snapshot.header["observation"] is None
    if is_longer and is_evaluated and schedule.is_evaluation_for_the_end(trainer, shorter):
        wording.say(
            f"note: {snapshot.path} was taken after an evaluation that a longer run does not make: "
            "its entry stays in the log",
            file=sys.stderr,
        )


def begin(trainer: Trainer, run: PreparedRun, snapshot: Snapshot | None) -> None:
    """Writes the first files of a run, or those that say how it goes on."""
    folder = run.folder
    checkpoint = trainer.get_extension("Checkpoint")
    goes_on = snapshot is not None and _is_of_run_in(folder, snapshot)
    if snapshot is not None and goes_on:
        checkpoint.run = checkpoint.run._replace(run_id=snapshot.header.get("run_id"))
        # It is not finished any more, which model.npz says first. What it had measured, its
        # snapshot has too.
        measured = (f"{name}.npz" for name in run.config.observed)
        for name in (result_folder.MODEL, result_folder.ERROR, *measured):
            files.remove(folder / name)
    else:
        begins = "training anew" if snapshot is None else f"going on from {snapshot.path}"
        result_folder.make_room(folder, begins, observers.file_names())
    run_id = checkpoint.run.run_id
    files.write_json(folder / result_folder.ARGS, {**run.to_args(), "run_id": run_id})
    if snapshot is None:
        return
    if not goes_on:
        snapshots.save(snapshots.path_of(trainer), snapshots.with_run_id(snapshot, run_id))
    # The run may have been killed before or after it wrote its log: the snapshot's is what counts.
    trainer.get_extension("LogReport").write(trainer)


def _is_of_run_in(folder: Path, snapshot: Snapshot) -> bool:
    """Tells whether the snapshot lies in the folder and is of the run that the folder is of."""
    if snapshot.path.resolve().parent != folder.resolve():
        return False
    if not os.path.lexists(folder / result_folder.ARGS):
        return True
    return result_folder.read_args(folder).get("run_id") == snapshot.header.get("run_id")
