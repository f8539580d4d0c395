"""Every key that differs between variants of an experiment has its effect: one probe per key.

A probe fails if its key is ignored. A new key in a matrix needs a new probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensemble_kit.experiment import Experiment, load_experiment
from ensemble_kit.experiment_data import prepare, read_data
from ensemble_kit.images.tiles.build import Tiles, build_tiles
from ensemble_kit.manifest.phantom.relabelled import write_phantom_as
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.registry import timm_name
from ensemble_kit.members.training import fit as fit_module
from ensemble_kit.members.training.fit import Fit, Rows
from ensemble_kit.reproduce.experiment_file import FILE, Planned, read_plan
from ensemble_kit.reproduce.run_steps import words_of

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SIZE = 32
# 8 images of class 0 and 4 of class 1.
LABELS = np.repeat([0, 0, 1], 4)


def leaves(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def cases() -> Iterator[Any]:
    for file in sorted(EXPERIMENTS.glob(f"*/{FILE}")):
        plan = read_plan(file.parent, data="somewhere")
        first = plan.variants[0].variant.options
        for axis, options in plan.file.matrix.items():
            for option, table in options.items():
                wanted = {**first, axis: option}
                planned = next(p for p in plan.variants if p.variant.options == wanted)
                for key, value in leaves(table):
                    name = f"{plan.name}-{axis}-{option}-{key}"
                    yield pytest.param(planned, key, value, id=name)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pairs"
    return write_phantom_as("bci", folder, n_patients=12, images_per_patient=1, image_size=SIZE)


@pytest.fixture(scope="module")
def breakhis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "breakhis"
    return write_phantom_as(
        "breakhis", folder, n_patients=16, images_per_patient=4, image_size=SIZE
    )


class Stopped(Exception):
    """Raised instead of the training loop."""


def recipe_of(planned: Planned) -> Recipe:
    return planned.experiment.resolved_members()[0].recipe


def fit_of(recipe: Recipe) -> tuple[Fit, Rows]:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    tiles = Tiles(pixels, np.arange(12).astype(str), "", 16)
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=recipe)
    fit = Fit.start(member, tiles, 2, device=torch.device("cpu"), precision="fp32", seed=0)
    # The validation labels are inverted, so that later epochs do not improve.
    return fit, Rows(np.arange(12), LABELS, np.arange(12), 1 - LABELS)


def given_to_training(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
    """The arguments of the training loop: training, batches and plan."""
    got: list[Any] = []

    def spy(training: Any, batches: Any, plan: Any, **_: Any) -> None:
        got.extend([training, batches, plan])
        raise Stopped

    monkeypatch.setattr(fit_module, "run_epochs", spy)
    fit, rows = fit_of(recipe)
    with pytest.raises(Stopped):
        fit.run(rows, lambda _: None)
    return got[0], got[1], got[2]


def trained(recipe: Recipe) -> list[dict[str, float]]:
    fit, rows = fit_of(recipe)
    fit.run(rows, lambda _: None)
    return fit.training.history


def tiles_of(experiment: Experiment, data: Path, size: int = SIZE) -> tuple[Any, np.ndarray]:
    options = experiment.data.reader_options()
    manifest = read_data(load_experiment({"data": {"path": str(data), **options}}, use_file=False).data)  # fmt: skip
    return manifest, build_tiles(manifest, size, cache_dir=data.parent / "tiles").pixels


def stored(data: Path, stain: str, manifest: Any) -> np.ndarray:
    names = [f"{i}.png" for i in manifest.sample_ids]
    splits = ["train" if "_train_" in name else "test" for name in names]
    return np.stack([np.asarray(Image.open(data / stain / s / n)) for s, n in zip(splits, names, strict=True)])  # fmt: skip


# -- a probe per key -----------------------------------------------------------------------


def stain(planned: Planned, value: str, pairs: Path, **_: Any) -> None:
    manifest, pixels = tiles_of(planned.experiment, pairs)
    he, ihc = (stored(pairs, name, manifest) for name in ("HE", "IHC"))
    if value != "both":
        np.testing.assert_array_equal(pixels, he if value == "he" else ihc)
        return
    half = pixels.shape[2] // 2
    for part, whole in ((pixels[:, :, :half], he), (pixels[:, :, half:], ihc)):
        np.testing.assert_allclose(part.mean(axis=(1, 2)), whole.mean(axis=(1, 2)), atol=2)


def join(planned: Planned, value: str, pairs: Path, **_: Any) -> None:
    manifest, pixels = tiles_of(planned.experiment, pairs)
    assert pixels.shape[1:3] == ((SIZE, SIZE) if value == "stack" else (SIZE, 2 * SIZE))
    if value == "side":
        np.testing.assert_array_equal(pixels[:, :, SIZE:], stored(pairs, "IHC", manifest))


def color(planned: Planned, value: str, pairs: Path, **_: Any) -> None:
    _, pixels = tiles_of(planned.experiment, pairs)
    assert value == "grayscale"
    assert (pixels == pixels[..., :1]).all()
    plain = planned.experiment.model_copy(
        update={"data": planned.experiment.data.model_copy(update={"color": "rgb"})}
    )
    assert not (tiles_of(plain, pairs)[1] == pixels).all()


def split_by(planned: Planned, value: str, breakhis: Path, tmp_path: Path, **_: Any) -> None:
    data = planned.experiment.data.model_copy(update={"path": str(breakhis), "folds": 3})
    update = {"data": data, "run": str(tmp_path / "run")}
    manifest, folds = prepare(planned.experiment.model_copy(update=update))
    train, test = manifest.part("train"), manifest.part("test")
    fold = dict(zip(folds.sample_ids.tolist(), folds.fold.tolist(), strict=True))
    seen: dict[str, set[int]] = {}
    for sample, group in zip(train.sample_ids.tolist(), train.groups.tolist(), strict=True):
        seen.setdefault(group, set()).add(fold[sample])
    assert (max(map(len, seen.values())) > 1) == (value == "image")
    assert bool(set(train.groups) & set(test.groups)) == (value == "image")


def image_size(planned: Planned, value: int, pairs: Path, **_: Any) -> None:
    member = planned.experiment.resolved_members()[0]
    assert member.tile_spec.image_size == member.eval_spec.image_size == value
    with torch.device("meta"):
        model = build_network(member, 4, image_size=member.input_size)
        assert model.eval()(torch.empty(1, 3, value, value)).shape == (1, 4)


def members(planned: Planned, value: list[str], **_: Any) -> None:
    model: Any = built(planned, n_classes=2)
    inner = getattr(model, "body", model)
    assert inner.pretrained_cfg["architecture"] == timm_name(value[0])


def built(planned: Planned, *, n_classes: int = 4) -> torch.nn.Module:
    (member,) = planned.experiment.resolved_members()
    with torch.device("meta"):
        return build_network(
            member.model_copy(update={"pretrained": False}), n_classes, image_size=64
        )


def drop_rate(planned: Planned, value: float, **_: Any) -> None:
    rates = {m.p for m in built(planned).modules() if isinstance(m, torch.nn.Dropout)}
    assert rates - {0.0} == {value}


def head(planned: Planned, value: list[int], **_: Any) -> None:
    layers = [m for m in built(planned).modules() if isinstance(m, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == [*value, 4]


def class_weights(planned: Planned, value: str, monkeypatch: Any, **_: Any) -> None:
    _, _, plan = given_to_training(recipe_of(planned), monkeypatch)
    assert value == "balanced"
    # n / (n_classes * count): 12 / (2 * 8) and 12 / (2 * 4).
    logits, target = torch.tensor([[0.0, 2.0], [0.0, 2.0]]), torch.tensor([0, 1])
    terms = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    wanted = (0.75 * terms[0] + 1.5 * terms[1]) / 2.25
    assert plan.loss_of(logits, target).item() == pytest.approx(wanted.item())


def sampling(planned: Planned, value: str, monkeypatch: Any, **_: Any) -> None:
    _, batches, _ = given_to_training(recipe_of(planned), monkeypatch)
    counts = np.bincount(LABELS[batches.positions(0)]).tolist()
    assert counts == {"oversample": [8, 8], "undersample": [4, 4]}[value]


def augmentation(planned: Planned, value: str, monkeypatch: Any, **_: Any) -> None:
    recipe = recipe_of(planned)
    assert value == "flips-rotation-jitter"
    images = [
        next(iter(given_to_training(one, monkeypatch)[1].epoch(0)))[0]
        for one in (recipe, recipe.model_copy(update={"augmentation": "none"}))
    ]
    changed = (images[0] - images[1]).flatten(1).abs().amax(dim=1)
    assert (changed > 0.05).all()


def learning_rate(planned: Planned, value: float, **_: Any) -> None:
    recipe = recipe_of(planned).model_copy(update={"epochs": 1})
    assert trained(recipe)[0]["learning_rate"] == pytest.approx(value)


def batch_size(planned: Planned, value: int, monkeypatch: Any, **_: Any) -> None:
    _, batches, _ = given_to_training(recipe_of(planned), monkeypatch)
    assert batches.batch_size == value


def weight_decay(planned: Planned, value: float, monkeypatch: Any, **_: Any) -> None:
    training, _, _ = given_to_training(recipe_of(planned), monkeypatch)
    assert max(group["weight_decay"] for group in training.optimizer.param_groups) == value


def epochs(planned: Planned, value: int, **_: Any) -> None:
    update = {"patience": 0, "select_on": "none", "schedule": "constant"}
    assert len(trained(recipe_of(planned).model_copy(update=update))) == value


def stops_early(planned: Planned, value: Any, **_: Any) -> None:
    recipe = recipe_of(planned).model_copy(update={"learning_rate": 1e-2})
    history = trained(recipe)
    best = int(np.argmin([one["val_log_loss"] for one in history]))
    assert len(history) == best + 1 + recipe.patience < recipe.epochs


def schedule(planned: Planned, value: str, **_: Any) -> None:
    assert value == "plateau"
    rates = [
        one["learning_rate"]
        for one in trained(recipe_of(planned).model_copy(update={"learning_rate": 1e-2}))
    ]
    assert rates[0] == pytest.approx(1e-2)
    assert rates[-1] < 0.2 * rates[0]


def explain_arguments(planned: Planned, value: list[str], **_: Any) -> None:
    words = words_of(planned, "explain", Path("settings.toml"))
    maps = {"cnn": "gradientshap", "densenet121": "gradcam"}[planned.name]
    assert words[-2:] == value == ["--maps", maps]


PROBES: dict[str, Callable[..., None]] = {
    "data.stain": stain,
    "data.join": join,
    "data.color": color,
    "data.split_by": split_by,
    "image_size": image_size,
    "members": members,
    "drop_rate": drop_rate,
    "head": head,
    "arguments.explain": explain_arguments,
    "recipe.class_weights": class_weights,
    "recipe.sampling": sampling,
    "recipe.augmentation": augmentation,
    "recipe.learning_rate": learning_rate,
    "recipe.batch_size": batch_size,
    "recipe.weight_decay": weight_decay,
    "recipe.epochs": epochs,
    "recipe.patience": stops_early,
    "recipe.select_on": stops_early,
    "recipe.schedule": schedule,
}


@pytest.mark.parametrize(("planned", "key", "value"), list(cases()))
def test_each_key_of_a_variant_has_its_effect(
    planned: Planned,
    key: str,
    value: Any,
    pairs: Path,
    breakhis: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = key.rpartition(".")[2] if key.startswith("member.") else key
    PROBES[name](
        planned, value, pairs=pairs, breakhis=breakhis, tmp_path=tmp_path, monkeypatch=monkeypatch
    )
