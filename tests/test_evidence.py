"""Evidence: what of finished runs is kept, and that the published tables are made from it."""

import json
import shutil
from pathlib import Path

import pytest

from mnist_bn import evidence, studies
from mnist_bn.plotting import claims, partition, pasting
from mnist_bn.plotting.results import read_runs
from tests.helpers import write_result_folder

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "evidence"
PAGES = [ROOT / "REPRODUCTION.md", *sorted(ROOT.glob("docs/studies/*.md"))]
BEGIN = "<!-- begin "


def write_run(folder, epochs=2, **settings):
    args = {"model": "Net", "optimizer": "SGD", "epoch": 2, "observe": "probe", **settings}
    log = [{"epoch": n + 1, "validation/main/accuracy": 0.5} for n in range(epochs)]
    write_result_folder(folder, args, log)
    for name in ("probe.npz", "model.npz", "snapshot_iter_2", "accuracy.png"):
        (folder / name).write_bytes(name.encode())
    return folder


def judged(kept):
    """What the runs in a folder say of their study's claims, by the name of the part of them."""
    parts = partition.parts(read_runs([kept], note=pytest.fail), studies.has_preset)
    return {
        part.name: claims.find(studies.get(part.kind.study).CLAIMS, part.runs) for part in parts
    }


def test_settings_logs_and_measurements_are_kept(tmp_path, capsys):
    run = write_run(tmp_path / "result/blog/Net-SGD-s0")
    (run.parent / "measured.npz").write_bytes(b"of the study")
    target = tmp_path / "evidence"
    for _ in range(2):
        assert evidence.main([str(tmp_path / "result/blog"), str(target)]) == 0
        assert "Kept 1 run in" in capsys.readouterr().out
        kept = {path.relative_to(target).as_posix() for path in target.rglob("*.*")}
        assert kept == {"measured.npz", "Net-SGD-s0/probe.npz"}
        for name in ("args", "log", "probe.npz"):
            assert (target / "Net-SGD-s0" / name).read_bytes() == (run / name).read_bytes()


def test_paths_are_kept_without_the_folders_above(tmp_path, capsys):
    run = write_run(tmp_path / "result/blog/Net-SGD-s0")
    settings = json.loads((run / "args").read_text())
    given = {"out": str(tmp_path / "result/blog"), "data_dir": "/home/me/my data", "seed": 0}
    command = f"python train_mnist.py --data-dir '/home/me/my data' --out {tmp_path / 'result'}"
    (run / "args").write_text(json.dumps({**settings, **given, "command": command}))
    assert evidence.main([str(tmp_path / "result/blog"), str(tmp_path / "evidence")]) == 0
    kept = json.loads((tmp_path / "evidence/Net-SGD-s0/args").read_text())
    expected = {"out": "blog", "data_dir": "my data", "seed": 0}
    command = "python train_mnist.py --data-dir 'my data' --out result"
    assert kept == {**settings, **expected, "command": command}


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        ({"epochs": 1}, "not finished (epoch 1 of 2)"),
        ({"changed": True}, "made by code that was changed since its revision"),
    ],
)
def test_other_runs_are_left_out_and_named(tmp_path, capsys, difference, reason):
    write_run(tmp_path / "result/good")
    bad = write_run(tmp_path / "result/bad", **difference)
    if "epochs" in difference:
        (bad / "model.npz").unlink()
    assert evidence.main([str(tmp_path / "result"), str(tmp_path / "evidence")]) == 0
    words = " ".join(capsys.readouterr().err.split())
    assert "result/bad" in words
    assert reason in words
    assert [path.name for path in (tmp_path / "evidence").iterdir()] == ["good"]


def test_a_folder_without_a_finished_run_is_refused(tmp_path, capsys):
    (tmp_path / "result").mkdir()
    assert evidence.main([str(tmp_path / "result"), str(tmp_path / "evidence")]) == 1
    assert "no finished run in it" in capsys.readouterr().err
    assert evidence.main([str(tmp_path / "none"), str(tmp_path / "evidence")]) == 2


def test_a_large_file_is_refused(tmp_path, capsys):
    run = write_run(tmp_path / "result/run")
    (run / "probe.npz").write_bytes(bytes(evidence.MAX_BYTES + 1))
    assert evidence.main([str(tmp_path / "result"), str(tmp_path / "evidence")]) == 1
    assert "probe.npz" in capsys.readouterr().err


def places(page):
    """The names of the tables that a page has a place for."""
    return {line.split()[2] for line in page.read_text().splitlines() if line.startswith(BEGIN)}


def test_the_published_verdicts_are_those_of_the_evidence(tmp_path):
    findings = {}
    for study in sorted(path.name for path in KEPT.iterdir()):
        findings |= judged(KEPT / study)
    made = {"claims.md": claims.summary(findings)}
    for name, found in findings.items():
        made |= {f"{name}/claims.md": claims.table(found)}
        made |= {f"{name}/cases.md": claims.table_of_cases(found)}
    pasted = set()
    for page in PAGES:
        if not places(page) & set(made):
            continue
        copy = tmp_path / page.name
        shutil.copy(page, copy)
        pasted |= set(pasting.paste(made, copy))
        assert copy.read_text() == page.read_text(), page
    assert pasted >= {
        "claims.md",
        "blog-2016/cases.md",
        *(f"{name}/claims.md" for name in findings),
    }


def test_a_changed_log_turns_a_verdict(tmp_path):
    study = tmp_path / "exercise"
    shutil.copytree(KEPT / "exercise", study)
    before = judged(study)
    (log,) = study.glob("ExerciseMLP_BN-SGD-*-s0/log")
    entries = json.loads(log.read_text())
    entries[-1]["validation/main/accuracy"] = 0.7  # the claim: above 0.75
    log.write_text(json.dumps(entries))
    after = judged(study)
    verdicts = [made["exercise"][0].verdict for made in (before, after)]
    assert verdicts == ["confirmed", "partly"]
    assert claims.summary(before) != claims.summary(after)


def test_evidence_says_nothing_of_where_it_was_made():
    for args in KEPT.rglob("args"):
        settings = json.loads(args.read_text())
        assert not Path(settings["out"]).is_absolute(), args
        assert settings["command"].startswith("python train_mnist.py "), args
        assert settings["revision"], args
        assert settings["changed"] is False, args
