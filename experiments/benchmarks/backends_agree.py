"""Do the run, a bundle and its graph give the same predictions of the test part? And bf16 and int8?

    python experiments/benchmarks/backends_agree.py RUN BUNDLE [--json FILE]

BUNDLE is an export of RUN with --format onnx.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ensemble_kit as ek
from ensemble_kit.arrays import softmax
from ensemble_kit.export.golden_images import data_root, sources_of
from ensemble_kit.inference.image_predictions import ImagePredictions
from ensemble_kit.run import versions


def int8_proba(run: ek.Run, method: str, sources: list[Any]) -> ImagePredictions:
    """Probabilities with dynamic int8 quantisation of the linear layers (PyTorch)."""
    ensemble = ek.load_ensemble(run, method=method, device="cpu")
    for member in ensemble.members:
        for one in member.by_fold.values():
            torch.ao.quantization.quantize_dynamic(
                one.model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
            )
    return ensemble.predict_sources(sources)


def bf16_proba(run: ek.Run, method: str, sources: list[Any]) -> ImagePredictions:
    """Probabilities under bf16 autocast."""
    ensemble = ek.load_ensemble(run, method=method, device="cpu")
    for member in ensemble.members:
        for one in member.by_fold.values():
            one.model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(one.model.forward)
    return ensemble.predict_sources(sources)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("bundle")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    run = ek.Run(args.run)
    manifest = data_root(run, run.manifest())
    sources = sources_of(manifest.part("test"))
    opened = {
        "run, torch": ek.load_ensemble(run, device="cpu"),
        **{
            f"bundle, {backend}": ek.load_ensemble(args.bundle, device="cpu", backend=backend)
            for backend in ("torch", "onnxruntime", "openvino")
        },
    }
    method = opened["run, torch"].method
    found = {name: one.predict_sources(sources) for name, one in opened.items()}
    found["run, torch, bf16"] = bf16_proba(run, method, sources)
    found["run, torch, int8 linear layers"] = int8_proba(run, method, sources)
    stored = opened["run, torch"].stored
    logits = run.predictions("test").select(stored.member_names).logits
    want, of_members = stored.combine(logits).proba, softmax(logits)
    rows = [
        {
            "what": name,
            "largest_difference": float(np.abs(one.proba - want).max()),
            "largest_difference_of_a_member": float(np.abs(one.member_proba - of_members).max()),
            "other_classes": int((one.proba.argmax(axis=1) != want.argmax(axis=1)).sum()),
            "n_images": len(want),
        }
        for name, one in found.items()
    ]
    print(f"{method}: compared with the stored predictions of the test part")
    for row in rows:
        print(
            f"{row['what']:32} {row['largest_difference']:.2e}, of a member "
            f"{row['largest_difference_of_a_member']:.2e}, "
            f"{row['other_classes']} of {row['n_images']} classes differ"
        )
    if args.json:
        content = {"benchmark": "backends_agree", "method": method, "versions": versions(), "rows": rows}  # fmt: skip
        args.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
