"""One experiment: `ensemble-kit.toml` and options become checked settings and members."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ensemble_kit.errors import DataError, did_you_mean
from ensemble_kit.files import read_toml
from ensemble_kit.folds.conflicting_settings import ignored_settings
from ensemble_kit.images.augmentation.presets import PRESETS, Augmentation, preset
from ensemble_kit.manifest.data_settings import EMBEDDED, UNKNOWN, DataSettings
from ensemble_kit.manifest.layouts.bci import DEFAULT_JOIN
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.registry import expand
from ensemble_kit.members.spec_string import read_short_form
from ensemble_kit.run import Run
from ensemble_kit.run.folder import CONFIG
from ensemble_kit.setting_precedence import with_flags, with_presets
from ensemble_kit.settings import Settings, SettingsError, merged
from ensemble_kit.tune.best import tuned_values
from ensemble_kit.tune.space import TuneSettings, placed

SETTINGS_FILE = "ensemble-kit.toml"

# Defaults of embedded data: small networks on small images, from random weights.
EMBEDDED_DEFAULTS: dict[str, Any] = {
    "members": ["small"],
    "image_size": 64,
    "pretrained": False,
    "data": {"folds": 3},
    "recipe": {"epochs": 12, "batch_size": 32, "learning_rate": 5e-3},
}

# If an option or a member's own table sets one of these, tuned values are not used.
TUNED = {"learning_rate", "batch_size"}


class Experiment(Settings):
    """All settings of a run.

    `members` are network or group names, or names of `[member.NAME]` tables, which hold the
    fields of a `Member` and, under `recipe`, those of a `Recipe` that differ from `[recipe]`, or a
    `preset`. Settings may also follow the name: `resnet18:seed=1:color=hed`. Options of the command
    line win over all of these; see `ensemble_kit.setting_precedence`.
    `[augmentation.NAME]` tables hold the fields of an `Augmentation`, for a recipe's
    `augmentation = "NAME"`; the members hold the table itself.
    Values that `ensemble-kit tune` stored in the run folder are used unless `use_tuned = false`, or
    an option or the member itself sets one of them.
    """

    run: str | None = None
    seed: int = Field(0, ge=0)
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    members: tuple[str, ...] = ("all",)
    methods: tuple[str, ...] = ("all",)
    image_size: int | None = Field(None, ge=8, le=2048)
    pretrained: bool = True
    weights: Path | None = None
    data: DataSettings = DataSettings()
    recipe: Recipe = Recipe()
    augmentation: dict[str, Augmentation] = Field(default_factory=dict)
    use_tuned: bool = True
    tune: TuneSettings = TuneSettings()
    member: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _unused_augmentation_names(self) -> Experiment:
        if taken := sorted(self.augmentation.keys() & PRESETS.keys()):
            raise DataError(
                f"[augmentation.{taken[0]}] has the name of a built-in preset",
                "your own augmentation needs another name",
                "Rename it",
            )
        return self

    @property
    def run_path(self) -> Path:
        """The run folder; by default named after the data."""
        if self.run:
            return Path(self.run)
        path = Path(self.data.path).resolve()
        stem = path.stem if path.suffix in {".csv", ".tsv", ".npz"} else path.name
        if self.data.path in EMBEDDED:
            stem = self.data.path
        elif stem in {"manifest", "metadata", "labels"}:
            stem = path.parent.name
        return Path("checkpoints") / (
            re.sub(r"[^A-Za-z0-9._-]+", "-", stem.lower()).strip("-.") or "run"
        )

    def varied(self, *, run: str, **data: Any) -> Experiment:
        """The same experiment in another folder, with other data settings."""
        return self.model_copy(update={"run": run, "data": self.data.model_copy(update=data)})

    def resolved_members(self) -> list[Member]:
        """The members to train: `[recipe]`, then `[member.NAME]`, then values tuned in this run."""
        bases = _bases(self.members)
        unused = sorted(set(self.member) - bases)
        if unused:
            raise DataError(
                f"[member.{unused[0]}]: '{unused[0]}' is not in members",
                "each [member.NAME] table belongs to a member in the list",
                did_you_mean(unused[0], sorted(bases)),
            )
        return [self.resolved_member(name) for name in expand(self.members)]

    def resolved_member(self, text: str) -> Member:
        """One member, by its entry in the list or by its name."""
        written = [t for t in expand(self.members) if read_short_form(t).name == text]
        short = read_short_form(written[0] if written else text)
        own, name = dict(self.member.get(short.base, {})), short.name
        if short.settings:
            own = merged({k: v for k, v in own.items() if k != "name"}, short.settings)
        given_values = own.pop("recipe", {})
        recipe = merged(self.recipe.model_dump(exclude_unset=True), given_values)
        use_tuned = self.use_tuned and not given_values.keys() & TUNED
        tuned = placed(tuned_values(Run(self.run_path), name) if use_tuned else {})
        if _overlaps(tuned, {**own, "recipe": given_values}):
            tuned = {}
        shared = {
            "image_size": self.image_size,
            "pretrained": self.pretrained,
            "weights": self.weights,
        }
        settings = {"network": short.base, "name": name, **shared, **own}
        if tuned:
            settings |= {"tuned": True, **{k: v for k, v in tuned.items() if k != "recipe"}}
            recipe = merged(recipe, tuned.get("recipe", {}))
        augmentation = recipe.get("augmentation")
        if isinstance(augmentation, str):
            preset(augmentation, self.augmentation)
            recipe["augmentation"] = self.augmentation.get(augmentation, augmentation)
        try:
            return Member(**{**settings, "recipe": recipe})
        except SettingsError as error:
            raise error.under(("member", name)) from None


def load_experiment(
    flags: Mapping[str, Any] | None = None, file: Path | None = None, *, use_file: bool = True
) -> Experiment:
    """The experiment of a settings file and options; an option wins over every table of the file.

    Parameters
    ----------
    flags : mapping, optional
        Options, nested like the file; None means not given.
    file : path, optional
        Settings file. By default `ensemble-kit.toml` in the current folder. If there is none, and
        the options name a run that exists and no data, the settings of its last training.
    use_file : bool
        Whether to look for these files.

    Raises
    ------
    DataError
        The file is not TOML, a key is unknown, or a value is invalid.
    """
    flags, of_run = flags or {}, False
    if file is None and use_file:
        file = _settings_file(flags)
        of_run = file is not None and file.name == CONFIG
    written = read_toml(file) if file else {}
    if of_run:
        written = _of_run(written, flags)
    given = with_flags(written, flags)
    if any((flags.get("recipe") or {}).get(key) is not None for key in TUNED):
        given["use_tuned"] = False
    if flags.get("members") is not None and isinstance(given.get("member"), Mapping):
        # An option may choose some members of the file; the tables of the others are then ignored.
        requested, listed = _bases(flags["members"]), _bases(_names(written.get("members", ())))
        ignored = {n for n in given["member"] if n in listed and n not in requested}
        given["member"] = {n: t for n, t in given["member"].items() if n not in ignored}
    try:
        experiment, defaults = _checked(given)
    except SettingsError as error:
        if file is None or not _is_wrong(with_presets(written)):
            raise
        raise DataError(f"{error.problem} (in '{file}')", error.allowed, error.advice) from None
    data = experiment.data.as_requested(flags.get("data") or {}, defaults.get("data", {}))
    return experiment.model_copy(update={"data": data})


def _of_run(written: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run's last training, without those that a new training does not reuse."""
    if "path" not in written.get("data", {}):
        return {"data": {"path": UNKNOWN}}  # an imported run, or one that was made from Python
    reused = {key: value for key, value in written.items() if key != "device"}
    if (flags.get("recipe") or {}).get("preset") is not None:
        # The stored recipe has every key, and would override those that a preset leaves out.
        reused.pop("recipe", None)
        members = reused.get("member", {})
        reused["member"] = {
            n: {k: v for k, v in t.items() if k != "recipe"} for n, t in members.items()
        }
    return reused


