"""The free memory of the machine, or of the container."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def host_free() -> int:
    """Free memory in bytes: of the machine, or of this container."""
    machine = field(Path("/proc/meminfo"), "MemAvailable:")
    if machine is None:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = (_number(CGROUP / f"memory.{name}") for name in ("max", "current"))
    return machine if limit is None or used is None else max(0, min(machine, limit - used))


def field(path: Path, name: str) -> int | None:
    """The bytes of `name` in a memory table of Linux; None if not found."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(name)]
    return int(found[0]) * 1024 if found else None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
