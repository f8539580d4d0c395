"""`/metrics` follows the grammar of Prometheus's text format."""

from __future__ import annotations

import re

from starlette.testclient import TestClient

from ensemble_kit.serve.counts import BUCKETS, Counts

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = rf'{NAME}="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


def parsed(text: str) -> dict[str, list[tuple[str, float]]]:
    """Samples by metric, as labels (or suffix) and value. Fails if the text violates the grammar."""
    assert text.endswith("\n")
    found: dict[str, list[tuple[str, float]]] = {}
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in found
            found[name] = []
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            kind = kinds[name]
            rest = match[1].removeprefix(name)
            assert rest in SUFFIXES.get(kind, ("",)), line
            assert kind != "counter" or name.endswith("_total")
            found[name].append((rest + (match[2] or ""), float(match[3])))
    return found


def test_the_text_is_valid_for_any_class_names() -> None:
    counts = Counts()
    for name in ("benign", 'a"b\\c\nd', "benign"):
        counts.image(name)
    counts.request("/predict", 200, 0.03)
    counts.request("other", 404, 99.0)
    found = parsed(counts.text(n_batches=2, n_in_work=1))
    assert dict(found["ensemble_kit_images_total"])['predicted="benign"'] == 2
    assert dict(found["ensemble_kit_requests_total"]) == {
        'route="/predict",status="200"': 1,
        'route="other",status="404"': 1,
    }
    times = dict(found["ensemble_kit_request_seconds"])
    buckets = [times[f'_bucketle="{end}"'] for end in (*BUCKETS, "+Inf")]
    assert buckets == sorted(buckets)
    assert buckets[0] == 0
    assert buckets[-2:] == [1, 2]
    assert times["_count"] == 2
    assert times["_sum"] == 99.03


def test_metrics_count_requests_and_classes(client: TestClient, image: bytes) -> None:
    before = parsed(client.get("/metrics").text)
    assert client.post("/predict", content=image).status_code == 200
    client.get("/any/path/at/all")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    after = parsed(response.text)
    assert "at/all" not in response.text
    row = 'route="/predict",status="200"'
    requests = "ensemble_kit_requests_total"
    assert dict(after[requests])[row] == dict(before[requests]).get(row, 0) + 1
    images = "ensemble_kit_images_total"
    assert sum(n for _, n in after[images]) == sum(n for _, n in before[images]) + 1
    assert after["ensemble_kit_requests_in_work"] == [("", 0.0)]
