"""Today's and 2016's meaning of evaluation.

On Chainer 1.12 a network had to be told that it is being tested, and the blog's networks never
were: their validation curves are train-mode, with dropout on, BN normalizing by the evaluation
batch (so that the numbers depend on its size) and running averages updated by test images. BN's
eps was 1e-5 there and is 2e-5 in Chainer 7.
"""

from __future__ import annotations

import chainer
import chainer.links as L
from chainer.training import extensions

EPS_2016 = 1e-5


def prepare(model: chainer.Link, semantics: str) -> None:
    """Sets what differs in the network itself: eps of each BN link, for "2016"."""
    if semantics == "2016":
        for link in model.links():
            if isinstance(link, L.BatchNormalization):
                link.eps = EPS_2016


class TrainModeEvaluator(extensions.Evaluator):
    """Evaluates as the blog's code did on Chainer 1.12: the network stays in train mode."""

    def evaluate(self) -> dict:
        with chainer.using_config("train", True):
            return super().evaluate()


EVALUATORS = {"today": extensions.Evaluator, "2016": TrainModeEvaluator}
