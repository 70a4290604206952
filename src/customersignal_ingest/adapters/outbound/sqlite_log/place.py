"""Where the file lies: its folder, its lock, and whether its disk is one that can be trusted."""

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

from customersignal_ingest.domain.errors import ConfigurationError

_log = logging.getLogger(__name__)
_MOUNTS = Path("/proc/self/mounts")
_OVER_THE_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "fuse.sshfs", "fuse.glusterfs"})


def make_folder(folder: Path, /) -> None:
    """Make the folder and those above it, each on the disk before it is used."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path, /) -> None:
    """Have the names in the folder on the disk: a file without its name is lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_lock(path: Path, /) -> int:
    """Return the descriptor that makes this process the only writer until it is closed, or until the process ends.

    Raises `ConfigurationError` when another has it.
    """
    # The lock file stays for ever: to delete it would let two processes lock two files of one name.
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigurationError(f"{path} has its one writer already: stop that process or name another file") from None
    return descriptor


def warn_of_network(path: Path, /, *, mounts: Path = _MOUNTS) -> None:
    """Log a warning when the file is on a network file system, where neither locks nor fsync can be trusted."""
    with suppress(OSError):
        kind = _file_system(path.resolve(), mounts.read_text(errors="replace"))
        if kind in _OVER_THE_NETWORK:
            _log.warning("%s is on %s: a network file system may lose what it confirmed; use a local disk", path, kind)


def _file_system(path: Path, mounts: str) -> str | None:
    found = [(Path(point), kind) for _, point, kind, *_ in map(str.split, mounts.splitlines())]
    fitting = [(len(point.parts), kind) for point, kind in found if path.is_relative_to(point)]
    return max(fitting, default=(0, None), key=lambda pair: pair[0])[1]
