"""A stored network, read as in checkpoints/README.md with Pillow, numpy and timm, gives its logits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps

from ensemble_kit.files import read_csv, read_json
from ensemble_kit.folds import make_folds
from ensemble_kit.images.decode import read_image
from ensemble_kit.images.digests import with_digests
from ensemble_kit.images.stain_normalization import normalise, with_stain_normalisation
from ensemble_kit.manifest.layouts.bci import read_bci
from ensemble_kit.manifest.phantom.write import write_phantom
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.spec_string import make_members
from ensemble_kit.run import Run

README = Path(__file__).resolve().parents[2] / "checkpoints" / "README.md"
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@pytest.fixture(scope="module")
def readme_functions() -> dict[str, Callable[..., Any]]:
    """The functions in the README."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)  # fmt: skip
    (block,) = (block for block in blocks if "def macenko" in block)
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def decoded(path: Path) -> np.ndarray:
    image: Any = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def resized(
    image: np.ndarray, own: dict[str, str], height: int, width: int, readme_functions: Any
) -> Any:
    image = readme_functions[own["stain_norm"]](image) if "stain_norm" in own else image
    if own.get("data_color") == "grayscale":
        luma = np.rint(image.astype(np.float32) @ LUMA).astype(np.uint8)
        image = np.repeat(luma[..., None], 3, axis=2)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def in_color(image: np.ndarray, color: str, readme_functions: Any) -> np.ndarray:
    if color == "grayscale":
        return (image @ LUMA)[..., None] / 255
    return np.asarray(readme_functions["hed"](image) if color == "hed" else image / 255)


