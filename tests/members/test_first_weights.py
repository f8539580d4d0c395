"""Where a network starts: from a checkpoint that fits, whatever its container, and never from code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from ensemble_kit.errors import DataError, EnvironmentFault
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks import build_network, head_parameters
from ensemble_kit.members.pretrained import require_first_weights


def built(
    network: str = "tiny_cnn", n_classes: int = 2, weights: Path | None = None
) -> torch.nn.Module:
    torch.manual_seed(0 if weights is None else 99)
    member = Member(network, pretrained=False, weights=weights)
    return build_network(member, n_classes, image_size=32)


def same_body(one: torch.nn.Module, other: torch.nn.Module) -> bool:
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
    assert same_body(loaded, source)
    assert torch.equal(loaded.fc.weight, source.fc.weight)  # type: ignore[union-attr]
    torch.manual_seed(99)
    assert not same_body(
        build_network(Member("tiny_cnn", pretrained=False), 2, image_size=32), source
    )


def test_a_head_of_other_classes_is_drawn_anew(tmp_path: Path) -> None:
    source = built(n_classes=8)
    loaded = built(n_classes=2, weights=stored("safetensors", tmp_path, source.state_dict()))
    assert same_body(loaded, source)
    assert loaded.fc.weight.shape == (2, 64)  # type: ignore[union-attr]


def test_another_architecture_is_refused_with_the_tensors_that_lack(tmp_path: Path) -> None:
    path = stored("safetensors", tmp_path, built("tiny_resnet").state_dict())
    with pytest.raises(
        DataError, match=r"lacks or reshapes \d+ of \d+ tensors: stages\.0"
    ) as caught:
        built("tiny_cnn", weights=path)
    assert caught.value.exit_code == 3


def test_a_deeper_network_of_the_same_family_is_refused_with_what_would_be_left_over(
    tmp_path: Path,
) -> None:  # row 11
    torch.manual_seed(0)
    deeper = timm.create_model("ek_tiny_cnn", num_classes=2, widths=(16, 32, 64, 64))
    path = stored("safetensors", tmp_path, deeper.state_dict())
    with pytest.raises(DataError, match=r"more than the network takes: 5 of 26 tensors: stages\.6"):
        built("tiny_cnn", weights=path)
    member = Member("tiny_cnn", pretrained=False, weights=path, head=(8,))
    with pytest.raises(DataError, match=r"more than the network takes: 5 of 26 .*body\.stages\.6"):
        build_network(member, 2, image_size=32)


def test_classifiers_counters_and_indices_of_another_file_are_left_out(tmp_path: Path) -> None:
    source = built()
    further = {
        "fc.3.weight": torch.zeros(4, 2),  # a head of more layers
        "aux1.fc.weight": torch.zeros(4, 2),
        "AuxLogits.conv0.conv.weight": torch.zeros(2, 2, 1, 1),
        "stages.1.num_batches_tracked": torch.tensor(3),
        "relative_position_index": torch.arange(4),
    }
    path = stored("safetensors", tmp_path, {**source.state_dict(), **further})
    for head in ((), (8,)):
        member = Member("tiny_cnn", pretrained=False, weights=path, head=head)
        loaded = build_network(member, 2, image_size=32)
        assert same_body(loaded.body if head else loaded, source)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, number: float) -> None:
    state = built().state_dict()
    state["stages.2.0.weight"][3, 2, 1, 0] = number
    with pytest.raises(
        DataError, match=r"NaN or infinite ones in 1 of 20 tensors: stages\.2\.0\.w"
    ):
        built(weights=stored("safetensors", tmp_path, state))


def test_a_file_without_the_counters_of_batch_normalisation_fits(tmp_path: Path) -> None:
    source = built()
    state = {k: v for k, v in source.state_dict().items() if "num_batches_tracked" not in k}
    assert len(state) < len(source.state_dict())
    assert same_body(built(weights=stored("state", tmp_path, state)), source)


def test_a_plain_network_s_file_fits_the_body_under_a_head_of_our_own(tmp_path: Path) -> None:
    source = built()
    path = stored("safetensors", tmp_path, source.state_dict())
    member = Member("tiny_cnn", pretrained=False, weights=path, head=(8,))
    loaded = build_network(member, 2, image_size=32)
    assert same_body(loaded.body, source)  # type: ignore[arg-type]
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
    with torch.inference_mode():  # timm keeps what equal channels give
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
    with pytest.raises(DataError, match="First weights are a file of tensors"):
        built(weights=path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_no_checkpoint_is_refused_with_its_path(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="broken"):
        built(weights=path)


def test_what_a_file_is_not_is_said_in_words(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_text("hello")
    with pytest.raises(DataError, match=r"w\.pt': it is no whole PyTorch file\. Check the path"):
        built(weights=path)
    torch.save(built(), path)  # the network itself, not its tensors
    with pytest.raises(DataError, match=r"w\.pt': it holds Python objects") as caught:
        built(weights=path)
    assert str(caught.value).isprintable()
    with pytest.raises(DataError, match=r"nothere\.pt': no such file or directory\."):
        built(weights=tmp_path / "nothere.pt")
    path = tmp_path / "w.safetensors"
    path.write_text("hello")
    with pytest.raises(DataError, match=r"it is no whole \.safetensors file\."):
        built(weights=path)


@pytest.mark.parametrize("content", [[1, 2, 3], {0: torch.zeros(2)}, {"model": "x"}])
def test_a_file_of_something_else_than_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "list.pt")
    with pytest.raises(DataError, match="no mapping of names to tensors"):
        built(weights=tmp_path / "list.pt")


def test_a_cut_off_checkpoint_is_refused(tmp_path: Path) -> None:
    for kind in ("safetensors", "state"):
        path = stored(kind, tmp_path, built().state_dict())
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(DataError, match=path.name):
            built(weights=path)


def test_published_weights_that_cannot_be_had_name_both_ways_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"--weights PATH.*--no-pretrained") as caught:
        require_first_weights([Member("resnet18"), Member("tiny_cnn")])
    assert "those of resnet18 are not cached" in str(caught.value)
    assert caught.value.exit_code == 4
    require_first_weights([Member("resnet18", pretrained=False), Member("tiny_cnn")])


def test_both_heads_of_a_distilled_network_may_be_other_ones(tmp_path: Path) -> None:
    def distilled(n_classes: int, weights: Path | None = None) -> torch.nn.Module:
        member = Member("deit_tiny_distilled_patch16_224", pretrained=False, weights=weights)
        return build_network(member, n_classes, image_size=224)

    source = distilled(8)
    assert head_parameters(source) == [
        "head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]  # fmt: skip
    loaded = distilled(2, stored("safetensors", tmp_path, source.state_dict()))
    assert loaded.head_dist.weight.shape == (2, 192)  # type: ignore[union-attr]
    assert torch.equal(loaded.dist_token, source.dist_token)  # type: ignore[arg-type]
