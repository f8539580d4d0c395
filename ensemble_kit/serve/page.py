"""The start page and the list of routes: HTML without external resources."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment

from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.serve.limits import Limits

_HERE = Path(__file__).parent
_ENVIRONMENT = Environment(autoescape=True)
_STYLE = (_HERE / "style.html").read_text("utf-8")
_SCRIPT = (_HERE / "script.html").read_text("utf-8")
SECTION = "## What it must not be used for"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CSP = (
    f"default-src 'none'; img-src blob: data:; connect-src 'self'; style-src {_digest(_STYLE)}; "
    f"script-src {_digest(_SCRIPT)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def must_not(card: str) -> list[str]:
    """The excluded uses in a model card, as sentences.

    Examples
    --------
    >>> must_not("# A\\n\\n## What it must not be used for\\n\\n- Diagnosis.\\n\\n## Data\\n\\n- x\\n")
    ['Diagnosis.']
    """
    section = card.partition(SECTION)[2].partition("\n## ")[0]
    return [line[2:] for line in section.splitlines() if line.startswith("- ")]


def page(ensemble: Ensemble, limits: Limits, *, needs_token: bool) -> str:
    """The page that predicts an image of the user."""
    return _rendered(
        "page.html",
        style=_STYLE,
        script=_SCRIPT,
        classes=ensemble.class_names,
        method=ensemble.method,
        noun="Vote shares" if ensemble.gives_vote_shares else "Probabilities",
        n_members=len(ensemble.member_names),
        alpha=None if ensemble.stored.sets is None else ensemble.stored.sets.alpha,
        must_not=must_not(ensemble.card),
        notes=ensemble.notes,
        max_mb=f"{limits.max_bytes / 1e6:.4g}",
        needs_token=needs_token,
        takes_pairs=ensemble.takes_pairs,
        can_explain=bool(ensemble.members),
    )


def docs_page(schema: Mapping[str, Any]) -> str:
    """The page with the routes of the OpenAPI schema."""
    routes = [
        (method.upper(), path, about.get("summary", ""), about.get("description", ""))
        for path, methods in schema["paths"].items()
        for method, about in methods.items()
    ]
    return _rendered("docs.html", style=_STYLE, routes=routes, version=schema["info"]["version"])


def _rendered(name: str, **values: Any) -> str:
    return _ENVIRONMENT.from_string((_HERE / name).read_text("utf-8")).render(values)
