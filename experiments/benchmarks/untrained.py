"""An ensemble of five networks with untrained weights, for measurements of time."""

from __future__ import annotations

import numpy as np
import torch

from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.fold_networks import FoldNetwork, MemberNetworks
from ensemble_kit.inference.stored_method import StoredMethod
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network

NETWORKS = ("resnet18", "densenet121", "efficientnet_b0", "tf_efficientnetv2_b0", "tf_efficientnet_b1")  # fmt: skip
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = ("benign", "malignant")


def untrained(size: int) -> Ensemble:
    """Five members of one network each, with random weights."""
    torch.manual_seed(0)
    members = []
    for name in NETWORKS:
        member = Member(name, image_size=size, pretrained=False)
        model = build_network(member, 2, image_size=size).eval().requires_grad_(False)
        one = FoldNetwork(
            model.to(memory_format=torch.channels_last), member, MEAN, STD, np.arange(2), torch.device("cpu")
        )  # fmt: skip
        members.append(MemberNetworks(name, {0: one}))
    combiner = MeanProba().fit(np.zeros((2, len(NETWORKS), 2)), [0, 1])
    stored = StoredMethod("mean", CLASSES, NETWORKS, combiner, None, None, None, "patient", {}, ())
    manifest = Manifest.from_records([("a", "a.png", "benign", "p")], class_names=CLASSES, absent=["malignant"])  # fmt: skip
    return Ensemble(stored, members, manifest)
