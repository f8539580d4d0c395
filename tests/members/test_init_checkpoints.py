"""Initial checkpoints: all common formats are read, and no code in a file is run."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from ensemble_kit import archives
from ensemble_kit.errors import DataError, EnvironmentFault
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network, head_parameters
from ensemble_kit.members.networks.init_checkpoint import weights_for
from ensemble_kit.members.networks.pretrained import require_init_checkpoints


def built(
    network: str = "tiny_cnn", n_classes: int = 2, weights: Path | None = None
) -> torch.nn.Module:
    torch.manual_seed(0 if weights is None else 99)
    member = Member(network, pretrained=False, weights=weights)
    return build_network(member, n_classes, image_size=32)


def same_backbone(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(ours[k], theirs[k]) for k in ours if not k.startswith("fc."))


def stored(kind: str, folder: Path, state: dict[str, torch.Tensor]) -> Path:
    path = folder / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "state":
        torch.save(state, path)
    elif kind == "data parallel":
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    else:
        torch.save({kind: state, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "state", "state_dict", "model", "data parallel"])
def test_weights_load_from_every_common_container(tmp_path: Path, kind: str) -> None:
    source = built()
    loaded = built(weights=stored(kind, tmp_path, source.state_dict()))
    assert same_backbone(loaded, source)
    assert torch.equal(loaded.fc.weight, source.fc.weight)  # type: ignore[union-attr]
    torch.manual_seed(99)
    assert not same_backbone(
        build_network(Member("tiny_cnn", pretrained=False), 2, image_size=32), source
    )


PREFIXES = ["module.", "model.", "net.", "_orig_mod.", "module._orig_mod.", "model._orig_mod.",
            "model.resnet.", "module.encoder_q.", "backbone.body.0."]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("head", [(), (8,)])
def test_common_prefixes_are_removed(tmp_path: Path, prefix: str, head: tuple[int, ...]) -> None:
    source = built()
    extra = {"loss.weight": torch.ones(2), "projector.0.weight": torch.ones(4, 4)}
    content = {f"{prefix}{k}": v for k, v in source.state_dict().items()}
    torch.save({"state_dict": {**extra, **content}, "epoch": 3}, tmp_path / "w.ckpt")
    member = Member("tiny_cnn", pretrained=False, weights=tmp_path / "w.ckpt", head=head)
    loaded = build_network(member, 2, image_size=32)
    assert same_backbone(loaded.body if head else loaded, source)  # type: ignore[arg-type]


def test_name_parts_of_compiled_and_sharded_networks_are_removed(tmp_path: Path) -> None:
    source = built()
    state = {f"model.{k}": v for k, v in source.state_dict().items()}
    inside = {
        k.replace("stages.0.", "stages._orig_mod.0._checkpoint_wrapped_module."): v
        for k, v in state.items()
    }
    assert inside.keys() != state.keys()
    assert same_backbone(built(weights=stored("state", tmp_path, inside)), source)


@pytest.mark.parametrize("place", ["net", "model_state_dict", "state_dict_ema", "ema_state_dict",
                                   "teacher", "student", "weights", "params", "model_ema",
                                   "ema.model.state"])  # fmt: skip
def test_weights_are_found_under_any_key(tmp_path: Path, place: str) -> None:
    source = built()
    content: dict[str, object] = source.state_dict()
    for key in reversed(place.split(".")):
        content = {key: content, "epoch": 3, "lr": 0.1}
    torch.save(content, tmp_path / "w.pth")
    assert same_backbone(built(weights=tmp_path / "w.pth"), source)


def taken(path: Path) -> tuple[torch.nn.Module, str]:
    """The network with the file's weights, and the note about their choice."""
    model = built(weights=path)
    return model, weights_for(model, path, ["fc"]).note


