"""The items of TRIPOD+AI (2024) and CLAIM (2024 update): numbers, and topics in short words.

The official wording is in the papers.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Guideline:
    """A reporting guideline.

    Parameters
    ----------
    name : str
    stem : str
        Stem of its files.
    source : str
        The paper, as one line.
    items : mapping of number to topic, as a tuple of pairs
    """

    name: str
    stem: str
    source: str
    items: tuple[tuple[str, str], ...]


TRIPOD_AI = Guideline(
    "TRIPOD+AI",
    "tripod_ai",
    "Collins, G. S., et al. (2024). BMJ 385, e078378. doi:10.1136/bmj-2023-078378",
    (
        ("1", "title"),
        ("2", "abstract"),
        ("3a", "clinical context and existing models"),
        ("3b", "target population, purpose and users"),
        ("3c", "known health inequalities"),
        ("4", "objectives"),
        ("5a", "source of the data"),
        ("5b", "dates of the data"),
        ("6a", "setting and centres"),
        ("6b", "eligibility of participants"),
        ("6c", "treatments received"),
        ("7", "preparation of the data"),
        ("8a", "outcome: definition and assessment"),
        ("8b", "outcome: who assessed it"),
        ("8c", "outcome: blinding"),
        ("9a", "predictors: choice"),
        ("9b", "predictors: definition and measurement"),
        ("9c", "predictors: who assessed them"),
        ("10", "sample size: how it was arrived at"),
        ("11", "missing data"),
        ("12a", "how the data were used and partitioned"),
        ("12b", "how predictors were handled"),
        ("12c", "type of model, model building, internal validation"),
        ("12d", "differences between clusters: method"),
        ("12e", "performance measures"),
        ("12f", "model updating: method"),
        ("12g", "how predictions are calculated"),
        ("13", "class imbalance"),
        ("14", "fairness: method"),
        ("15", "output of the model and thresholds"),
        ("16", "differences between training and evaluation data"),
        ("17", "ethical approval"),
        ("18a", "funding"),
        ("18b", "conflicts of interest"),
        ("18c", "protocol"),
        ("18d", "registration"),
        ("18e", "availability of data"),
        ("18f", "availability of code"),
        ("19", "involvement of patients and the public"),
        ("20a", "flow of participants"),
        ("20b", "characteristics of participants"),
        ("20c", "training and evaluation data compared"),
        ("21", "participants and events in each analysis"),
        ("22", "full specification of the model"),
        ("23a", "performance with intervals, subgroups"),
        ("23b", "differences between clusters: results"),
        ("24", "model updating: results"),
        ("25", "interpretation"),
        ("26", "limitations"),
        ("27a", "use: poor or missing input"),
        ("27b", "use: interaction and expertise of users"),
        ("27c", "next steps"),
    ),
)

CLAIM_2024 = Guideline(
    "CLAIM 2024",
    "claim_2024",
    "Tejani, A. S., et al. (2024). Radiology: Artificial Intelligence 6(4), e240300. "
    "doi:10.1148/ryai.240300",
    (
        ("1", "title: AI methodology"),
        ("2", "abstract"),
        ("3", "background and intended use"),
        ("4", "aims and hypotheses"),
        ("5", "prospective or retrospective"),
        ("6", "goal of the study"),
        ("7", "sources of the data"),
        ("8", "inclusion and exclusion"),
        ("9", "preprocessing"),
        ("10", "selection of subsets"),
        ("11", "de-identification"),
        ("12", "missing data"),
        ("13", "image acquisition"),
        ("14", "reference standard: definition"),
        ("15", "reference standard: rationale"),
        ("16", "reference standard: annotators"),
        ("17", "annotation of the test set"),
        ("18", "variability of annotators"),
        ("19", "assignment to partitions"),
        ("20", "level at which partitions are disjoint"),
        ("21", "intended sample size"),
        ("22", "description of the model"),
        ("23", "software"),
        ("24", "initialisation of weights"),
        ("25", "training"),
        ("26", "selection of the final model"),
        ("27", "ensembling"),
        ("28", "performance metrics"),
        ("29", "significance and uncertainty"),
        ("30", "robustness or sensitivity analysis"),
        ("31", "explainability"),
        ("32", "evaluation on internal data"),
        ("33", "testing on external data"),
        ("34", "trial registration"),
        ("35", "numbers included and excluded"),
        ("36", "characteristics in each partition"),
        ("37", "performance with uncertainty"),
        ("38", "diagnostic performance and its precision"),
        ("39", "analysis of failures"),
        ("40", "limitations"),
        ("41", "implications for practice"),
        ("42", "protocol or technical details"),
        ("43", "availability of software, model and data"),
        ("44", "funding"),
    ),
)
