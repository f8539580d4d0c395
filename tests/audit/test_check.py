"""Every inserted fault is found by name; a clean data set has no findings."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.audit import inspect
from ensemble_kit.audit.check import check_data, quick_check
from ensemble_kit.audit.color import QUANTILES, color_features
from ensemble_kit.audit.findings import Audit, Finding
from ensemble_kit.audit.fingerprint import clusters, dct_signs, near_pairs, symmetries, thumbnail
from ensemble_kit.audit.open import open_data
from ensemble_kit.folds import make_folds
from ensemble_kit.images.decode import read_image
from ensemble_kit.images.digests import with_digests
from ensemble_kit.images.strips import strips
from ensemble_kit.images.tiles.layout import colored
from ensemble_kit.manifest.layouts.csv_table import read_csv_table
from ensemble_kit.manifest.layouts.detect import read_manifest
from ensemble_kit.manifest.phantom.write import write_phantom
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import Run


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 60 synthetic fields of 20 patients, as plain files."""
    made = write_phantom(
        tmp_path_factory.mktemp("raw") / "p", n_patients=20, images_per_patient=3, image_size=64
    )
    manifest = read_manifest(made)
    root = tmp_path_factory.mktemp("clean")
    lines = ["path,label,patient,split"]
    for row in manifest.table.itertuples():
        shutil.copy(made / row.path, root / f"{row.sample_id}.png")
        lines.append(f"{row.sample_id}.png,{row.label},{row.group},{row.split}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def planted(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "d"))


def rows(root: Path) -> list[list[str]]:
    return [line.split(",") for line in (root / "manifest.csv").read_text().split()[1:]]


def add(root: Path, name: str, like: list[str], **changes: str) -> None:
    row = (
        dict(zip(("path", "label", "patient", "split"), like, strict=True))
        | {"path": name}
        | changes
    )
    with open(root / "manifest.csv", "a") as file:
        file.write(",".join(row[c] for c in ("path", "label", "patient", "split")) + "\n")


def audit(root: Path) -> Audit:
    return check_data(read_csv_table(root / "manifest.csv", split_by="image"), leak=False)


def found(root: Path) -> dict[str, Finding]:
    return {f.kind: f for f in audit(root).findings if f.kind != "few-groups"}


def test_a_clean_set_has_no_finding(clean: Path) -> None:
    assert found(clean) == {}
    assert audit(clean).exit_code == 0


@pytest.mark.parametrize(
    ("change", "kind", "severity"),
    [
        ({"label": "other"}, "duplicate-two-labels", "error"),
        ({"patient": "new", "split": "test"}, "duplicate-across-splits", "error"),
        ({"patient": "new"}, "duplicate-across-groups", "error"),
        ({}, "duplicate-within-group", "warning"),
    ],
)
def test_rows_27_and_28_an_exact_copy_is_reported_by_the_parts_that_it_is_in(
    planted: Path, change: dict[str, str], kind: str, severity: str
) -> None:
    like = next(r for r in rows(planted) if r[3] == "train" and r[1] == "2+")
    change = {k: ("3+" if v == "other" else v) for k, v in change.items()}
    Image.open(planted / like[0]).save(planted / "copy.bmp")  # Different bytes, equal pixels.
    add(planted, "copy.bmp", like, **change)
    finding = found(planted)[kind]
    assert (finding.severity, finding.count) == (severity, 1)
    assert "copy.bmp" in finding.examples[0]
    assert audit(planted).exit_code == (3 if severity == "error" else 0)


@pytest.mark.parametrize("turn", range(7))
def test_row_27_turned_mirrored_and_reencoded_copies_are_found(planted: Path, turn: int) -> None:
    like = next(r for r in rows(planted) if r[3] == "train")
    image = Image.open(planted / like[0]).convert("RGB").transpose(Image.Transpose(turn))
    image.resize((80, 80)).save(planted / "copy.jpg", quality=60)
    add(planted, "copy.jpg", like, patient="new")
    finding = found(planted)["near-duplicate-across-groups"]
    assert (finding.severity, finding.count) == ("warning", 1)


def test_nearly_equal_group_names_are_a_warning(planted: Path) -> None:
    text = (planted / "manifest.csv").read_text()
    like = next(r for r in rows(planted) if r[3] == "train")
    changed = text.replace(",".join(like), ",".join([*like[:2], f"{like[2].lower()}.0", like[3]]))
    (planted / "manifest.csv").write_text(changed)
    assert found(planted)["groups-alike"].severity == "warning"
    assert like[2] in found(planted)["groups-alike"].examples[0]
    quick = quick_check(read_csv_table(planted / "manifest.csv", split_by="image"))
    assert "groups-alike" in {f.kind for f in quick.findings}


def test_unknown_groups_of_an_older_manifest_are_an_error(planted: Path) -> None:
    manifest = read_csv_table(planted / "manifest.csv", split_by="image")
    table = manifest.table.assign(
        group=manifest.table["group"].where(manifest.table.index > 3, "NA")
    )
    old = dataclasses.replace(manifest, table=table)
    finding = next(f for f in quick_check(old).findings if f.kind == "unknown-groups")
    assert (finding.severity, finding.count) == ("error", 4)


def test_row_29_a_patient_on_both_sides_is_named(planted: Path) -> None:
    text = (planted / "manifest.csv").read_text()
    like = next(r for r in rows(planted) if r[3] == "train")
    changed = text.replace(",".join(like), ",".join([*like[:3], "test"]))
    (planted / "manifest.csv").write_text(changed)
    assert found(planted)["group-on-both-sides"].examples == (like[2],)


def test_rows_14_to_24_unusable_files_are_listed_by_path_all_at_once(planted: Path) -> None:
    like = rows(planted)[0]
    pixels = np.asarray(Image.open(planted / like[0]))
    (planted / "zero.png").touch()
    (planted / "page.jpg").write_text("<html>")
    (planted / "half.png").write_bytes((planted / like[0]).read_bytes()[:2000])
    Image.fromarray(pixels[:, :, 0].astype(np.float32) / 255).save(planted / "float.tif")
    Image.fromarray(pixels).save(
        planted / "film.gif", save_all=True, append_images=[Image.fromarray(255 - pixels)]
    )
    Image.fromarray(pixels[:1, :1]).save(planted / "dot.png")
    names = ("zero.png", "page.jpg", "half.png", "float.tif", "film.gif", "dot.png")
    for name in names:
        add(planted, name, like)
    finding = found(planted)["unusable"]
    assert (finding.severity, finding.count) == ("error", 6)
    assert all(any(name in text for text in finding.examples) for name in names)


def test_rows_17_to_20_converted_files_are_noted_with_their_rule(planted: Path) -> None:
    like = rows(planted)[0]
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 65536, (64, 64), dtype=np.uint16)
    Image.fromarray(grey).save(planted / "deep.png")
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).convert("CMYK").save(
        planted / "print.tif"
    )
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).convert("P").save(
        planted / "palette.png"
    )
    Image.fromarray(rng.integers(0, 256, (64, 64, 4), np.uint8)).save(planted / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(
        planted / "turned.jpg", exif=exif
    )
    for name in ("deep.png", "print.tif", "palette.png", "alpha.png", "turned.jpg"):
        add(planted, name, like)
    notes = {f.examples[0]: f.message for f in audit(planted).findings if f.kind == "converted"}
    assert "16-bit" in notes["deep.png"]
    assert "CMYK" in notes["print.tif"]
    assert "palette" in notes["palette.png"]
    assert "transparency" in notes["alpha.png"]
    assert "EXIF" in notes["turned.jpg"]
    assert audit(planted).exit_code == 0


def test_deep_colour_and_camera_jpegs_are_noted_with_their_rule(planted: Path) -> None:
    like = rows(planted)[0]
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    values = (pixels.astype(np.uint16) * 257).astype(">u2")
    (planted / "deep.ppm").write_bytes(b"P6 64 64 65535\n" + values.tobytes())
    image = Image.fromarray(255 - pixels)
    image.save(planted / "phone.jpg", "MPO", save_all=True, append_images=[image.resize((8, 8))])
    for name in ("deep.ppm", "phone.jpg"):
        add(planted, name, like)
    findings = audit(planted).findings
    notes = {f.examples[0]: f.message for f in findings if f.kind == "converted"}
    assert "upper 8 bits" in notes["deep.ppm"]
    assert "MPO" in notes["phone.jpg"]
    assert not any("MPO RGB" in f.message for f in findings if f.kind == "mixed-formats")


def test_an_image_that_does_not_fit_into_memory_is_reported(
    planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = rows(planted)[3][0]

    def read(root: Path, path: str) -> np.ndarray:
        if path == large:
            raise MemoryError("Unable to allocate 181. MiB")
        return read_image(root, path)

    monkeypatch.setattr(inspect, "read_image", read)
    finding = found(planted)["unusable"]
    assert (finding.severity, finding.count) == ("error", 1)
    assert large in finding.examples[0]
    assert "181. MiB" in finding.examples[0]


@pytest.mark.parametrize("shape", [(8, 9, 3), (63, 200, 3), (40, 31, 3)])
def test_strips_change_neither_colour_statistics_nor_thumbnails(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8) // 3 * 2
    whole = color_features(image), thumbnail(image), colored(image, "grayscale")
    monkeypatch.setattr("ensemble_kit.images.strips.STRIP_PIXELS", 500)
    assert len(list(strips(*shape[:2]))) in (1, 3, 32)
    for got, want in zip(
        (color_features(image), thumbnail(image), colored(image, "grayscale")), whole, strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_colour_statistics_equal_those_of_numpy() -> None:
    image = np.random.default_rng(0).integers(40, 220, (50, 37, 3), dtype=np.uint8)
    pixels = image / 255
    few = pixels[::2, ::2].reshape(-1, 3)
    both = np.concatenate([few, np.ptp(few, axis=1)[:, None]], axis=1)
    edges = [np.abs(pixels[:, k:] - pixels[:, :-k]).mean(axis=(0, 1)) for k in (1, 4)]
    quantiles = np.percentile(both, QUANTILES, axis=0).ravel()
    want = np.concatenate([both.mean(axis=0), both.std(axis=0), quantiles, *edges])
    np.testing.assert_allclose(color_features(image), want, rtol=1e-5)


def test_an_image_of_a_very_different_size_is_reported(planted: Path) -> None:
    like = rows(planted)[0]
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(planted / "big.png")
    add(planted, "big.png", like)
    assert found(planted)["odd-size"].examples == ("big.png (400 x 400)",)


def test_the_quick_part_finds_equal_files_without_decoding(planted: Path) -> None:
    like = next(r for r in rows(planted) if r[3] == "train")
    shutil.copy(planted / like[0], planted / "copy.png")
    add(planted, "copy.png", like, patient="new")
    manifest = read_csv_table(planted / "manifest.csv")
    assert quick_check(manifest).n_errors == 0
    assert [
        f.kind for f in quick_check(with_digests(manifest)).findings if f.severity == "error"
    ] == ["duplicate-across-groups"]


def test_a_class_of_one_group_is_an_error(planted: Path) -> None:
    rest = [
        ",".join(r)
        for r in rows(planted)
        if r[1] != "0"
        or r[2] == next(x[2] for x in rows(planted) if x[1] == "0" and x[3] == "train")
    ]
    (planted / "manifest.csv").write_text("path,label,patient,split\n" + "\n".join(rest) + "\n")
    few = next(f for f in audit(planted).findings if f.kind == "few-groups")
    assert few.severity == "error"
    assert few.examples[0] == "0: 1"


def test_the_result_is_valid_json(planted: Path) -> None:
    printed = json.loads(json.dumps(audit(planted).to_json(), allow_nan=False))
    assert printed["n_images"] == 60
    assert printed["exit_code"] == 0


def test_the_hashes_of_eight_flips_and_turns_equal_those_of_the_turned_image() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (16, 16)), np.ones((4, 4))).astype(np.uint8)
    thumb = thumbnail(np.dstack([image] * 3))
    for view, signs in zip(symmetries(thumb), dct_signs(thumb), strict=True):
        np.testing.assert_array_equal(dct_signs(np.ascontiguousarray(view))[0], signs)


def test_unrelated_and_blank_images_are_not_pairs() -> None:
    rng = np.random.default_rng(0)
    thumbs = [thumbnail(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(300)]
    thumbs += [thumbnail(np.full((64, 64, 3), 200, np.uint8))] * 3
    assert near_pairs(np.stack([dct_signs(t) for t in thumbs]), np.stack(thumbs)) == []


def test_pairs_beyond_one_block_are_found() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(600)]
    images[590], images[300] = images[3][:, ::-1], images[299].transpose(1, 0, 2)
    thumbs = [thumbnail(i) for i in images]
    pairs = near_pairs(np.stack([dct_signs(t) for t in thumbs]), np.stack(thumbs))
    assert [(a, b) for a, b, _ in pairs] == [(3, 590), (299, 300)]


def test_clusters_follow_chains() -> None:
    assert clusters(5, [(3, 4, 1.0), (1, 3, 1.0)]).tolist() == [0, 1, 2, 1, 1]


def test_folds_by_image_overestimate_colour_on_breakhis(real_data: Path) -> None:
    leak = check_data(read_manifest(real_data, magnification=100)).leak
    assert leak is not None
    assert leak.by_image > 0.84
    assert leak.points > 10


def test_folds_by_image_overestimate_colour_on_the_phantom(tmp_path: Path) -> None:
    leak = check_data(
        read_manifest(write_phantom(tmp_path / "p", n_patients=30, image_size=64))
    ).leak
    assert leak is not None
    assert leak.points > 15
    assert leak.by_group < 0.75


def test_a_run_with_missing_images_is_checked(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(clean, tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path / "here")
    manifest = with_digests(read_csv_table("data/manifest.csv"))
    Run("run").begin(manifest, make_folds(manifest, 2), {})
    (tmp_path / "there").mkdir()
    shutil.move("run", tmp_path / "there" / "run")
    monkeypatch.chdir(tmp_path / "there")
    opened, findings = open_data("run")
    assert findings == []
    assert opened.root == tmp_path / "here" / "data"
    shutil.rmtree(tmp_path / "here")
    opened, findings = open_data("run")
    count = {f.kind: f.count for f in check_data(opened, before=findings).findings}
    assert count["unusable"] == count["changed-since-the-run"] == 60


# -- names ---------------------------------------------------------------------------------


def test_masks_and_nearly_equal_classes_are_warnings() -> None:
    rows = [("a.png", "Benign"), ("a_mask.png", "benign"), ("b.png", "malignant")]
    manifest = Manifest.from_records([(path, path, label, path) for path, label in rows])
    findings = {f.kind: f for f in quick_check(manifest).findings}
    assert findings["masks"].examples == ("a_mask.png",)
    assert findings["names-alike"].examples == ("'Benign' and 'benign'",)
    assert {findings[kind].severity for kind in ("masks", "names-alike")} == {"warning"}


def test_files_skipped_by_the_reader_are_findings(tmp_path: Path) -> None:
    for path in ("b/1.png", "b/1_mask.png", "m/1.png", "m/1.svs"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    _, findings = open_data(tmp_path)
    assert [f.kind for f in findings] == ["reading", "reading"]
    assert ".svs" in findings[0].message
    assert "1 mask" in findings[1].message


def test_an_excerpt_of_breakhis_is_noted_by_magnification() -> None:
    rows = [
        (f"SOB_{t}_{k}-14-2254{i}-{m}-001", "x.png", label, f"2254{i}", "train", m)
        for t, k, label in (("B", "A", "benign"), ("M", "DC", "malignant"))
        for i in range(6)
        for m in ("100", "400")
    ]
    columns = ("sample_id", "path", "label", "group", "split", "magnification")
    found = quick_check(Manifest.from_records(rows, columns=columns)).findings
    (one,) = [f for f in found if f.kind == "incomplete"]
    assert one.severity == "note"
    assert one.count == 2081 - 12 + 1820 - 12
    assert "12 of 2,081 images at 100x" in one.message
    assert "12 of 1,820 images at 400x" in one.message
    others = [(row[0].lower(), *row[1:]) for row in rows]
    assert "incomplete" not in {
        f.kind for f in quick_check(Manifest.from_records(others, columns=columns)).findings
    }
