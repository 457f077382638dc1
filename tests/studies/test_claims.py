"""What the studies claim: verdicts by numbers, in the terminal, in a table, and in REPRODUCTION."""

import math

import numpy as np
import pytest

import plot_results
from mnist_bn import studies
from mnist_bn.errors import UserError
from mnist_bn.plotting import claims, pasting
from mnist_bn.plotting.claims import Claim
from mnist_bn.plotting.results import VALIDATION_ACCURACY, read_runs
from mnist_bn.studies import blog, dying_relu, exercise, learning_rate
from tests.helpers import write_result_folder

COLUMNS = 80


def write_run(folder, model, accuracies, seed=0, unit="epoch", every=1, **args):
    """A finished run with these validation accuracies, one every few epochs or steps."""
    args = {"model": model, "optimizer": "SGD", "seed": seed, "dataset": "mnist", **args}
    log = [
        {"main/loss": 0.1, "main/accuracy": value, VALIDATION_ACCURACY: value}
        | {"validation/main/loss": 0.1, "epoch": i}
        | {unit: every * i}
        for i, value in enumerate(accuracies, start=1)
    ]
    write_result_folder(folder, {"semantics": "today", **args}, log)
    (folder / "model.npz").touch()


def found(study, root):
    """Verdict and numbers of each claim of a study, by its words."""
    findings = claims.find(study.CLAIMS, read_runs([root], pytest.fail))
    return {one.claim.says: (one.verdict, one.numbers) for one in findings}


# Student's t for 1 and 2 degrees of freedom is 12.706 and 4.303 in the printed tables.
@pytest.mark.parametrize(
    ("numbers", "verdict", "text"),
    [
        ({"": [0.2, 0.25, 0.3]}, "confirmed", "0.25 (0.126 to 0.374)"),
        ({"": [0.2, 0.3]}, "open", "0.25 (-0.385 to 0.885)"),
        ({"a": [0.2], "b": [-0.5]}, "partly", "-0.15"),
        ({"a": [0.2, 0.2], "b": [0.1, 0.9]}, "partly", "0.35 (-2.19 to 2.89)"),
        ({"a": [0.2, 0.2], "b": [0.1]}, "confirmed", "0.1 to 0.2"),
        ({"": [0.0, 0.0]}, "not seen", "0"),  # the bound is not in
        ({"a": [0.0, 0.0], "b": [-1, 1]}, "not seen", "0 (-6.35 to 6.35)"),
        ({"": [-1.0, math.nan]}, "not seen", "-1"),
        ({"": [math.inf]}, "confirmed", "inf"),
        ({"": [1.0, math.inf]}, "confirmed", "inf"),
        ({"": [-1.0, math.inf]}, "open", "inf"),
        ({"": [math.nan]}, "open", ""),
        ({}, "open", ""),
    ],
)
def test_a_claim_holds_of_all_cases_of_some_of_none_or_is_open(numbers, verdict, text):
    (finding,) = claims.find([Claim("says", "what", lambda runs: numbers, above=0)], [])
    assert (finding.verdict, finding.text) == (verdict, text)


def test_the_tables_count_the_cases_and_list_them():
    numbers = {"a": [0.2, 0.21, 0.22], "b": [-0.2, -0.21, -0.22], "c": [-1.0, 1.0, 0.5]}
    findings = claims.find([Claim("it grows", "how much", lambda runs: numbers, above=0)], [])
    assert "| 1 of 3; 1 fails | 3 | partly |" in claims.table(findings)
    rows = claims.table_of_cases(findings).splitlines()[2:]
    assert [row.split(" | ")[-1] for row in rows] == ["holds |", "fails |", "undecided |"]
    assert rows[0] == "| it grows | a | 0.21 (0.185 to 0.235) | 3 | holds |"
    row = claims.summary({"blog": findings}).splitlines()[2]
    assert row.startswith("| blog | it grows | ")


def test_a_claim_between_two_bounds():
    claim = Claim("says", "what", None, above=0.01, below=0.015, is_robust=True)
    assert [claim.holds(x) for x in (0.01, 0.012, 0.015, 0.02)] == [False, True, False, False]
    assert claim.bounds == "above 0.01 and below 0.015 (robust)"
    (finding,) = claims.find([claim], [])
    assert finding.verdict == "open"  # nobody has said how to measure it


