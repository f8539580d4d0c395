"""The pooled features of a job, computed after training or later from its stored networks."""

from __future__ import annotations

from safetensors.torch import load_file

from ensemble_kit.arrays import Array
from ensemble_kit.members.jobs import fold_files as checkpoint
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.job_rows import Parts
from ensemble_kit.members.training.fit import Fit


def wants_features(job: Job) -> bool:
    """Whether a job stores features; jobs of pairs of folds do not."""
    return job.keep_features and isinstance(job.fold, int)


def lacks_features(job: Job) -> bool:
    """Whether a fold is done without the features that are requested now."""
    record = checkpoint.read_record(job.folder)
    return record is not None and wants_features(job) and checkpoint.FEATURES not in record["files"]


def features_by(fit: Fit, parts: Parts) -> tuple[Array, Array]:
    """Features of the held-out rows and of the test rows, (n_rows, n_features) each."""
    return fit.features(parts.held_out), fit.features(parts.test)


def features_of_finished(job: Job) -> dict[str, tuple[Array, Array]]:
    """Features of a finished job, by the name of the checkpoint, from its stored networks."""
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
