"""Recognises files by their suffix: images that are read, files to ignore, formats to convert first."""

from __future__ import annotations

from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp"),
        *(".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
    )
)
# Files that often lie beside images: they are ignored without a note.
BESIDE = frozenset((".csv", ".json", ".md", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"))
BESIDE_NAMES = frozenset(("thumbs.db", "desktop.ini", "icon\r", "license", "readme"))
# Folders of operating systems and network drives: some hold small copies of the images.
SYSTEM_FOLDERS = frozenset(
    ("__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found",
     "system volume information")
)  # fmt: skip

_SLIDE = ("whole-slide image", "cut the slides into tiles (PNG, JPEG or TIFF) first")
_DICOM = ("DICOM", "export the images as PNG first")
_VOLUME = ("volume", "save its slices as PNG first")
_ARRAY = ("array file", "save each image as PNG first")
_ARCHIVE = ("archive", "unpack it first")
_OTHER_IMAGE = ("image format that is not read", "convert the images to PNG first")
_NOT_READ = {
    **dict.fromkeys(
        (".svs", ".ndpi", ".ndpis", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".czi", ".qptiff",
         ".isyntax", ".vsi", ".afi", ".zvi", ".lif", ".tmap", ".sdpc", ".kfb"),
        _SLIDE,
    ),
    **dict.fromkeys((".dcm", ".dicom", ".ima", ".dic"), _DICOM),
    **dict.fromkeys((".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".img", ".hdr"), _VOLUME),
    **dict.fromkeys((".npy", ".npz", ".h5", ".hdf5", ".mat", ".pt", ".pkl", ".zarr"), _ARRAY),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".tar.gz", ".7z", ".rar", ".bz2"), _ARCHIVE),
    **dict.fromkeys(
        (".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".psd", ".pdf", ".svg",
         ".eps", ".dng", ".raw", ".nef", ".cr2", ".arw", ".tga", ".exr"),
        _OTHER_IMAGE,
    ),
}  # fmt: skip


def suffix_of(path: str) -> str:
    """The suffix in lower case; both parts of one like `.nii.gz`.

    Examples
    --------
    >>> suffix_of("a/brain.NII.gz"), suffix_of("a/1.2.png"), suffix_of("README")
    ('.nii.gz', '.png', '')
    """
    ends = [end.lower() for end in PurePosixPath(path).suffixes]
    double = "".join(ends[-2:])
    return double if double in _NOT_READ else (ends[-1] if ends else "")


def is_image(path: str) -> bool:
    """Whether a file is read as an image."""
    return suffix_of(path) in IMAGE_SUFFIXES


def is_beside(path: str) -> bool:
    """Whether a file is ignored without a note."""
    return suffix_of(path) in BESIDE or PurePosixPath(path).name.lower() in BESIDE_NAMES


def not_read(suffix: str) -> tuple[str, str] | None:
    """The kind of files with this suffix, and how to convert them; None if not known.

    Examples
    --------
    >>> not_read(".svs")[0], not_read(".abc")
    ('whole-slide image', None)
    """
    return _NOT_READ.get(suffix)
