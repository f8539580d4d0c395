"""Published values: the counts that match them, and the comparison with our values."""

from __future__ import annotations

from ensemble_kit.evaluation.grim import verify_claim
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.reproduce.experiment_file import Expected, Plan, Published
from ensemble_kit.reproduce.results import Results


def count_of(one: Published) -> str:
    """The counts that match a published value, as text. A dash if the number of images is unknown.

    Examples
    --------
    >>> count_of(Published(value=".4565", images=977)), count_of(Published(value="99.62%", images=1182))
    ('446 of 977', 'no count of 1182')
    """
    if one.images is None:
        return "—"
    claim = verify_claim(one.value, one.images)
    if not claim.possible:
        return f"no count of {one.images}"
    few, most = claim.fewest, claim.most
    return f"{few if few == most else f'{few} to {most}'} of {one.images}"


def differences(expected: Expected, manifest: Manifest) -> list[str]:
    """The differences from the published data, as sentences. Empty if all counts agree."""
    found = []
    counts = {"images": len(manifest), "test images": len(manifest.part("test"))}
    for what, wanted in (("images", expected.images), ("test images", expected.test)):
        if wanted is not None and counts[what] != wanted:
            found.append(f"The published data have {wanted} {what}; these have {counts[what]}.")
    have = manifest.counts().groupby("label")["images"].sum().to_dict()
    for name, wanted in expected.classes.items():
        if have.get(name, 0) != wanted:
            found.append(
                f"The published data have {wanted} images of class '{name}'; these have {have.get(name, 0)}."
            )
    return found


def published_rows(
    plan: Plan, results: Results, manifest: Manifest
) -> list[tuple[str, str, str, str, str]]:
    """One row per published value: value, count, source, remark, and our accuracy.

    Our accuracy is shown only for a full run on the published data.
    """
    is_comparable = not plan.is_quick and not differences(plan.file.expected, manifest)
    rows = []
    for one in plan.file.published:
        mine = "not comparable"
        for row in results.rows if is_comparable else ():
            wanted = one.method or (row.method if row.is_main else "")
            if (row.variant, row.method) == (one.variant, wanted) and "test" in row.parts:
                mine = str(row.parts["test"].metrics["accuracy"])
        rows.append((one.value, count_of(one), one.source, one.says, mine))
    return rows
