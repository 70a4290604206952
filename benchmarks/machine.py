"""The machine: which cores are whose, what processes cost, and who else was busy meanwhile."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

Cores = frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Who may use which cores; both may use all where `server` and `others` are the same."""

    server: Cores
    others: Cores

    @property
    def text(self) -> str:
        """Say it in words."""
        if self.server == self.others:
            return f"all use the same {len(self.server)} cores"
        return f"the server has core {_list(self.server)}, broker and client share {_list(self.others)}"


def apart() -> Shares:
    """Return one core for the server, and all others for broker and client; where that can't be, all for all."""
    cores = _allowed()
    if len(cores) < 2:
        return together()
    first = min(cores)
    return Shares(server=frozenset({first}), others=cores - {first})


def together() -> Shares:
    """Return all cores for all."""
    return Shares(server=_allowed(), others=_allowed())


def _allowed() -> Cores:
    known = getattr(os, "sched_getaffinity", None)  # Linux alone can pin.
    return frozenset(known(0)) if known else frozenset(range(os.cpu_count() or 1))


def _list(cores: Cores) -> str:
    return ", ".join(map(str, sorted(cores)))


@contextmanager
def on(cores: Cores) -> Iterator[None]:
    """Let processes that are started in the block have these cores; call it from the main thread."""
    pin = getattr(os, "sched_setaffinity", None)
    if pin is None:
        yield
        return
    before = _allowed()
    pin(0, cores)
    try:
        yield
    finally:
        pin(0, before)


def allow_many_files() -> None:
    """Let this process and those that it starts have as many files open as it may: a connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Tree:
    """A process and all its children."""

    def __init__(self, pid: int | None = None) -> None:
        """This process where there is no `pid`."""
        self._root = psutil.Process(pid)

    def cpu_s(self) -> float:
        """Return the CPU time so far, user and system, ended children included."""
        return sum(sum(process.cpu_times()[:4]) for process in self._processes())

    def resident_mb(self) -> float:
        """Return the memory that is resident, in 10^6 bytes; what several share counts once each."""
        return float(sum(process.memory_info().rss for process in self._processes())) / 1e6

    def _processes(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]


class Stopwatch:
    """Wall-clock time, and what the whole machine's cores did meanwhile."""

    def __init__(self) -> None:
        """It runs from now on."""
        self._began, self._busy = time.monotonic(), _busy_s()
        self._ours = Tree().cpu_s()

    @property
    def seconds(self) -> float:
        """Return for how long it has run."""
        return time.monotonic() - self._began

    @property
    def elsewhere(self) -> float:
        """Return which part of the machine was busy with what is none of ours, from 0 to 1."""
        foreign = (_busy_s() - self._busy) - (Tree().cpu_s() - self._ours)
        return max(0.0, foreign / self.seconds / (os.cpu_count() or 1))


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def described() -> dict[str, str]:
    """Return what one must know of the machine to compare."""
    return {
        "processor": f"{_model()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
