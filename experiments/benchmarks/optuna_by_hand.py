"""The peer of `tune.py`: tuning of one network with Optuna as in its documentation.

    python experiments/benchmarks/optuna_by_hand.py FOLDER NETWORK SIZE EPOCHS TRIALS

FOLDER has train/CLASS/ and val/CLASS/. One process, one fold, median pruner, default sampler.
torchvision's ImageFolder decodes each image in each epoch. Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import optuna
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import ensemble_kit.members.architectures.small_cnn  # noqa: F401  (registers our small networks with timm)
from ensemble_kit.members.registry import timm_name


def main(folder: str, network: str, size: int, epochs: int, n_trials: int) -> None:
    seen = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal seen
        rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
        batch = 2 ** trial.suggest_int("batch_size_log2", 3, 5)
        train, val = loaders(Path(folder), size, batch)
        model = timm.create_model(timm_name(network), num_classes=len(train.dataset.classes))
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
        steps = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(train))
        loss = float("inf")
        for epoch in range(epochs):
            model.train()
            for images, labels in train:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
                steps.step()
                seen += len(labels)
            loss = validation_loss(model, val)
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize", pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, n_trials=n_trials)
    pruned = sum(t.state == optuna.trial.TrialState.PRUNED for t in study.trials)
    print(json.dumps({"images": seen, "trials": len(study.trials), "pruned": pruned}))


def loaders(folder: Path, size: int, batch: int) -> tuple[DataLoader, DataLoader]:
    resize, tensor = transforms.Resize((size, size)), transforms.ToTensor()
    normal = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    flips = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()]
    train = datasets.ImageFolder(
        str(folder / "train"), transforms.Compose([resize, *flips, tensor, normal])
    )
    val = datasets.ImageFolder(str(folder / "val"), transforms.Compose([resize, tensor, normal]))
    return (
        DataLoader(train, batch_size=batch, shuffle=True, drop_last=len(train) % batch == 1),
        DataLoader(val, batch_size=64),
    )


@torch.no_grad()
def validation_loss(model: nn.Module, val: DataLoader) -> float:
    model.eval()
    total = sum(
        float(nn.functional.cross_entropy(model(images), labels, reduction="sum"))
        for images, labels in val
    )
    return total / len(val.dataset)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
