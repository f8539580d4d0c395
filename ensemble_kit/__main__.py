"""The command line: `ensemble-kit`, or `python -m ensemble_kit`."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Load the command line and run it; Ctrl-C while it loads ends with exit code 130."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, _leave)
    from ensemble_kit import cli

    signal.signal(signal.SIGINT, before)
    cli.main()


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    os._exit(130)


if __name__ == "__main__":
    main()
