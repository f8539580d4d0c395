"""The pooled features that a job keeps: when it trains, or later from the networks that it stored.

Computes; where they are written is `checkpoint`'s affair.
"""

from __future__ import annotations

from safetensors.torch import load_file

from ensemble_kit.arrays import Array
from ensemble_kit.members.jobs import fold_files as checkpoint
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.job_rows import Parts
from ensemble_kit.members.training.fit import Fit


def wants_features(job: Job) -> bool:
    """Whether a job keeps features: those of a fold, since pairs of folds serve the strict answer."""
    return job.keep_features and isinstance(job.fold, int)


def lacks_features(job: Job) -> bool:
    """Whether a fold is done, and features are wanted that it did not keep."""
    record = checkpoint.read_record(job.folder)
    return record is not None and wants_features(job) and checkpoint.FEATURES not in record["files"]


def features_by(fit: Fit, parts: Parts) -> tuple[Array, Array]:
    """Features of the kept fold's rows and of the test rows, (n_rows, n_features) each."""
    return fit.features(parts.held_out), fit.features(parts.test)


def features_of_finished(job: Job) -> dict[str, tuple[Array, Array]]:
    """Those of a finished job, by the name of the weights, from its stored networks.

    Nothing is trained, and first weights that were downloaded then are not needed now.
    """
    plain = job.member.model_copy(update={"pretrained": False, "weights": None})
    fit = Fit.start(
        plain,
        job.tiles,
        job.manifest.n_classes,
        device=job.device,
        precision="fp32",
        seed=job.model_seed,
        eval_tiles=job.eval_tiles,
    )
    parts, out = job.parts(), {}
    for name in ("", *job.member.recipe.extra_checkpoints):
        fit.model.load_state_dict(load_file(job.folder / name / checkpoint.WEIGHTS))
        out[name] = features_by(fit, parts)
    return out
