"""Recognises the name of a single folder: a part of a split, fold, magnification, patient or class."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ensemble_kit.manifest.folders.split_words import PARTS


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


IMAGES = _words("image images img imgs picture pictures photo photos tiles patches")
MASKS = _words(
    "mask masks annotation annotations segmentation segmentations gt groundtruth label_images "
    "ground_truth ground_truths mask_images image_masks"
)
UNLABELLED = _words(
    "pred preds predict prediction predictions inference unlabeled unlabelled unlabel unsup "
    "no_label no_labels nolabel submission"
)
_CONTAINERS = (
    "site|hospital|cent(?:er|re)|clinic|scanner|batch|lab|cohort|institut(?:e|ion)|source|dataset|"
    "data_?set|set|part|chunk|shard|round|day|plate|year|folder|dir|series|session|run"
)
_BARE_CONTAINERS = _words(
    "original originals augmented augmentation aug raw processed preprocessed synthetic"
)
_PATIENTS = (
    "p|pt|pat|patient|case|subject|subj|sub|slide|wsi|id|donor|tcga|specimen|sample|biopsy|block|"
    "pid|mrn|animal|mouse"
)
_CLASS_WORDS = _words(
    "benign malignant normal abnormal tumor tumour tumors cancer cancerous carcinoma adenoma "
    "adenocarcinoma healthy diseased positive negative pos neg control mild moderate severe low "
    "mid medium high metastasis metastatic necrosis stroma idc ilc dcis non"
)
_CLASS_PREFIXES = "class|grade|isup|stage|score|label|gleason|her2|level|cat|type|tier|birads|cin"
# A grade, a stage or a class with its number or letter: isup_1, grade 2, stage_IIa, gleason_3+4.
_GRADED = re.compile(rf"({_CLASS_PREFIXES})(_?\d[\w+]*|_\w{{1,4}})")
_NOISE = _words("set data dataset images image imgs img split part folder seg")
_PART = re.compile(rf"({'|'.join(sorted(PARTS, key=len, reverse=True))})(?:set|data|images)?\d*")


def plain(name: str) -> str:
    """The name in lower case, its words joined by `_`.

    Examples
    --------
    >>> plain("Ground Truth"), plain("seg-Train ")
    ('ground_truth', 'seg_train')
    """
    return re.sub(r"[\s_.\-]+", "_", name.strip().lower()).strip("_")


def part_word(name: str) -> tuple[str, str] | None:
    """The word of a split in a folder's name, and the rest of the name; None if there is none.

    Examples
    --------
    >>> part_word("Train"), part_word("seg_test"), part_word("trainset"), part_word("testis")
    (('train', ''), ('test', 'seg'), ('train', ''), None)
    """
    words = plain(name).split("_")
    found = [(i, match[1]) for i, word in enumerate(words) if (match := _PART.fullmatch(word))]
    if len(found) != 1:
        return None
    at, word = found[0]
    return word, "_".join(words[:at] + words[at + 1 :])


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """The folders of a level that are parts of a split, and the word of each.

    Examples
    --------
    >>> parts_of(["seg_train", "seg_test", "seg_pred"])
    {'seg_train': 'train', 'seg_test': 'test'}
    >>> parts_of(["test_positive", "test_negative"])
    {}
    """
    found = {name: word for name in names if (word := part_word(name)) is not None}
    rests = {rest for _, rest in found.values()}
    both = len({PARTS[word] for word, _ in found.values()}) > 1
    if all(set(rest.split("_")) <= {"", *_NOISE} for rest in rests) or (both and len(rests) == 1):
        return {name: word for name, (word, _) in found.items()}
    return {}


def is_fold(name: str) -> bool:
    """Whether a folder is one fold: `fold_0`, `Fold 1`, `split2`."""
    return re.fullmatch(r"(k_?)?(fold|split)_?\d+", plain(name)) is not None


def is_magnification(name: str) -> bool:
    """Whether a folder is named after a magnification: `40X`, `x10`, `2.5x`."""
    text = name.strip().lower().replace("×", "x")
    return re.fullmatch(r"\d+(\.\d+)?[\s_]*x|x[\s_]*\d+(\.\d+)?", text) is not None


def is_container(name: str) -> bool:
    """Whether a folder is named after a place or a date."""
    text = plain(name)
    if text in _BARE_CONTAINERS or re.fullmatch(r"(19|20)\d\d", text):
        return True
    return re.fullmatch(rf"({_CONTAINERS})(_\w{{1,2}}|_?\d+|[a-f])?", text) is not None


def is_patient(name: str) -> bool:
    """Whether a folder is named like a patient or a slide.

    Examples
    --------
    >>> [is_patient(name) for name in ("10253", "P01", "case-7", "TCGA-A2-A0T2", "22549AB")]
    [True, True, True, True, True]
    >>> [is_patient(name) for name in ("0", "3+", "ISUP_1", "benign", "2019", "grade_100", "CD138")]
    [False, False, False, False, False, False, False]
    """
    text = plain(name)
    if re.fullmatch(r"(19|20)\d\d", text) or _GRADED.fullmatch(text):
        return False
    return (
        re.fullmatch(rf"({_PATIENTS})_?[a-z]{{0,2}}\d\w*|tcga_\w+", text) is not None
        or re.fullmatch(r"\d{3,}[a-z]{0,3}|(?=.*_)\w*\d{3,}[a-z]{0,3}", text) is not None
    )


def is_class(name: str, *, numbers: bool = False) -> bool:
    """Whether a folder is named like a diagnosis or a grade; with `numbers` also `0`, `1`, `2+`.

    Examples
    --------
    >>> is_class("Benign tumor"), is_class("ISUP_3"), is_class("0"), is_class("0", numbers=True)
    (True, True, False, True)
    """
    text = plain(name)
    if re.fullmatch(r"\d\+?", text):
        return numbers
    return _GRADED.fullmatch(text) is not None or bool(_CLASS_WORDS & set(text.split("_")))
