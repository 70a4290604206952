"""Coverage-guided fuzzing of the body path, from the bodies of the corpus on: `make fuzz`.

Whatever becomes of a body is held against the oracles; anything else that is raised is a finding,
and the body is left in the folder of `--keep`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from tests.hostile.body_path import BodyPath

_MARKER = "--in-this-process"
_TOLD_EVERY = 100_000
_INSTRUMENTED = ["customersignal_ingest.domain", "customersignal_ingest.adapters.inbound.http.encodings"]
_WORDS = [
    *['"event_type":', '"timestamp":', '"properties":', '"user_id":', '"session_id":', '"idempotency_key":'],
    *[
        '"project_id":',
        '"tenant_id":',
        '"acme"',
        '{"events":[',
        "]}",
        '"2026-11-23T10:00:00Z"',
        "null",
        "true",
        "false",
    ],
    *["NaN", "-Infinity", "1e400", "1e-400", "-0", "\\u0000", "\\ud800", "\\udc00", "\\u0065", "[[[[", '{"a":'],
]


def main() -> int:
    """Fuzz as the command line says; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=0, help="how many bodies; without it as many as there is time for")
    parser.add_argument("--seconds", type=int, default=60, help="for how long at the most")
    parser.add_argument("--seed", type=int, default=0, help="of the randomness; without it another one each time")
    parser.add_argument("--keep", type=Path, help="folder for the bodies that reach new code, to go on from next time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        kept = (asked.keep or Path(made) / "kept").absolute()
        kept.mkdir(parents=True, exist_ok=True)
        return _fuzz(asked, kept, Path(made))


def _fuzz(asked: argparse.Namespace, kept: Path, made: Path) -> int:
    """Fuzz in a process of its own, since libFuzzer ends the one that it runs in."""
    from tests.hostile.body_path import INPUT_BYTES_MAX, seeds

    (made / "seeds").mkdir()
    for number, seed in enumerate(seeds()):
        (made / f"seeds/{number}").write_bytes(seed)
    (made / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in _WORDS))
    options = {
        "max_len": INPUT_BYTES_MAX,
        "max_total_time": asked.seconds,
        "runs": asked.runs or -1,
        "seed": asked.seed,
        "dict": made / "words",
        "artifact_prefix": f"{kept}/finding-",
        "timeout": 20,
        "rss_limit_mb": 2048,
        "print_final_stats": 1,
        "verbosity": 0,
    }
    given = [f"-{name}={value}" for name, value in options.items()]
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.hostile.fuzz", _MARKER, *given, str(kept), str(made / "seeds")]
    code = subprocess.run(command, check=False).returncode
    out = Console(soft_wrap=True)
    out.print(f"{len(list(kept.iterdir()))} bodies are of interest, after {time.monotonic() - began:.0f} s")
    out.print("nothing was found" if code == 0 else f"a body was found: it is in {kept}, as finding-…")
    return code


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')


def _in_this_process() -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("atheris, which fuzzes, is for Linux on x86-64 and Python before 3.14: nothing was fuzzed")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.hostile.body_path import BodyPath
    path = BodyPath()
    began = time.monotonic()

    def one(data: bytes) -> None:
        path.take(data)
        if path.tally["bodies"] % _TOLD_EVERY == 0:
            _tell(path, time.monotonic() - began)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()


def _tell(path: "BodyPath", seconds: float) -> None:
    bodies = path.tally["bodies"]
    others = ", ".join(f"{count} {name}" for name, count in path.tally.most_common() if name != "bodies")
    sys.stderr.write(f"{bodies} bodies, {bodies / seconds:.0f} a second: {others}\n")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    if sys.argv[1:2] == [_MARKER]:
        _in_this_process()
    else:
        sys.exit(main())
