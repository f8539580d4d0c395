"""The start page: markup in names is escaped, and no external resources are loaded."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.serve.limits import Limits
from ensemble_kit.serve.page import CSP, docs_page, page

MARKUP = ("<img src=x onerror=alert(1)>", '"><script>alert(1)</script>')


class Tags(HTMLParser):
    """Collects tags and names of attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}


def test_row_55_markup_in_names_is_escaped(served: Ensemble) -> None:
    plain = Tags(page(served, Limits(), needs_token=True))
    stored = dataclasses.replace(served.stored, class_names=MARKUP, notes=MARKUP, name=MARKUP[0])
    odd = Ensemble(stored, served.members, served.manifest, card=lambda: f"## What it must not be used for\n\n- {MARKUP[1]}\n")  # fmt: skip
    text = page(odd, Limits(), needs_token=True)
    found = Tags(text)
    for tag in ("img", "script"):
        assert found.tags.count(tag) == plain.tags.count(tag)
    assert "onerror" not in found.names
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    schema = {"paths": {MARKUP[0]: {"get": {"summary": MARKUP[1]}}}, "info": {"version": "1"}}
    assert "script" not in Tags(docs_page(schema)).tags


def test_row_55_the_page_runs_only_its_own_script() -> None:
    rules = dict(one.strip().split(" ", 1) for one in CSP.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].startswith("'sha256-")
    assert rules["style-src"].startswith("'sha256-")
    assert "unsafe" not in CSP
    assert "http" not in CSP


def test_the_page_of_pairs_has_two_file_inputs(served: Ensemble) -> None:
    assert 'id="file-pair"' not in page(served, Limits(), needs_token=False)
    manifest = served.manifest.with_columns(
        join="side", pair_path=list(served.manifest.table["path"])
    )
    of_pairs = Ensemble(served.stored, served.members, manifest)
    assert of_pairs.takes_pairs
    text = page(of_pairs, Limits(), needs_token=False)
    for name in ("image", "pair"):
        assert text.count(f'id="file-{name}"') == 1


def test_every_control_has_a_name(served: Ensemble) -> None:
    text = page(served, Limits(), needs_token=True)
    assert '<label for="opacity">' in text
    assert "<legend>" in text
    for region in ('role="status"', 'role="alert"', 'aria-live="polite"', '<html lang="en">'):
        assert region in text
