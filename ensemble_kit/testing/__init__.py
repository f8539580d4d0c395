"""For your tests: toy predictions, a toy run, and the checks of every combiner."""

from ensemble_kit.testing.laws import LAWS, check_combiner
from ensemble_kit.testing.toys import toy_logits, toy_predictions, toy_run

__all__ = ["LAWS", "check_combiner", "toy_logits", "toy_predictions", "toy_run"]
