"""The settings of a member's jobs, `members/<member>/member.json`, so that any process can run one.

Opening a job reads the run's manifest and folds.
"""

from __future__ import annotations

from pathlib import Path

from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError, did_you_mean
from ensemble_kit.files import cache_folder
from ensemble_kit.folds.fold_key import LeftOut, read_left_out
from ensemble_kit.images.augmentation.color_space import color_channels
from ensemble_kit.images.tiles.build import build_tile_sets
from ensemble_kit.members.jobs.choose_precision import settled, with_settled_precision
from ensemble_kit.members.jobs.job import CROP, Job
from ensemble_kit.members.jobs.status import SPEC, read_spec
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.flops import member_cost
from ensemble_kit.members.training.precision import choose_device
from ensemble_kit.members.training.predict import views_of
from ensemble_kit.run import Run


def write_spec(
    job: Job,
    cache: Path | None = None,
    *,
    nested: bool = False,
    device: str | None = None,
    requested: str = "auto",
) -> None:
    """Write the settings that `open_job` needs for every fold of this job's member.

    Parameters
    ----------
    nested : bool
        Pairs of folds are planned too. Once true, it stays true.
    device : str, optional
        Device name, resolved on the machine that runs the job. Default: the job's own device.
    requested : str
        Requested precision. With `auto`, the precision of this job holds for all folds.
    """
    path = job.run.member_dir(job.member.name) / SPEC
    write_checked(
        path,
        {
            "schema_version": 1,
            **_cost(job),
            "member": job.member.model_dump(mode="json"),
            "device": device or str(job.device),
            "precision": job.precision,
            "settled": _settled(job) if requested == "auto" else {},
            "seed": job.seed,
            "cache": str(cache) if cache else None,
            "keep_features": job.keep_features,
            "nested": nested or read_spec(job.run, job.member.name).get("nested", False),
        },
    )


def update_cost(job: Job) -> None:
    """Count the cost of the job's member again: earlier versions counted only parts of it."""
    path = job.run.member_dir(job.member.name) / SPEC
    about = read_spec(job.run, job.member.name)
    if about and about != (now := {**about, **_cost(job)}):
        write_checked(path, now)


def _cost(job: Job) -> dict[str, float]:
    """Parameters, and the GMACs of one prediction over all TTA views."""
    height, width, channels = (job.eval_tiles or job.tiles).pixels.shape[1:]
    seen = (height, width, color_channels(job.member.color, channels))
    cost = member_cost(job.member, job.manifest.n_classes, seen)
    n_passes = len(views_of(job.member.recipe.regularize.tta, is_square=height == width))
    return {"parameters": cost.parameters, "gmacs": round(n_passes * cost.macs / 1e9, 6)}


def _settled(job: Job) -> dict[str, str]:
    own = {} if job.precision == "auto" else {job.device.type: job.precision}
    return settled(job.run, job.member.name) | own


def open_job(run: Run, member: str, fold: LeftOut) -> Job:
    """One job of a planned run; `fold` may be a pair such as "0-2".

    The precision `auto` is resolved here, on the machine that trains, by the member's first job.

    Raises
    ------
    DataError
        The run has no such member or fold.
    """
    path = run.member_dir(member) / SPEC
    if not path.is_file():
        planned = [p.parent.name for p in (run.path / "members").glob(f"*/{SPEC}")]
        raise DataError(
            f"'{run.path}' has no member '{member}'",
            "only planned members have jobs",
            did_you_mean(member, planned)
            if planned
            else "Plan it first: ensemble-kit train-members",
        )
    spec = read_spec(run, member)
    settings = Member(**spec["member"])
    if settings.name != member:
        raise DataError(
            f"'{member}' has no job of its own: the job of '{settings.name}' trains it too",
            "a job belongs to the member that is trained",
            f"Run the job of '{settings.name}'",
        )
    manifest, folds = run.manifest(), run.folds()
    left_out = read_left_out(str(fold), folds.n_splits)
    cache = Path(spec["cache"]) if spec["cache"] else cache_folder()
    trained_on, evaluated_on = settings.tile_spec, settings.eval_spec
    tiles = build_tile_sets(manifest, [trained_on, evaluated_on], cache_dir=cache, crop=CROP)
    job = Job(
        run=run,
        member=settings,
        fold=left_out,
        manifest=manifest,
        folds=folds,
        tiles=tiles[trained_on],
        device=choose_device(spec["device"]),
        precision=spec["precision"],
        seed=spec["seed"],
        eval_tiles=None if evaluated_on == trained_on else tiles[evaluated_on],
        keep_features=spec.get("keep_features", False),
    )
    return with_settled_precision(job)
