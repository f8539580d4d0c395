"""`ek.explain`: the predictions of `predict`, maps averaged over folds, and the ensemble's map."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.explanation.fuse import disagreement, mean_overlap, on_grid, overlap
from ensemble_kit.explanation.fused_maps import fused_maps
from ensemble_kit.explanation.member_pass import member_pass, normalised
from ensemble_kit.explanation.target_layer import target_layer
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.sources import as_sources


def test_predictions_equal_those_of_predict(ensemble: Ensemble, test_paths: list[Path]) -> None:
    found = ek.explain(ensemble, test_paths)
    want = ensemble.predict_all(test_paths)
    np.testing.assert_allclose(found.predictions.proba, want.proba, atol=1e-6)
    assert found.class_names.tolist() == want.classes.tolist()
    n = len(test_paths)
    assert found.maps.shape == (n, 2, 16, 16)
    assert found.ensemble.shape == found.disagreement.shape == (n, 16, 16)
    assert found.pictures.shape == (n, 384, 384, 3)
    assert found.maps.min() >= 0
    assert found.ensemble.max() > 0
    assert found.signed.shape == (n, 3, 16, 16)
    np.testing.assert_array_equal(found.ensemble, np.maximum(found.signed[:, -1], 0))


def test_a_members_map_is_the_mean_gradcam_of_its_fold_networks(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    found = ensemble.explain(test_paths[:3], class_name="malignant")
    tiles = ensemble.tiles_of(as_sources(test_paths[:3]))
    total = []
    for network in ensemble.members[0].by_fold.values():
        images = normalised(network, tiles[network.member.eval_spec]).requires_grad_()
        outputs: list[torch.Tensor] = []
        layer = target_layer(network.model).module
        handle = layer.register_forward_hook(lambda *one, outputs=outputs: outputs.append(one[2]))
        logits = network.model(images)
        handle.remove()
        (slope,) = torch.autograd.grad(logits[:, network.by_name[1]].sum(), outputs[0])
        own = (slope.mean(dim=(2, 3), keepdim=True) * outputs[0]).sum(dim=1)
        total.append(own.detach().numpy())
    want = 16 * on_grid(np.maximum(np.mean(total, axis=0), 0), (16, 16))  # 4 x 4 cells
    np.testing.assert_allclose(found.maps[:, 0], want, atol=1e-5)


def test_the_ensembles_map_is_the_weighted_evidence_of_its_members(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    found = ensemble.explain(test_paths[:4])
    tiles = ensemble.tiles_of(as_sources(test_paths[:4]))
    total = np.zeros((4, 16, 16))
    sign = np.where(found.explained[:, None] == np.arange(2), 1.0, -1.0)
    for (
        member
    ) in ensemble.members:  # with two classes, the log odds are the difference of the logits
        own = member_pass("gradcam", member, tiles).maps(sign[None] / 2)[0]
        total += own.shape[1] * own.shape[2] * on_grid(own, (16, 16))
    np.testing.assert_allclose(found.ensemble, np.maximum(total, 0), atol=1e-5)


def test_a_members_weight_in_the_ensembles_map_does_not_depend_on_its_resolution() -> None:
    class Uniform:
        """A total evidence of 1, spread over `side` x `side` cells."""

        def __init__(self, side: int) -> None:
            self.side = side

        def maps(self, directions: np.ndarray) -> np.ndarray:
            return np.full((2, 1, self.side, self.side), 1 / self.side**2, np.float32)

    passes: Any = [Uniform(2), Uniform(8)]
    found = fused_maps(passes, np.array([0]), np.zeros((1, 2, 2)), (8, 8))
    np.testing.assert_allclose(found.maps, 1.0)
    np.testing.assert_allclose(found.signed[0, -1], 2.0)


def test_outputs_in_another_order_give_the_same_maps(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    (network, *_), member = ensemble.members[0].by_fold.values(), ensemble.members[0]
    tiles = ensemble.tiles_of(as_sources(test_paths[:2]))
    model: Any = network.model
    reordered = _with_reversed_head(network)
    first, second = (
        member_pass("gradcam", dataclasses.replace(member, by_fold={0: one}), tiles)
        for one in (network, reordered)
    )
    assert reordered.model is not model
    np.testing.assert_allclose(first.logits, second.logits, atol=1e-6)
    direction = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    np.testing.assert_allclose(first.maps(direction), second.maps(direction), atol=1e-6)


def _with_reversed_head(network: Any) -> Any:
    import copy

    model = copy.deepcopy(network.model)
    head = model.get_classifier()
    head.weight.data, head.bias.data = head.weight.data.flip(0), head.bias.data.flip(0)
    return dataclasses.replace(network, model=model, by_name=network.by_name[::-1].copy())


def test_maps_of_a_member_with_tta_are_mirrored_with_the_image(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    member = ensemble.members[0]
    network = member.by_fold[0]
    recipe = network.member.recipe
    regularize = recipe.regularize.model_copy(update={"tta": "dihedral"})
    own = network.member.model_copy(
        update={"recipe": recipe.model_copy(update={"regularize": regularize})}
    )
    with_views = dataclasses.replace(member, by_fold={0: dataclasses.replace(network, member=own)})
    pixels = np.asarray(Image.open(test_paths[0]).convert("RGB"))
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    direction = np.array([[[1.0, -1.0]]])
    first, second = (
        member_pass("gradcam", with_views, ensemble.tiles_of(as_sources([one])))
        for one in (pixels, mirrored)
    )
    np.testing.assert_allclose(first.logits, second.logits, atol=1e-5)
    np.testing.assert_allclose(first.maps(direction), second.maps(direction)[..., ::-1], atol=1e-5)


def test_a_class_can_be_chosen_and_an_unknown_one_is_refused(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    found = ensemble.explain(test_paths[:2], "layercam", class_name="benign")
    assert found.class_names.tolist() == ["benign", "benign"]
    with pytest.raises(UsageError, match="benin") as caught:
        ensemble.explain(test_paths[:2], class_name="benin")
    assert caught.value.exit_code == 2


def test_unreadable_images_are_refused_by_name(
    ensemble: Ensemble, test_paths: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match="bad") as caught:
        ensemble.explain([test_paths[0], bad])
    assert caught.value.exit_code == 3


def test_overlap_and_disagreement_have_hand_computed_values() -> None:
    left, right = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
    assert (overlap(left, left), overlap(left, right)) == (1.0, 0.0)
    assert overlap(np.array([[3.0, 1.0]]), np.array([[1.0, 1.0]])) == 0.75
    assert np.isnan(overlap(left, 0 * left))
    assert mean_overlap(np.stack([left, right, left])) == pytest.approx(1 / 3)
    assert disagreement(np.stack([left, 7 * right])[None])[0].tolist() == [[0.5, 0.5]]
    assert disagreement(np.stack([left, 7 * left])[None])[0].tolist() == [[0.0, 0.0]]
