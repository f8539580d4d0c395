"""The peer of `training.py`: training with timm's dataset, prefetching loader and optimizer.

The augmentation is the preset "light", as torchvision transforms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from timm.data import ImageDataset, create_loader
from timm.data.transforms import ToNumpy
from timm.optim import create_optimizer_v2
from torch import nn
from torchvision import transforms

from ensemble_kit.images.augmentation.presets import preset
from ensemble_kit.members.registry import timm_name


class TimmLine:
    """One network in training.

    Parameters
    ----------
    best : bool
        Whether to use bf16 autocast, channels_last and the fused optimizer. Otherwise timm's defaults.
    """

    def __init__(
        self,
        network: str,
        folders: dict[str, Path],
        n_classes: int,
        args: argparse.Namespace,
        *,
        best: bool,
        rate: float,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.device = torch.device(args.device)
        self.args, self.best, self.folders = args, best, folders
        model = timm.create_model(timm_name(network), num_classes=n_classes).train()
        self.model: nn.Module = model.to(self.device)
        if best:
            self.model = self.model.to(memory_format=torch.channels_last)
        fused = {"fused": True} if best else {}
        self.optimizer = create_optimizer_v2(
            self.model, opt="adamw", lr=rate, weight_decay=0.02, **fused
        )
        self.loader = self._loader(training=True)

    def epochs(self) -> Iterator[float]:
        """Train epoch by epoch, and yield the images per second of each."""
        while True:
            began, n = time.perf_counter(), 0
            self.model.train()
            # As in timm's training script on a GPU.
            with torch.backends.cudnn.flags(benchmark=self.device.type == "cuda"):
                for images, labels in self.loader:
                    n += len(labels)
                    self._step(images, labels)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            yield n / (time.perf_counter() - began)

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        if self.best:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.best):
            loss = nn.functional.cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Log loss (nats) of the validation images, in float32."""
        self.model.eval()
        total, n = 0.0, 0
        for images, labels in self._loader(training=False):
            total += float(nn.functional.cross_entropy(self.model(images), labels, reduction="sum"))
            n += len(labels)
        return total / n

    def _loader(self, *, training: bool) -> torch.utils.data.DataLoader:
        size, config = (self.args.size, self.args.size), self.model.pretrained_cfg
        dataset = ImageDataset(str(self.folders["train" if training else "validation"]))
        loader = create_loader(
            dataset, input_size=(3, *size), batch_size=self.args.batch, is_training=training,
            mean=config["mean"], std=config["std"], device=self.device,
            num_workers=self.args.workers, persistent_workers=True, pin_memory=self.device.type == "cuda",
        )  # fmt: skip
        light = preset("light")
        turns = [transforms.RandomRotation((a, a)) for a in (0, 90, 180, 270)]
        moved = [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomChoice(turns),
            transforms.ColorJitter(light.brightness, light.contrast, light.saturation, light.hue),
        ]
        dataset.transform = transforms.Compose(
            [
                transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
                *(moved if training else []),
                ToNumpy(),  # timm's prefetcher makes floats and normalises, on the device
            ]
        )
        return loader