def _settings_file(flags: Mapping[str, Any]) -> Path | None:
    # A link without target is an error, not a missing file.
    if os.path.lexists(SETTINGS_FILE):
        return Path(SETTINGS_FILE)
    if flags.get("run") is None or (flags.get("data") or {}).get("path") is not None:
        return None
    run = Run(flags["run"])
    return run.path / CONFIG if run.exists else None


def _checked(given: Mapping[str, Any]) -> tuple[Experiment, dict[str, Any]]:
    """The experiment, and the defaults for settings that were not given."""
    data = given.get("data", {})
    path = data.get("path", EMBEDDED[0]) if isinstance(data, Mapping) else EMBEDDED[0]
    defaults = EMBEDDED_DEFAULTS if path in EMBEDDED else {}
    return Experiment(**merged(defaults, given)), defaults


def _is_wrong(written: Mapping[str, Any]) -> bool:
    try:
        _checked(written)
    except SettingsError:
        return True
    return False


def _overlaps(tuned: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether a member's own table sets one of the values that were tuned."""
    return any(
        _overlaps(value, own[key])
        if isinstance(value, Mapping) and isinstance(own[key], Mapping)
        else True
        for key, value in tuned.items()
        if key in own
    )


def _bases(members: Sequence[str]) -> set[str]:
    return {read_short_form(text).base for text in expand(members)}


def _names(value: Any) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, (list, tuple)) else []


def config_of(experiment: Experiment) -> dict[str, Any]:
    """The experiment as TOML values, with all defaults and without ignored settings."""
    config: dict[str, Any] = experiment.model_dump(mode="json", exclude_none=True)
    for name in ignored_settings(experiment.data):
        config["data"].pop(name, None)
    if experiment.data.stain == "both":
        config["data"].setdefault("join", DEFAULT_JOIN)
    config["run"] = experiment.run_path.as_posix()
    config["members"] = list(expand(experiment.members))
    return config