@pytest.mark.parametrize(("first", "second"), [
    ("state_dict", "state_dict_ema"), ("student", "teacher"), ("model", "ema"),
    ("module.encoder_k.", "module.encoder_q."), ("momentum_encoder.", "base_encoder."),
])  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_averaged_networks_are_preferred_and_momentum_encoders_come_last(
    tmp_path: Path, first: str, second: str, turned: bool
) -> None:
    other, right = built("tiny_cnn"), built("tiny_cnn")
    with torch.no_grad():
        for weight in right.parameters():
            weight.add_(1)
    pairs = [(first, other), (second, right)]
    if turned:
        pairs.reverse()
    if first.endswith("."):
        content = {f"{p}{k}": v for p, model in pairs for k, v in model.state_dict().items()}
    else:
        content = {key: model.state_dict() for key, model in pairs}
    torch.save(content, tmp_path / "w.pt")
    model, note = taken(tmp_path / "w.pt")
    assert same_backbone(model, right)
    assert note.index(f"'{second.rstrip('.')}'") < note.index(f"'{first.rstrip('.')}'")


def test_of_equal_networks_the_first_in_the_file_is_used_and_named(tmp_path: Path) -> None:
    one, other = built(), built("tiny_cnn")
    with torch.no_grad():
        other.fc.weight.add_(1)  # type: ignore[union-attr, operator]
        next(other.parameters()).add_(1)
    content = {
        f"models.{i}.{k}": v for i, m in enumerate((one, other)) for k, v in m.state_dict().items()
    }
    torch.save(content, tmp_path / "w.pt")
    model, note = taken(tmp_path / "w.pt")
    assert same_backbone(model, one)
    assert "'models.0'" in note
    assert "'models.1'" in note


def test_a_single_network_with_its_optimizer_has_no_note(tmp_path: Path) -> None:
    source = built()
    moments = {"exp_avg": {k: v * 0 for k, v in source.state_dict().items()}}
    torch.save({"optimizer": moments, "model": source.state_dict()}, tmp_path / "w.pt")
    model, note = taken(tmp_path / "w.pt")
    assert same_backbone(model, source)
    assert note == ""


def test_the_choice_between_networks_is_reported_before_training(
    cli: Callable[..., tuple[int, str]], slides: Path, tmp_path: Path
) -> None:
    state = built().state_dict()
    torch.save({"student": state, "teacher": state}, tmp_path / "w.pt")
    code, printed = cli("train-members", "--data", slides, "--members", "tiny_cnn", "--dry-run",
                     "--image-size", 32, "--weights", tmp_path / "w.pt")  # fmt: skip
    assert code == 0
    assert "'teacher'" in printed
    assert "'student'" in printed


def test_an_error_lists_the_content_of_the_file(tmp_path: Path) -> None:
    state = {f"encoder.{k}": v for k, v in built("tiny_resnet").state_dict().items()}
    torch.save({"net": state, "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(DataError) as caught:
        built("tiny_cnn", weights=tmp_path / "w.pt")
    first, shape = next((k, tuple(v.shape)) for k, v in state.items())
    for word in ("'net'", "epoch", first, str(shape)):
        assert word in caught.value.problem
    wide = {k: torch.zeros(2, 2) if k == "stages.0.0.weight" else v
            for k, v in built().state_dict().items()}  # fmt: skip
    with pytest.raises(DataError, match=r"in the file \(2, 2\)"):
        built("tiny_cnn", weights=stored("state", tmp_path, wide))


@pytest.mark.filterwarnings("ignore:.*[Ss]parse")
@pytest.mark.parametrize("claim", ["expanded", "expanded stem", "sparse", "meta"])
def test_a_small_file_that_declares_terabytes_is_refused_by_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    state: dict[str, torch.Tensor] = dict(built().state_dict())
    shape = state["stages.0.0.weight"].shape
    state["stages.0.0.weight"] = {
        "expanded": torch.zeros(1).expand(10**12),
        "expanded stem": torch.zeros(1, 3, 1, 1).expand(10**6, 3, 10**3, 10**3),
        "sparse": torch.sparse_coo_tensor(torch.zeros((4, 0)).long(), torch.zeros(0), shape),
        "meta": torch.empty(shape, device="meta"),
    }[claim]
    path = stored("state", tmp_path, state)
    monkeypatch.setattr(torch, "isfinite", lambda _: pytest.fail("looked at"))
    with pytest.raises(DataError, match=r"w\.pt") as caught:
        build_network(
            Member("tiny_cnn", pretrained=False, weights=path), 2, image_size=32, in_channels=6
        )
    assert caught.value.exit_code == 3


def test_row_52_a_packed_checkpoint_that_unpacks_to_a_thousand_times_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, packed = stored("state", tmp_path, built().state_dict()), tmp_path / "packed.pt"
    large = {**built().state_dict(), "fc.weight": torch.zeros(2**21)}
    source = zipfile.ZipFile(stored("state", tmp_path, large))
    with source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    monkeypatch.setattr(archives, "BOMB_BYTES", 2**22)  # so that gigabytes are megabytes
    monkeypatch.setattr(archives, "BOMB_RATIO", 10)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(DataError, match=r"packed\.pt.*8\.\d MiB"):
        built(weights=packed)
    monkeypatch.setattr(archives, "host_free", lambda: 2**10)
    with pytest.raises(EnvironmentFault, match=r"w\.pt"):
        built(weights=plain)


def test_a_wrong_safetensors_header_is_refused(tmp_path: Path) -> None:
    for end, shape in ((4, [10**12]), (4 * 10**12, [10**12]), (8, [1])):
        about = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}
        text = json.dumps(about).encode()
        path = tmp_path / "w.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
        with pytest.raises(DataError, match=r"w\.safetensors"):
            built(weights=path)
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(DataError, match=r"w\.safetensors"):
        built(weights=path)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64,
                                  torch.float8_e4m3fn])  # fmt: skip