def network_input(
    row: Any, root: Path, config: dict[str, Any], readme_functions: Any
) -> np.ndarray:
    own, timms = config.get("ensemble_kit", {}), config["pretrained_cfg"]
    _, height, width = timms["input_size"]
    join, files = own.get("join"), [row["path"], row.get("pair_path")]
    widths = {"stack": (width - width // 2, width // 2), "side": (width // 2,) * 2}
    if join is None:
        files = files[1:] if files[1] and own.get("stain") == "ihc" else files[:1]
    images = [
        resized(decoded(root / file), own, height, wide, readme_functions)
        for file, wide in zip(files, widths.get(join, (width, width)), strict=False)
    ]
    images = [np.concatenate(images, axis=1)] if join in widths else images
    seen = np.concatenate(
        [in_color(i, own.get("color", "rgb"), readme_functions) for i in images], axis=2
    )
    return np.asarray((seen - np.array(timms["mean"])) / np.array(timms["std"]))


def views(images: torch.Tensor, tta: str) -> list[torch.Tensor]:
    if tta == "none":
        return [images]
    four = [images, images.flip(3), images.flip(2), images.flip(2, 3)]
    square = images.shape[2] == images.shape[3]
    return four + [p.transpose(2, 3) for p in four] if tta == "dihedral" and square else four


def logits_by_hand(folder: Path, root: Path, rows: Any, readme_functions: Any) -> np.ndarray:
    config = json.loads((folder / "config.json").read_text())
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = np.stack([network_input(row, root, config, readme_functions) for row in rows])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        each = [model(p) for p in views(batch, config.get("ensemble_kit", {}).get("tta", "none"))]
    return np.asarray(torch.stack(each).mean(dim=0))


# Options of the data, stain normalisation, and members with their entry in config.json.
READ = [
    ({"stain": "he"}, "macenko", {
        "tiny_cnn": {"stain": "he", "stain_norm": "macenko"},
        "tiny_cnn:tta=flips": {"stain": "he", "stain_norm": "macenko", "tta": "flips"},
        "tiny_cnn:color=hed": {"stain": "he", "stain_norm": "macenko", "color": "hed"},
        "tiny_cnn:stain_norm=none": {"stain": "he"},
    }),
    ({"stain": "he"}, "reinhard", {"tiny_cnn": {"stain": "he", "stain_norm": "reinhard"}}),
    ({"stain": "both", "join": "stack"}, "none", {
        "tiny_cnn": {"join": "stack"},
        "tiny_cnn:tta=dihedral": {"join": "stack", "tta": "dihedral"},
        "tiny_cnn:stain=ihc": {"stain": "ihc"},
        "tiny_cnn:stain=he:stain_norm=macenko": {"stain": "he", "stain_norm": "macenko"},
    }),
    ({"stain": "both", "join": "side", "color": "grayscale"}, "none", {
        "tiny_cnn:tta=dihedral": {"join": "side", "data_color": "grayscale", "tta": "dihedral"},
    }),
    ({"stain": "both", "join": "channels"}, "none", {"tiny_cnn:color=grayscale": {"join": "channels", "color": "grayscale"}}),
    ({"stain": "ihc", "color": "grayscale"}, "none", {
        "tiny_cnn": {"stain": "ihc", "data_color": "grayscale"},
        "tiny_cnn:color=grayscale": {"stain": "ihc", "data_color": "grayscale", "color": "grayscale"},
    }),
]  # fmt: skip


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(
        tmp_path_factory.mktemp("p") / "p", n_patients=12, images_per_patient=2, image_size=40
    )


@pytest.mark.parametrize(("options", "stain_norm", "requested"), READ)
def test_config_json_is_enough_to_compute_the_stored_logits(
    phantom: Path,
    tmp_path: Path,
    readme_functions: Any,
    options: Any,
    stain_norm: str,
    requested: dict[str, Any],
) -> None:
    train, test = read_bci(phantom, **options).split(test_size=0.25, seed=0)
    manifest = with_digests(with_stain_normalisation(train.joined(test), stain_norm))
    recipe = Recipe(epochs=1, batch_size=8)
    members = make_members(list(requested), recipe=recipe, image_size=17, pretrained=False)
    run = Run(tmp_path / "run")
    folds = make_folds(manifest, 2, seed=0)
    fit_members(members, manifest, folds, run, device="cpu", tensorboard=False)
    rows = read_csv(run.path / "manifest.csv").to_dict("records")
    root = Path(read_json(run.path / "run.json")["data_folder"])
    for member, want in zip(members, requested.values(), strict=True):
        folder = run.fold_dir(member.name, 0)
        assert read_json(folder / "config.json").get("ensemble_kit") == want
        tested = logits_by_hand(
            folder, root, [r for r in rows if r["split"] == "test"], readme_functions
        )
        stored = np.load(folder / "logits-test.npy")
        np.testing.assert_allclose(tested, stored, atol=1e-3 * stored.std())


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
@pytest.mark.parametrize("stain", ["HE", "IHC"])
def test_the_readme_normalises_stains_like_the_package(
    phantom: Path, readme_functions: Any, method: str, stain: str
) -> None:
    for path in sorted((phantom / stain).rglob("*.png"))[:6]:
        image = np.array(Image.open(path))
        np.testing.assert_array_equal(readme_functions[method](image), normalise(image, method))
    glass = np.full((9, 9, 3), 240, np.uint8)
    np.testing.assert_array_equal(readme_functions[method](glass), normalise(glass, method))


def odd_images() -> dict[str, tuple[Image.Image, dict[str, Any]]]:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (12, 17, 3), dtype=np.uint8))
    alpha = Image.fromarray(rng.integers(0, 256, (12, 17), dtype=np.uint8))
    see_through, grey_through = rgb.copy(), rgb.convert("L")
    see_through.putalpha(alpha)
    grey_through.putalpha(alpha)
    turned = Image.Exif()
    turned[0x0112] = 6
    few = rgb.quantize(8)
    flat = Image.fromarray(np.repeat([[7], [9]], 6, axis=0).repeat(17, axis=1).astype(np.uint8))
    return {
        "rgba.png": (see_through, {}), "rgba.webp": (see_through, {"lossless": True}),
        "la.png": (grey_through, {}), "palette.png": (few, {}),
        "palette-transparent.png": (few, {"transparency": 3}),
        "grey-transparent.png": (flat, {"transparency": 7}),
        "transparent.gif": (few, {"transparency": 2}),
        "grey.png": (rgb.convert("L"), {}), "1-bit.png": (rgb.convert("1"), {}),
        "cmyk.tif": (rgb.convert("CMYK"), {}), "turned.jpg": (rgb, {"exif": turned}),
        "grey16.png": (Image.fromarray(rng.integers(0, 2**16, (12, 17)).astype(np.uint16)), {}),
        "grey16.tif": (Image.fromarray(rng.integers(0, 2**16, (12, 17)).astype(np.uint16)), {}),
    }  # fmt: skip


@pytest.mark.parametrize("name", odd_images())
def test_the_readme_decodes_images_like_the_package(tmp_path: Path, name: str) -> None:
    image, options = odd_images()[name]
    image.save(tmp_path / name, **options)
    np.testing.assert_array_equal(decoded(tmp_path / name), read_image(tmp_path, name))
