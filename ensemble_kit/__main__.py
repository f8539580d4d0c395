"""The command line: `ensemble-kit`, or `python -m ensemble_kit`."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Load the command line and run it; a signal while it loads ends with 128 plus its number."""
    before = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM)}
    from ensemble_kit import cli

    for number, handler in before.items():
        signal.signal(number, handler)
    cli.main()


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    os._exit(128 + number)


if __name__ == "__main__":
    main()
