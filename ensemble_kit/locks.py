"""A lock on a file, which the kernel releases when its process ends.

Links are not followed, and the file is not changed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ensemble_kit.errors import IntegrityError

# Errors of file systems without locks: Lustre without flock, NFS without lockd, FUSE.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
LOCKED_ERRORS = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
POLL_SECONDS = 0.05


@contextlib.contextmanager
def file_lock(path: Path, *, seconds: float = math.inf) -> Iterator[bool]:
    """Lock a file inside a `with` block.

    Parameters
    ----------
    path : Path
        Created if it is missing; its folder must exist.
    seconds : float
        Longest time to wait for another process.

    Yields
    ------
    bool
        Whether the file is locked. False: the file system does not support locks.

    Raises
    ------
    TimeoutError
        Another process still has the lock.
    IntegrityError
        The file is a link, a pipe or a folder.
    OSError
        The file cannot be opened.
    """
    handle = _opened(path)
    try:
        # Closing the file frees the lock.
        yield _taken(handle, path, time.monotonic() + seconds)
    finally:
        os.close(handle)


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise _not_regular_file(path) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _not_regular_file(path)
    return handle


def _taken(handle: int, path: Path, end: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            if error.errno not in LOCKED_ERRORS:
                raise OSError(error.errno, error.strerror, str(path)) from error
        else:
            return True
        if time.monotonic() >= end:
            raise TimeoutError(str(path))
        time.sleep(POLL_SECONDS)


def _not_regular_file(path: Path) -> IntegrityError:
    what = f"a link to '{path.readlink()}'" if path.is_symlink() else "a folder, a pipe or a device"
    return IntegrityError(
        f"'{path}' is {what}, not a lock file",
        "a lock file must be a regular file; the target was not changed",
        "Check where the folder comes from, delete that name, then run the same command",
    )
