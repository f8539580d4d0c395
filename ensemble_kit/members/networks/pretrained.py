"""Published weights: checks before training that they are in the cache or can be downloaded."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import timm

from ensemble_kit.errors import EnvironmentFault, IntegrityError, first_few
from ensemble_kit.files import digest_file
from ensemble_kit.members.member import Member
from ensemble_kit.members.registry import timm_name


def require_files(members: Sequence[Member]) -> None:
    """Check that the initial checkpoint of every member exists.

    Raises
    ------
    EnvironmentFault
        A checkpoint is missing.
    """
    absent = sorted({str(m.weights) for m in members if m.weights and not m.weights.is_file()})
    if absent:
        raise EnvironmentFault(
            f"There is no file {first_few(absent)}",
            "--weights needs an existing checkpoint file",
            "Check the path",
        )


def require_init_checkpoints(members: Sequence[Member]) -> None:
    """Check that the initial weights of every member are available.

    Raises
    ------
    EnvironmentFault
        A checkpoint file is missing, or published weights are neither cached nor reachable.
    IntegrityError
        Cached weights are damaged.
    """
    require_files(members)
    for network in sorted({m.network for m in members if m.starts_published}):
        _refuse_damaged(network, _cached_file(network))
    needed = sorted({m.network for m in members if _wants_download(m)})
    if needed and not _hub_is_reachable():
        raise no_weights(needed, "the machine is offline")


def no_weights(networks: Sequence[str], reason: str) -> EnvironmentFault:
    """The error for published weights that are not available."""
    return EnvironmentFault(
        f"The pretrained weights of {first_few(networks)} are not in the cache, and {reason}",
        "members start from timm's pretrained weights by default",
        "Give a checkpoint with --weights PATH, start from random weights with --no-pretrained, "
        "or run once with network access to fill the cache "
        f"({os.environ.get('HF_HUB_CACHE') or os.environ.get('HF_HOME') or '~/.cache/huggingface'})",
    )


def _wants_download(member: Member) -> bool:
    if not member.starts_published or _cached_file(member.network) is not None:
        return False
    config = timm.get_pretrained_cfg(timm_name(member.network))
    return bool(config and (config.hf_hub_id or config.url))


def _cached_file(network: str) -> Path | None:
    """Path of a network's published weights in the hub's cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(timm_name(network))
    if config is None or not config.hf_hub_id:
        return None
    for name in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(config.hf_hub_id, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _refuse_damaged(network: str, path: Path | None) -> None:
    """Compare a cached file with its SHA-256, which is its name in the hub's cache."""
    want = path.resolve().name if path else ""
    if path and re.fullmatch("[0-9a-f]{64}", want) and digest_file(path) != want:
        raise IntegrityError(
            f"The cached weights of {network} are damaged: '{path}'",
            f"their SHA-256 must be {want[:12]}...",
            "Delete that file to download it again, or give a checkpoint with --weights PATH",
        )


def _hub_is_reachable() -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(v) for v in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # a proxy resolves names itself
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