@pytest.mark.parametrize("name", studies.names())
def test_every_study_claims_something_that_fits_a_terminal(name):
    study = studies.get(name)
    assert study.CLAIMS
    said = [claim.says for claim in study.CLAIMS]
    assert len(set(said)) == len(said)
    numbers = {"a": [-0.00012345, 1234.5678]}
    findings = [claims.Finding(claim, numbers) for claim in study.CLAIMS]
    assert max(map(len, claims.in_lines(findings))) < COLUMNS
    # Without runs none is decided, and one line says so.
    (line,) = claims.in_lines(claims.find(study.CLAIMS, []))
    assert line == f"- open: {len(said)} of {len(said)} claims, which these runs do not decide"


def test_what_is_marked_robust_is_what_the_experiments_say_is():
    robust = {
        (name, claim.says, claim.above, claim.below)
        for name in studies.names()
        for claim in studies.get(name).CLAIMS
        if claim.is_robust
    }
    assert robust == {
        ("blog", "any BN beats none under SGD", 0, math.inf),
        ("exercise", "with BN above 0.75", 0.75, math.inf),
        ("exercise", "without BN it hardly learns: below 0.30", -math.inf, 0.3),
        ("dying-relu", "no dead unit with BN", -math.inf, 1),
        ("understanding-bn", "moments grow with depth as it diverges", 0, math.inf),
    }


def test_bn_against_none_seed_by_seed(tmp_path):
    ends = {"MnistCNN": (0.90, 0.901, 0.902), "MnistCNN_BN_before": (0.95, 0.951, 0.951)}
    ends["MnistCNN_BN_after"] = (0.94, 0.945, 0.955)
    for model, accuracies in ends.items():
        for seed, accuracy in enumerate(accuracies):
            write_run(tmp_path / f"{model}{seed}", model, [0.5, accuracy], seed)
    told = found(blog, tmp_path)
    verdict, numbers = told["any BN beats none under SGD"]
    assert verdict == "confirmed"
    assert numbers["MnistCNN_BN_before"] == pytest.approx([0.05, 0.05, 0.049])
    verdict, numbers = told["before is slightly better than after"]
    assert verdict == "open"  # ahead with two seeds of three
    assert next(iter(numbers.values())) == pytest.approx([0.01, 0.006, -0.004])
    assert told["SGD gains most"][0] == "open"
    # In train mode nothing robust is known, and other seeds than its own are no pair.
    (tmp_path / "more").mkdir()
    write_run(tmp_path / "more" / "a", "MnistCNN", [0.5], 0, semantics="2016")
    write_run(tmp_path / "more" / "b", "MnistCNN_BN_before", [0.6], 1, semantics="2016")
    told = found(blog, tmp_path / "more")
    assert {verdict for verdict, _ in told.values()} == {"open"}


def test_sgd_gains_most(tmp_path):
    for optimizer, gain in (("SGD", 0.05), ("Adam", 0.01), ("AdaGrad", 0.02)):
        for model in ("MnistCNN", "MnistCNN_BN_after"):
            accuracy = 0.9 + gain * (model != "MnistCNN")
            write_run(tmp_path / f"{optimizer}{model}", model, [accuracy], optimizer=optimizer)
    assert found(blog, tmp_path)["SGD gains most"] == ("confirmed", {"": [pytest.approx(0.03)]})


@pytest.mark.parametrize(
    ("steps", "verdicts"), [(100, ("confirmed", "not seen")), (50, ("open",) * 2)]
)
def test_the_exercise_is_judged_after_its_1000_steps_only(tmp_path, steps, verdicts):
    for model, ends in (
        ("ExerciseMLP", (0.32, 0.321, 0.322)),
        ("ExerciseMLP_BN", (0.81, 0.815, 0.82)),
    ):
        for seed, end in enumerate(ends):
            log = np.linspace(0.1, end, steps)
            folder = tmp_path / f"{model}{seed}"
            write_run(folder, model, log, seed, "iteration", 10, evaluate_every=10)
    told = list(found(exercise, tmp_path).values())
    assert tuple(verdict for verdict, _ in told[:2]) == verdicts


