"""A server of a run with small limits. It prints its address as soon as it listens.

python server_harness.py RUN
"""

from __future__ import annotations

import sys

import torch

from ensemble_kit.inference.ensemble import load_ensemble
from ensemble_kit.serve.app import make_app
from ensemble_kit.serve.limits import Limits
from ensemble_kit.serve.start import address_of, bound, serve_on

LIMITS = Limits(max_bytes=200_000, max_pixels=1_000_000, seconds=3, max_requests=4, max_images=4)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with bound("127.0.0.1", 0) as listener:
        app = make_app(load_ensemble(sys.argv[1], method="simplex", device="cpu"), LIMITS)
        listener.listen()
        print(address_of(listener), flush=True)
        serve_on(listener, app, seconds=LIMITS.seconds)
