"""Distillation: one small network is trained on an ensemble's out-of-fold predictions.

It has the same folds and a separate run inside the ensemble's run, so that training can be continued.
It is then compared with the ensemble on the same images.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ensemble_kit.errors import DataError, UsageError, counted
from ensemble_kit.evaluation.runs.method_predictions import stored_predictions
from ensemble_kit.export.fold_choice import n_networks
from ensemble_kit.export.golden_images import candidates, data_root, sources_of
from ensemble_kit.export.paired_change import (
    DEFAULT,
    PairedChange,
    change_words,
    network_seconds,
    paired_change,
)
from ensemble_kit.inference.card_facts import run_facts
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble
from ensemble_kit.manifest.soft_labels import soft_columns
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs import fold_files
from ensemble_kit.members.jobs.events import Listener, ignore_event
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.spec_string import make_members
from ensemble_kit.run import Run

FOLDER = "distilled"
LEAKAGE = (
    "The small network was trained on the ensemble's out-of-fold predictions. They come from networks that "
    "were trained on the other folds, and these include the fold on which the small network is evaluated. "
    "Its out-of-fold metric can be slightly optimistic. The test part is not affected."
)
NOT_TRANSFERRED = (
    "Thresholds, prediction sets and costs of the ensemble are not valid for the small network. Run "
    "operating-point and conformal with its run, then export that run."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Student:
    """A trained small network (student) and the ensemble whose predictions it learnt (teacher).

    Parameters
    ----------
    run : Run
        The student's run, with one member.
    name : str
        Name of that member.
    teacher_run : Run
    teacher : Ensemble
    """

    run: Run
    name: str
    teacher_run: Run
    teacher: Ensemble


@dataclasses.dataclass(frozen=True)
class Distilled:
    """Comparison of a student with its teacher.

    Parameters
    ----------
    teacher, student : str
        The method and the small network.
    n_networks_teacher, n_networks_student : int
    changes : tuple of PairedChange
        Student minus teacher: on the test part (if there is one) and out-of-fold.
    seconds_teacher, seconds_student : float
        Time per image, networks only, on this machine.
    bytes_teacher, bytes_student : int
        Size of the weights.
    run : str
        The student's run.
    """

    teacher: str
    student: str
    n_networks_teacher: int
    n_networks_student: int
    changes: tuple[PairedChange, ...]
    seconds_teacher: float
    seconds_student: float
    bytes_teacher: int
    bytes_student: int
    run: str


def student_member(run: Run, teacher: Ensemble, text: str) -> Member:
    """The small network, by default with the recipe and image size of the ensemble's first member.

    Parameters
    ----------
    text : str
        A network with options, as for `--members`: `resnet18:epochs=20`.

    Raises
    ------
    UsageError
        `text` names several networks.
    """
    first = teacher.member_names[0]
    fold = next(iter(run.store.read_index(first)["made_of"]["folds_done"]))
    record = fold_files.read_record(run.member_dir(first) / f"fold-{fold}")
    assert record is not None  # `load_ensemble` has opened the network
    facts = record["made_of"]["member"]
    recipe = Recipe(**{**facts["recipe"], "snapshots": 0})
    made = make_members(
        [text], recipe=recipe, image_size=facts["image_size"], pretrained=facts["pretrained"]
    )
    if len(made) != 1:
        raise UsageError(
            f"'{text}' names {len(made)} networks",
            "an ensemble is distilled into one network",
            "Choose one, e.g. --distill resnet18",
        )
    return made[0]


def train_student(
    run: Run,
    text: str,
    *,
    method: str | None = None,
    device: str = "auto",
    listener: Listener = ignore_event,
) -> Student:
    """Train one small network on a method's out-of-fold predictions, over the folds of its run.

    Parameters
    ----------
    text : str
        See `student_member`.
    method : str, optional
        A stacked method or a member. Default: the method that `stack` chose.
    listener : callable
        See `fit_members`.

    Raises
    ------
    UsageError
        The method is not stacked.
    DataError
        The student's folder has a network that was trained on other predictions.
    """
    teacher = load_ensemble(run, method=method, device="cpu")
    member = student_member(run, teacher, text)
    manifest, own = soft_manifest(run, teacher.method), Run(student_folder(run, teacher, member))
    _refuse_other_labels(own, manifest)
    fit_members([member], manifest, run.folds(), own, device=device, listener=listener)
    return Student(own, member.name, run, teacher)


def student_folder(run: Run, teacher: Ensemble, member: Member) -> str:
    """The folder of a student's run, inside the ensemble's run."""
    return (run.path / FOLDER / f"{teacher.method}-{member.name}").as_posix()


def soft_manifest(run: Run, method: str) -> Manifest:
    """The run's images, with the method's out-of-fold predictions as soft labels."""
    oof = stored_predictions(run, method).oof
    manifest = data_root(run, run.manifest())
    place = {str(name): i for i, name in enumerate(oof.ids)}
    proba = np.full((len(manifest), len(manifest.class_names)), np.nan)
    for row, name in enumerate(manifest.sample_ids.tolist()):
        if name in place:
            proba[row] = oof.proba[place[name]]
    return manifest.with_columns(**soft_columns(proba, manifest.class_names))


def _refuse_other_labels(own: Run, manifest: Manifest) -> None:
    if own.exists and own.manifest().digest != manifest.digest:
        raise DataError(
            f"'{own.path}' has a network that was trained on other predictions",
            "training continues only with unchanged predictions of the ensemble",
            "Remove that folder, or use another name: --distill NETWORK:name=NAME",
        )


def compared_with_teacher(student: Student, chosen: Ensemble) -> Distilled:
    """Compare the exported networks of a student with its teacher.

    Parameters
    ----------
    chosen : Ensemble
        The student, with the exported fold networks.
    """
    teacher, method = student.teacher, student.teacher.method
    manifest = data_root(student.run, student.run.manifest())
    facts = run_facts(student.teacher_run, teacher.stored, manifest)
    metric = facts["primary_metric"] or DEFAULT
    theirs = stored_predictions(student.teacher_run, method)
    ours = stored_predictions(student.run, student.name)
    changes = []
    if theirs.test is not None:
        found = chosen.predict_sources(sources_of(manifest.part("test"))).combined
        changes.append(paired_change(theirs.test, found, metric=metric))
    oof = paired_change(theirs.oof, ours.oof, metric=metric)
    seconds = network_seconds(
        {"teacher": teacher, "student": chosen}, sources_of(candidates(manifest))
    )
    return Distilled(
        method,
        student.name,
        n_networks(teacher),
        n_networks(chosen),
        (*changes, oof),
        seconds["teacher"],
        seconds["student"],
        _n_bytes(teacher),
        _n_bytes(chosen),
        student.run.path.as_posix(),
    )


def _n_bytes(ensemble: Ensemble) -> int:
    networks = [one for member in ensemble.members for one in member.by_fold.values()]
    tensors = [t for one in networks for t in one.model.state_dict().values()]
    return sum(t.numel() * t.element_size() for t in tensors)


def distilled_json(about: Distilled | None) -> dict[str, Any] | None:
    """The comparison as a bundle stores it."""
    return None if about is None else dataclasses.asdict(about)


def distilled_words(about: Distilled) -> list[str]:
    """The comparison in sentences."""
    names = "the small network", f"the ensemble ({about.teacher})"
    times = about.seconds_teacher / about.seconds_student
    return [
        f"{about.student} was trained on the predictions of {about.teacher}. It has "
        f"{counted(about.n_networks_student, 'network')} instead of {about.n_networks_teacher}.",
        *(change_words(one, names, names[0]) for one in about.changes),
        f"Weights: {about.bytes_student / 1e6:.3g} MB instead of {about.bytes_teacher / 1e6:.3g} MB. Time of "
        f"the networks: {1000 * about.seconds_student:.3g} ms per image instead of "
        f"{1000 * about.seconds_teacher:.3g} ms ({times:.1f} times as fast).",
        LEAKAGE,
        NOT_TRANSFERRED,
    ]