def test_a_run_that_is_not_finished_says_nothing(tmp_path):
    for model in ("MnistCNN", "MnistCNN_BN_before"):
        write_run(tmp_path / model, model, [0.5, 0.6], epoch=9)
        (tmp_path / model / "model.npz").unlink()
    assert {verdict for verdict, _ in found(blog, tmp_path).values()} == {"open"}


def test_dead_units_with_bn(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"{seed}", "ReluMLP_BN", [0.9] * 3, seed, batchsize=100)
        flat = np.zeros((3, 8), bool)
        flat[:, :seed] = True
        times = {"epoch": np.arange(1, 4), "iteration": np.arange(1, 4)}
        np.savez(tmp_path / f"{seed}" / "dead-units.npz", **times, **{"flat_update/l1": flat})
    told = found(dying_relu, tmp_path)
    assert told["no dead unit with BN"] == ("open", {"ReluMLP_BN, batch 100": [0, 1]})
    assert told["test accuracy is about 98 %"][0] == "open"  # after 3 epochs


def test_rates_that_train(tmp_path):
    for model, largest in (("MnistCNN", 0.1), ("MnistCNN_BN_before", 1.0)):
        for lr in (0.1, 1.0, 10.0):
            end = 0.95 if lr <= largest else 0.1
            lost = {} if lr < 10 else {"lr": lr}
            write_run(tmp_path / f"{model}{lr}", model, [end], **{"lr": lr, **lost})
    told = found(learning_rate, tmp_path)
    assert told["BN trains at higher rates"] == ("confirmed", {"MnistCNN_BN_before": [10]})
    assert told["with BN it does not diverge"] == ("confirmed", {"MnistCNN_BN_before": [0]})
    assert told["BN trains faster at equal rates"][0] == "not seen"  # equally fast


MARKED = """# Claims

<!-- begin exercise/claims.md -->
what was there
<!-- end exercise/claims.md -->

In between.
<!-- begin blog/claims.md -->
<!-- end blog/claims.md -->
"""


@pytest.fixture
def exercise_runs(tmp_path):
    for model, end in (("ExerciseMLP", 0.2), ("ExerciseMLP_BN", 0.8)):
        log = np.linspace(0.1, end, 100)
        folder = tmp_path / "result" / model
        write_run(folder, model, log, 0, "iteration", 10, study="exercise", evaluate_every=10)
    return tmp_path / "result"


def test_the_command_tells_the_claims_and_pastes_their_table(exercise_runs, tmp_path, capsys):
    page = tmp_path / "REPRODUCTION.md"
    page.write_text(MARKED)
    assert plot_results.main([str(exercise_runs), "--paste", str(page)]) == 0
    out = capsys.readouterr().out
    assert "- confirmed: with BN above 0.75: 0.8\n" in out
    assert "- open: 1 of 3 claims" in out
    assert f"Pasted into {page}: exercise/claims.md" in out
    table = (exercise_runs / "figures" / "claims.md").read_text()
    assert "| above 0.75 (robust) | 0.8 |  | 1 | confirmed |" in table
    assert page.read_text() == MARKED.replace("what was there", f"\n{table}")
    # Again, the same page.
    before = page.stat().st_mtime_ns
    assert plot_results.main([str(exercise_runs), "--paste", str(page)]) == 0
    assert page.stat().st_mtime_ns == before


def test_a_page_without_a_place_is_left_as_it_is(exercise_runs, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- begin exercise/claims.md -->\nNo end.\n")
    assert plot_results.main([str(exercise_runs), "--paste", str(page)]) == 1
    err = capsys.readouterr().err
    assert "it has no place for exercise/claims.md or exercise/table.md: expected the line" in err
    assert page.read_text() == "<!-- begin exercise/claims.md -->\nNo end.\n"


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_page_that_is_none_is_one_line(tmp_path, content):
    page = tmp_path / "page.md"
    if content is not None:
        page.write_bytes(content)
    with pytest.raises(UserError, match=r"page\.md: "):
        pasting.paste({"a/b.md": "text"}, page)
