"""BN before and after the ReLU at the best rates: which rates those are, and what is compared."""

from pathlib import Path

import pytest

from mnist_bn import studies
from mnist_bn.plotting import claims
from mnist_bn.plotting.results import read_runs
from mnist_bn.studies import best_rate
from tests.studies.test_claims import found, write_run

EVIDENCE = Path(__file__).parents[2] / "evidence" / "best-rate"
BEFORE, AFTER = best_rate.NETWORKS


@pytest.fixture(scope="module")
def kept():
    return read_runs([EVIDENCE], pytest.fail)


@pytest.mark.parametrize("optimizer", best_rate.OPTIMIZERS)
def test_the_best_rates_are_those_of_the_evidence(kept, optimizer):
    for network, rate in zip(best_rate.NETWORKS, best_rate.BEST[optimizer], strict=True):
        tried = best_rate.after_an_epoch(kept, optimizer, network)
        assert set(tried) <= set(best_rate.rates(optimizer)) and len(tried) >= 3
        assert best_rate.best(kept, optimizer, network) == rate


def test_the_presets_train_at_the_rates():
    full = studies.configs(best_rate, "full", {"dataset": "mnist"})
    assert len(full) == 2 * 3 * len(best_rate.OPTIMIZERS)
    for config in full:
        best = dict(zip(best_rate.NETWORKS, best_rate.BEST[config.optimizer], strict=True))
        assert config.lr == best[config.model] and config.epoch == best_rate.EPOCHS
    rates = studies.configs(best_rate, "rates", {"dataset": "mnist"})
    assert len(rates) == 2 * 6 * len(best_rate.OPTIMIZERS)
    assert {config.epoch for config in rates} == {1}


def test_each_is_compared_at_its_own_best_rate(tmp_path):
    before, after = best_rate.BEST["SGD"]
    for seed, lead in enumerate((0.01, 0.011, 0.012)):
        write_run(tmp_path / f"b{seed}", BEFORE, [0.9] * 4 + [0.95 + lead], seed, lr=before)
        write_run(tmp_path / f"a{seed}", AFTER, [0.9] * 4 + [0.95], seed, lr=after)
    # At another rate, or shorter: not compared.
    write_run(tmp_path / "other", BEFORE, [0.1] * 5, 3, lr=7 * before)
    write_run(tmp_path / "short", AFTER, [0.1], 3, lr=after)
    told = found(best_rate, tmp_path)
    verdict, numbers = told["before beats after at the best rates"]
    assert verdict == "confirmed" and numbers["SGD"] == pytest.approx([0.01, 0.011, 0.012])
    assert told["the two differ by less than 0.002"][0] == "not seen"


def test_the_first_epoch_decides_which_rate_is_best(tmp_path):
    for lr, first, last in ((0.1, 0.8, 0.99), (0.3, 0.9, 0.91)):
        write_run(tmp_path / f"{lr}", BEFORE, [first, last], 0, lr=lr)
    write_run(tmp_path / "seed1", BEFORE, [0.99, 0.99], 1, lr=1.0)
    runs = read_runs([tmp_path], pytest.fail)
    assert best_rate.best(runs, "SGD", BEFORE) == 0.3
    assert best_rate.best(runs, "SGD", AFTER) is None


def test_the_evidence_draws_its_figure_and_table(kept):
    names = [name for name, _ in best_rate.figures(kept)]
    assert names == ["best-rate", "best-rate"]
    assert claims.find(best_rate.CLAIMS, kept)[0].numbers.keys() == set(best_rate.OPTIMIZERS)
