"""A member's trained networks, one per fold, opened from a run with their digests checked.

Their logits are averaged over the folds, as for the run's test part.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load
from torch import nn

from ensemble_kit.arrays import Array
from ensemble_kit.checked import check_file
from ensemble_kit.errors import DataError, IntegrityError, command, first_few
from ensemble_kit.files import read_json
from ensemble_kit.images.augmentation.color_space import color_channels
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec, tile_shape
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs import fold_files
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network
from ensemble_kit.members.training.predict import predict_both, predict_logits
from ensemble_kit.run import Run
from ensemble_kit.run.tables import mean_of_folds

CONFIG, LOGITS = "config.json", "logits-oof.npy"


@dataclasses.dataclass(frozen=True, eq=False)
class FoldNetwork:
    """One trained network and its input settings.

    Parameters
    ----------
    model : torch.nn.Module
        On its device, in evaluation mode.
    member : Member
        The settings of the training.
    mean, std : tuple of float
        Normalisation per channel.
    by_name : array of int, shape (n_classes,)
        For each class of the run, the index of the network's output.
    """

    model: nn.Module
    member: Member
    mean: tuple[float, ...]
    std: tuple[float, ...]
    by_name: npt.NDArray[np.int64]
    device: torch.device

    def logits(self, tiles: Mapping[TileSpec, Tiles]) -> Array:
        """Logits of all tiles, shape (n_samples, n_classes), classes in the run's order."""
        own = tiles[self.member.eval_spec]
        found = predict_logits(self.model, own, np.arange(len(own)), **self._settings())
        return found[:, self.by_name]

    def logits_and_features(self, tiles: Mapping[TileSpec, Tiles]) -> tuple[Array, Array]:
        """The same logits, and the input of the classifier, shape (n_samples, n_features)."""
        own = tiles[self.member.eval_spec]
        logits, features = predict_both(self.model, own, np.arange(len(own)), **self._settings())
        return logits[:, self.by_name], features

    def _settings(self) -> dict[str, Any]:
        return {
            "n_classes": len(self.by_name),
            "device": self.device,
            "mean": self.mean,
            "std": self.std,
            "color": self.member.color,
            "tta": self.member.recipe.regularize.tta,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class MemberNetworks:
    """The networks of one member, by fold."""

    name: str
    by_fold: Mapping[int, FoldNetwork]

    @property
    def specs(self) -> list[TileSpec]:
        """Sizes and settings of the tiles that the networks take."""
        return list(dict.fromkeys(one.member.eval_spec for one in self.by_fold.values()))

    def logits(self, tiles: Mapping[TileSpec, Tiles]) -> Array:
        """Mean logits over the folds, float32, shape (n_samples, n_classes)."""
        return mean_of_folds({k: one.logits(tiles) for k, one in self.by_fold.items()})

    def logits_and_features(self, tiles: Mapping[TileSpec, Tiles]) -> tuple[Array, Array]:
        """Also the pooled features of each fold, shape (n_samples, n_folds, n_features)."""
        both = {k: one.logits_and_features(tiles) for k, one in self.by_fold.items()}
        features = np.stack([found for _, found in both.values()], axis=1)
        return mean_of_folds({k: logits for k, (logits, _) in both.items()}), features


def open_member(run: Run, name: str, manifest: Manifest, device: torch.device) -> MemberNetworks:
    """The networks of the folds in a member's stored predictions.

    Raises
    ------
    DataError
        A fold's network is not in the run.
    IntegrityError
        A file is damaged, or a fold was trained again after its predictions were stored.
    """
    made = run.store.read_index(name)["made_of"]
    folds = sorted(made.get("folds_done", []))
    if not folds:
        raise _no_network(run, name, "any fold")
    opened: dict[int, FoldNetwork] = {}
    for k in folds:
        like = next(iter(opened.values()), None)
        opened[k] = _open_fold(run, name, k, made["logits"], manifest, device, like)
    return MemberNetworks(name, opened)


def _open_fold(
    run: Run,
    name: str,
    fold: int,
    logits: Mapping[str, str],
    manifest: Manifest,
    device: torch.device,
    like: FoldNetwork | None,
) -> FoldNetwork:
    """One fold's network. `like` is another fold's network, which is copied to save time."""
    folder, home = run.fold_dir(name, fold), run.member_dir(name) / f"fold-{fold}"
    record = fold_files.read_record(home)
    if record is None:
        raise _no_network(run, name, f"fold {fold}")
    weights = Path(name.partition("@")[2])
    files = {file: record["files"].get((weights / file).as_posix()) for file in
             (fold_files.WEIGHTS, CONFIG, LOGITS)}  # fmt: skip
    if files[LOGITS] != logits.get(str(fold)):
        raise IntegrityError(
            f"'{home}' was trained again after its predictions were stored",
            "a combiner is used with the networks that it was fitted to",
            "Run the same train-members command again, then stack again",
        )
    again = fold_files.TRAIN_AGAIN.format(home)
    for file in (fold_files.WEIGHTS, CONFIG):
        check_file(folder / file, str(files[file]), advice=again)
    config = read_json(folder / CONFIG)["pretrained_cfg"]
    return trained_network(
        member_of(record["made_of"]["member"]),
        (folder / fold_files.WEIGHTS).read_bytes(),
        manifest,
        mean=config["mean"],
        std=config["std"],
        by_name=_by_name(home, record["class_names"], manifest.class_names),
        device=device,
        like=like,
    )


def trained_network(
    member: Member,
    weights: bytes,
    manifest: Manifest,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    by_name: npt.NDArray[np.int64],
    device: torch.device,
    like: FoldNetwork | None = None,
) -> FoldNetwork:
    """A network with trained weights, in evaluation mode.

    Parameters
    ----------
    weights : bytes
        The content of a safetensors file.
    like : FoldNetwork, optional
        A network of the same member, which is copied to save time.
    """
    same = like is not None and like.member == member
    model = _copied(like.model) if like is not None and same else _built(member, manifest)
    return FoldNetwork(
        model=_trained(model, weights, device),
        member=member,
        mean=tuple(mean),
        std=tuple(std),
        by_name=by_name,
        device=device,
    )


def member_of(facts: Mapping[str, Any]) -> Member:
    """The member's settings at training, without its initial checkpoint."""
    return Member(**{**facts, "weights": None, "pretrained": False})


def _built(member: Member, manifest: Manifest) -> nn.Module:
    channels = color_channels(member.color, tile_shape(manifest, member.eval_spec)[2])
    with torch.random.fork_rng(devices=[]):  # the random initial weights are replaced
        return build_network(
            member, manifest.n_classes, image_size=member.input_size, in_channels=channels
        )


def _copied(model: nn.Module) -> nn.Module:
    """The same modules with shared tensors. Loading weights then replaces the tensors."""
    shared = {id(one): one for one in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _trained(model: nn.Module, weights: bytes, device: torch.device) -> nn.Module:
    model.load_state_dict(load(weights), assign=True)
    placed: nn.Module = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed.eval().requires_grad_(False)


def _by_name(home: Path, own: list[str], class_names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    if sorted(own) != sorted(class_names):
        raise IntegrityError(
            f"'{home}' was trained for other classes",
            f"it has {first_few(own)}, the run {first_few(class_names)}",
            fold_files.TRAIN_AGAIN.format(home),
        )
    return np.array([own.index(name) for name in class_names], dtype=np.int64)


def _no_network(run: Run, name: str, what: str) -> DataError:
    return DataError(
        f"'{run.path}' has no network of '{name}' for {what}",
        f"no finished network is in '{run.member_dir(name)}'",
        f"Copy the folder members/ of that run too, train '{name}' "
        f"({command('train-members', '--run', run.path)}), or choose another method: --method NAME",
    )