def test_weights_of_other_precisions_load(tmp_path: Path, kind: torch.dtype) -> None:
    source = built()
    state = {k: v.to(kind) if v.is_floating_point() else v for k, v in source.state_dict().items()}
    loaded = built(weights=stored("state", tmp_path, state)).state_dict()
    for name, weight in state.items():
        torch.testing.assert_close(loaded[name], weight.to(loaded[name].dtype))


def test_a_head_of_other_classes_is_initialised_again(tmp_path: Path) -> None:
    source = built(n_classes=8)
    loaded = built(n_classes=2, weights=stored("safetensors", tmp_path, source.state_dict()))
    assert same_backbone(loaded, source)
    assert loaded.fc.weight.shape == (2, 64)  # type: ignore[union-attr]


def test_another_architecture_is_refused_with_the_missing_tensors(tmp_path: Path) -> None:
    path = stored("safetensors", tmp_path, built("tiny_resnet").state_dict())
    with pytest.raises(DataError, match=r"\d+ of \d+ tensors: stages\.0") as caught:
        built("tiny_cnn", weights=path)
    assert caught.value.exit_code == 3


def test_a_deeper_network_of_the_same_family_is_refused_with_the_unused_tensors(
    tmp_path: Path,
) -> None:  # row 11
    torch.manual_seed(0)
    deeper = timm.create_model("ek_tiny_cnn", num_classes=2, widths=(16, 32, 64, 64))
    path = stored("safetensors", tmp_path, deeper.state_dict())
    with pytest.raises(DataError, match=r"5 of 26 tensors: stages\.6"):
        built("tiny_cnn", weights=path)
    member = Member("tiny_cnn", pretrained=False, weights=path, head=(8,))
    with pytest.raises(DataError, match=r"5 of 26 .*body\.stages\.6"):
        build_network(member, 2, image_size=32)


def test_classifiers_counters_and_indices_of_a_file_are_ignored(tmp_path: Path) -> None:
    source = built()
    extra = {
        "fc.3.weight": torch.zeros(4, 2),  # a head of more layers
        "aux1.fc.weight": torch.zeros(4, 2),
        "AuxLogits.conv0.conv.weight": torch.zeros(2, 2, 1, 1),
        "stages.1.num_batches_tracked": torch.tensor(3),
        "relative_position_index": torch.arange(4),
    }
    path = stored("safetensors", tmp_path, {**source.state_dict(), **extra})
    for head in ((), (8,)):
        member = Member("tiny_cnn", pretrained=False, weights=path, head=head)
        loaded = build_network(member, 2, image_size=32)
        assert same_backbone(loaded.body if head else loaded, source)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, number: float) -> None:
    state = built().state_dict()
    state["stages.2.0.weight"][3, 2, 1, 0] = number
    with pytest.raises(DataError, match=r"1 of 20 tensors: stages\.2\.0\.w"):
        built(weights=stored("safetensors", tmp_path, state))


