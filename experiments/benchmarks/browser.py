"""Does the page of `serve` work offline, with a keyboard and a screen reader?

    python experiments/benchmarks/browser.py RUN IMAGE [--shots FOLDER] [--json FILE]

Needs chromium, and the packages playwright and axe-playwright-python. The script drops IMAGE on the
page in headless Chromium, reads the class, requests the maps with the keyboard and moves the slider.
axe-core checks each page. Everything is repeated in light and dark and at the width of a phone.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from serve import server

from ensemble_kit.run import versions

LOOKS = {"light-1100": ("light", 1100), "dark-1100": ("dark", 1100), "light-375": ("light", 375)}
SERIOUS = {"serious", "critical"}
DROP = """([name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)), data = new DataTransfer();
  data.items.add(new File([bytes], name, {type: "image/png"}));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.getElementById("drop-image").dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""
OVERFLOWS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def predicted(port: int, image: bytes) -> str:
    """The prediction that the page must show."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/predict", image)
    found = json.loads(connection.getresponse().read())
    return str(found.get("decision", found["predicted"]))


def use(page: Page, image: Path) -> dict[str, Any]:
    """Drop an image, read the class, request the maps, move the slider. Return the observations."""
    drop(page, image.name, image.read_bytes())
    page.wait_for_selector("#result:not([hidden])", timeout=60_000)
    page.focus("#explain")
    page.keyboard.press("Enter")
    page.wait_for_selector("#maps:not([hidden])", timeout=60_000)
    page.focus("#opacity")
    before = page.evaluate("getComputedStyle(document.getElementById('overlay')).opacity")
    page.keyboard.press("ArrowRight")
    after = page.evaluate("getComputedStyle(document.getElementById('overlay')).opacity")
    first = page.get_attribute("#overlay", "src")
    page.focus("input[name=map]:checked")
    page.keyboard.press("ArrowDown")
    return {
        "class_read": page.inner_text("#prediction"),
        "status": page.inner_text("#status"),
        "maps": page.locator("input[name=map]").count(),
        "slider_changes_opacity": float(after) > float(before),
        "another_map_is_shown": page.get_attribute("#overlay", "src") != first,
        "picture": page.evaluate("document.getElementById('picture').naturalWidth"),
    }


class Accessibility:
    """The findings of axe-core on several pages."""

    def __init__(self) -> None:
        self.violations: list[dict[str, Any]] = []
        self.n_passed = 0

    def check(self, page: Page, where: str) -> None:
        found = Axe().run(page).response
        self.n_passed += len(found["passes"])
        self.violations += [
            {"page": where, "rule": one["id"], "impact": one["impact"], "n": len(one["nodes"])}
            for one in found["violations"]
        ]


def finds_a_planted_fault(page: Page) -> bool:
    """Whether axe-core finds pale text on white, to check that it works."""
    page.goto("about:blank")
    page.set_content("<html lang=en><title>x</title><main><h1 style='color:#ddd'>pale</h1></main>")
    found = Axe().run(page).response["violations"]
    return any(one["id"] == "color-contrast" and one["impact"] in SERIOUS for one in found)


def drop(page: Page, name: str, content: bytes) -> None:
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def look(browser: Browser, port: int, image: Path, name: str, shots: Path | None) -> dict[str, Any]:
    """Check one colour scheme and width."""
    scheme, width = LOOKS[name]
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page, hosts, errors = context.new_page(), Counter[str](), []
    page.on("request", lambda one: hosts.update([one.url.split("/")[2] if "//" in one.url else ""]))
    page.on("console", lambda one: errors.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda one: errors.append(str(one)))
    address = f"http://127.0.0.1:{port}"
    found = Accessibility()
    for path in ("/docs", "/"):
        page.goto(address + path)
        found.check(page, path)
        shot(page, shots, f"{name}-{'docs' if path == '/docs' else 'start'}")
    seen = use(page, image)
    found.check(page, "/ with maps")
    overflows = page.evaluate(OVERFLOWS)
    shot(page, shots, f"{name}-maps")
    drop(page, "notes.png", b"no image")
    page.wait_for_selector("#error:not(:empty)", timeout=60_000)
    found.check(page, "/ with an error")
    seen["error"] = page.inner_text("#error")
    shot(page, shots, f"{name}-error")
    own_errors = [
        one for one in errors if "400" not in one
    ]  # the browser also reports the refused image
    seen["planted_fault_is_found"] = finds_a_planted_fault(page)
    context.close()
    others = sorted(host for host in hosts if host not in ("", f"127.0.0.1:{port}"))
    return {
        "look": name, **seen, "axe": found.violations, "axe_rules_passed": found.n_passed,
        "other_hosts": others, "console_errors": own_errors,
        "serious": sum(one["n"] for one in found.violations if one["impact"] in SERIOUS),
        "scrolls_sideways": overflows,
    }  # fmt: skip


def shot(page: Page, folder: Path | None, name: str) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("image", type=Path)
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Neither chromium nor google-chrome was found. Install one of them.")
    with server(args.run, 16) as (port, _), sync_playwright() as play:
        want = predicted(port, args.image.read_bytes())
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        version = browser.version
        rows = [look(browser, port, args.image, name, args.shots) for name in LOOKS]
        browser.close()
    for row in rows:
        print(
            f"{row['look']:11} class {row['class_read']} (want {want}), {row['maps']} maps, axe: "
            f"{row['serious']} serious of {len(row['axe'])} ({row['axe_rules_passed']} rules passed), other hosts {row['other_hosts']}, "
            f"errors {row['console_errors']}, scrolls sideways {row['scrolls_sideways']}"
        )
    is_good = all(
        row["class_read"] == want and row["slider_changes_opacity"] and row["another_map_is_shown"]
        and row["picture"] and row["error"] and row["planted_fault_is_found"] and not row["serious"] and not row["other_hosts"]
        and not row["console_errors"] and not row["scrolls_sideways"]
        for row in rows
    )  # fmt: skip
    if args.json:
        content = {
            "benchmark": "browser", "image": args.image.name, "class": want, "rows": rows,
            "chromium": version, "versions": versions(), "cores": os.cpu_count(),
        }  # fmt: skip
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    raise SystemExit(not is_good)


if __name__ == "__main__":
    main()
