"""Reading `experiment.toml`: settings, variants, steps, and the reduced size of a quick run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ensemble_kit.errors import DataError, did_you_mean, first_few
from ensemble_kit.experiment import Experiment, load_experiment
from ensemble_kit.files import read_toml
from ensemble_kit.members.registry import expand
from ensemble_kit.members.spec_string import read_short_form
from ensemble_kit.reproduce.matrix import Variant, refuse_equal, variants
from ensemble_kit.reproduce.steps import STEPS
from ensemble_kit.settings import Settings, merged

FILE = "experiment.toml"
OWN_DATA = "DATA"


class Published(Settings):
    """One published accuracy: the printed value, the number of test images, and the source.

    `variant` and `method` name our corresponding result, if there is one. `says` is a remark on the
    value from the publication's code or counts.
    """

    value: str
    images: int | None = Field(None, ge=1)
    source: str = ""
    variant: str = ""
    method: str = ""
    says: str = ""


class Expected(Settings):
    """Numbers of images in the published data: in total, in the test part, and by class."""

    images: int | None = None
    test: int | None = None
    classes: dict[str, int] = Field(default_factory=dict)


class Phantom(Settings):
    """The synthetic data of a quick run."""

    layout: Literal["bci", "folders", "breakhis"] = "bci"
    n_patients: int = 24
    images_per_patient: int = 4
    image_size: int = Field(64, ge=32)
    seed: int = 0


class Quick(Settings):
    """The changes of `--quick`: the variants to run, and settings that override all others.

    `phantom_settings` apply to synthetic data only.
    """

    variants: tuple[str, ...] = ()
    phantom: Phantom = Phantom()
    settings: dict[str, Any] = Field(default_factory=dict)
    phantom_settings: dict[str, Any] = Field(default_factory=dict)


class ExperimentFile(Settings):
    """The keys of `experiment.toml` in addition to those of `ensemble-kit.toml`.

    Variants can also have the key `arguments`: a table of words to append to the command of a step.
    """

    title: str = Field(min_length=1)
    steps: tuple[str, ...] = ("check", "train", "stack", "report")
    crossed: tuple[tuple[str, ...], ...] = ()
    published: tuple[Published, ...] = ()
    expected: Expected = Expected()
    matrix: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    quick: Quick = Quick()


@dataclasses.dataclass(frozen=True)
class Planned:
    """A variant with its checked settings and the folder of its run."""

    variant: Variant
    experiment: Experiment
    arguments: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        return self.variant.name


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of one call of `reproduce`.

    Parameters
    ----------
    name : str
        The folder's name.
    out : Path
        The output folder of RESULTS.md, figures and runs.
    file : ExperimentFile
    variants : tuple of Planned
        The first variant is the baseline of the comparisons.
    is_quick, is_phantom : bool
    """

    name: str
    out: Path
    file: ExperimentFile
    variants: tuple[Planned, ...]
    is_quick: bool
    is_phantom: bool

    @property
    def runs(self) -> Path:
        """The folder of the variants' runs."""
        return self.out / "runs"


def read_plan(
    folder: Path,
    *,
    data: str | None = None,
    quick: bool = False,
    phantom: Path | None = None,
    over: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan of the experiment in `folder`.

    Parameters
    ----------
    folder : Path
        The folder of `experiment.toml`.
    data : str, optional
        The images. Overrides `data.path`.
    quick : bool
        Whether to reduce image sizes, epochs and variants.
    phantom : Path, optional
        The folder of synthetic data for a quick run without `data`.
    over : mapping, optional
        Settings that override all others.

    Raises
    ------
    DataError
        The file is missing, or has an unknown key, step, axis or variant. Or a full run has no data.
    """
    file, settings = _read(folder)
    is_phantom = quick and data is None
    path = data or (str(phantom) if is_phantom and phantom else settings["data"]["path"])
    if path == OWN_DATA:
        raise DataError(
            f"'{folder / FILE}' needs images, and --data is missing",
            "the images are not part of this repository",
            f"Set --data to their folder (see {folder / 'README.md'}), or use --quick",
        )
    overrides: Mapping[str, Any] = {"data": {"path": path}}
    out = folder
    if quick:
        overrides = merged(file.quick.settings, overrides)
        out = folder / ("quick" if is_phantom else "quick-data")
    if is_phantom:
        overrides = merged(overrides, file.quick.phantom_settings)
    overrides = merged(overrides, over or {})
    chosen = [
        dataclasses.replace(one, settings=_overridden(one.settings, overrides))
        for one in _chosen(file, settings, quick=quick)
    ]
    refuse_equal(chosen)
    planned = tuple(_planned(one, out / "runs" / one.name, folder) for one in chosen)
    return Plan(folder.resolve().name, out, file, planned, quick, is_phantom)


def _read(folder: Path) -> tuple[ExperimentFile, dict[str, Any]]:
    path = folder / FILE
    if not path.is_file():
        raise DataError(
            f"There is no experiment in '{folder}'",
            f"an experiment is a folder with {FILE}",
            "Choose such a folder, e.g. experiments/her2_basic_cnn",
        )
    written = read_toml(path)
    own = {key: written.pop(key) for key in ExperimentFile.model_fields if key in written}
    file = ExperimentFile(**own)
    for step in file.steps:
        _refuse_unknown_step(step, path)
    return file, merged({"data": {"path": OWN_DATA}}, written)


def _chosen(file: ExperimentFile, settings: Mapping[str, Any], *, quick: bool) -> list[Variant]:
    every = variants(file.matrix, file.crossed, settings)
    if not (quick and file.quick.variants):
        return every
    by_name = {one.name: one for one in every}
    for name in file.quick.variants:
        if name not in by_name:
            raise DataError(
                f"Unknown variant '{name}' in quick.variants",
                f"the matrix has {first_few(by_name)}",
                did_you_mean(name, by_name),
            )
    return [by_name[name] for name in file.quick.variants]


def _refuse_unknown_step(step: str, path: Path) -> None:
    if step not in STEPS:
        raise DataError(
            f"Unknown step '{step}' in '{path}'",
            f"the steps are {', '.join(STEPS)}",
            did_you_mean(step, STEPS),
        )


def _overridden(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with overrides. Tables of members that are not in overridden members are removed."""
    out = merged(settings, overrides)
    if "members" in overrides and "member" in out:
        bases = {read_short_form(text).base for text in expand(overrides["members"])}
        out["member"] = {name: table for name, table in out["member"].items() if name in bases}
    return out


def _planned(variant: Variant, run: Path, folder: Path) -> Planned:
    settings = dict(variant.settings)
    arguments = {step: tuple(words) for step, words in settings.pop("arguments", {}).items()}
    for step in arguments:
        _refuse_unknown_step(step, folder / FILE)
    variant = dataclasses.replace(variant, settings=settings)
    try:
        experiment = load_experiment({**settings, "run": run.as_posix()}, use_file=False)
        experiment.resolved_members()
    except DataError as error:
        raise DataError(
            f"{error.problem} (variant '{variant.name}' of '{folder / FILE}')",
            error.allowed,
            error.advice,
        ) from None
    return Planned(variant, experiment, arguments)