def test_a_file_without_the_counters_of_batch_normalisation_fits(tmp_path: Path) -> None:
    source = built()
    state = {k: v for k, v in source.state_dict().items() if "num_batches_tracked" not in k}
    assert len(state) < len(source.state_dict())
    assert same_backbone(built(weights=stored("state", tmp_path, state)), source)


def test_a_checkpoint_of_the_plain_network_fits_the_backbone_under_a_dense_head(
    tmp_path: Path,
) -> None:
    source = built()
    path = stored("safetensors", tmp_path, source.state_dict())
    member = Member("tiny_cnn", pretrained=False, weights=path, head=(8,))
    loaded = build_network(member, 2, image_size=32)
    assert same_backbone(loaded.body, source)  # type: ignore[arg-type]
    again = Member("tiny_cnn", pretrained=False, head=(8,),
                   weights=stored("state", tmp_path, loaded.state_dict()))  # fmt: skip
    torch.testing.assert_close(
        build_network(again, 2, image_size=32).state_dict(), loaded.state_dict()
    )


@pytest.mark.parametrize("network", ["tiny_cnn", "tiny_resnet", "cnn4", "resnet18"])
@pytest.mark.parametrize("channels", [1, 6])
def test_a_stem_for_three_channels_is_adapted_as_timm_does(
    tmp_path: Path, network: str, channels: int
) -> None:
    source = build_network(Member(network, pretrained=False), 2, image_size=32).eval()
    path = stored("safetensors", tmp_path, source.state_dict())
    member = Member(network, pretrained=False, weights=path)
    loaded = build_network(member, 2, image_size=32, in_channels=channels).eval()
    grey = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():  # timm's adaption does not change the output for equal channels
        want, got = source(grey.expand(-1, 3, -1, -1)), loaded(grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(
    tmp_path: Path, suffix: str, writer: str
) -> None:
    marker, path = tmp_path / "owned", tmp_path / f"evil{suffix}"
    if writer == "torch":
        torch.save({"w": Payload(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(DataError, match=f"evil{suffix}'"):
        built(weights=path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused_with_its_path(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="broken"):
        built(weights=path)


def test_an_error_names_the_kind_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_text("hello")
    with pytest.raises(DataError, match=r"w\.pt'.*PyTorch file"):
        built(weights=path)
    torch.save(built(), path)  # the network itself, not its tensors
    with pytest.raises(DataError, match=r"w\.pt'.*Python objects") as caught:
        built(weights=path)
    assert str(caught.value).isprintable()
    with pytest.raises(DataError, match=r"nothere\.pt'"):
        built(weights=tmp_path / "nothere.pt")
    path = tmp_path / "w.safetensors"
    path.write_text("hello")
    with pytest.raises(DataError, match=r"w\.safetensors'"):
        built(weights=path)


@pytest.mark.parametrize("content", [[1, 2, 3], {0: torch.zeros(2)}, {"model": "x"}])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "list.pt")
    with pytest.raises(DataError, match=r"list\.pt'.*mapping"):
        built(weights=tmp_path / "list.pt")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    for kind in ("safetensors", "state"):
        path = stored(kind, tmp_path, built().state_dict())
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(DataError, match=path.name):
            built(weights=path)


def test_missing_published_weights_are_an_error_with_two_remedies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"--weights PATH.*--no-pretrained") as caught:
        require_init_checkpoints([Member("resnet18"), Member("tiny_cnn")])
    assert "resnet18" in str(caught.value)
    assert caught.value.exit_code == 4
    require_init_checkpoints([Member("resnet18", pretrained=False), Member("tiny_cnn")])


def test_both_heads_of_a_distilled_network_may_differ(tmp_path: Path) -> None:
    def distilled(n_classes: int, weights: Path | None = None) -> torch.nn.Module:
        member = Member("deit_tiny_distilled_patch16_224", pretrained=False, weights=weights)
        return build_network(member, n_classes, image_size=224)

    source = distilled(8)
    assert head_parameters(source) == [
        "head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]  # fmt: skip
    loaded = distilled(2, stored("safetensors", tmp_path, source.state_dict()))
    assert loaded.head_dist.weight.shape == (2, 192)  # type: ignore[union-attr]
    assert torch.equal(loaded.dist_token, source.dist_token)  # type: ignore[arg-type]
