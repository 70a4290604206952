"""What is known against the locked packages: `make audit`.

- pip is asked, at whatever index it is set up for, whether every locked file is still there, with its
  hash, and not withdrawn by its author (PEP 592).
- pip-audit is asked whether a vulnerability of a locked version is known: PyPI's service, and where
  that does not answer, OSV's.

Ends with 0 when nothing is known against any package, with 1 when something is, and with 2 when it
could not be asked about all of them: that is no good news.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

GOOD, BAD, UNTOLD = 0, 1, 2
SERVICES = ("pypi", "osv")
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-build.txt")

_WAIT_S = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a service said: packages by name and version, what is known against each, and of whom it knew nothing."""

    packages: int = 0
    known: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def told(self) -> bool:
        """Whether it said something of any package."""
        return not self.error and len(self.skipped) < self.packages


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, say what was answered, and return the exit code."""
    options = _options(arguments)
    withdrawn = GOOD if options.no_index else _say_what_the_index_knows(options.locks)
    return max((withdrawn, _say_what_is_known(options)), key=(GOOD, UNTOLD, BAD).index)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make audit", description="What is known against the locked packages.")
    parser.add_argument("--osv-url", help="where OSV is asked, if not at its own address")
    parser.add_argument("--service", choices=SERVICES, action="append", help="ask this one alone")
    parser.add_argument("--ignore-vuln", action="append", default=[], metavar="ID", help="one that was looked into")
    parser.add_argument("--no-index", action="store_true", help="don't ask the index, which takes a minute")
    parser.add_argument("locks", nargs="*", default=LOCKS, metavar="LOCK")
    return parser.parse_args(arguments)


def _say_what_the_index_knows(locks: Sequence[str]) -> int:
    """Have pip look every file up, and check its hash, as it would to install it; it installs nothing."""
    code = GOOD
    for lock in locks:
        pip = ["pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--require-hashes"]
        done = _run(*pip, "--disable-pip-version-check", "--no-input", "--report", "-", "--requirement", lock)
        if done.returncode != 0:
            print(f"{lock}: pip can't get all of it: {_last_line(done.stderr)}")
            code = max(code, UNTOLD)
            continue
        found = json.loads(done.stdout)["install"]
        withdrawn = [_name(each["metadata"]) for each in found if each["is_yanked"]]
        print(f"{lock}: {len(found)} files are there with their hashes, withdrawn: {', '.join(withdrawn) or 'none'}")
        code = BAD if withdrawn else code
    return code


def _say_what_is_known(options: argparse.Namespace) -> int:
    for service in options.service or SERVICES:
        answer = _ask(service, options)
        if answer.told:
            return _say(service, answer)
        why = answer.error or f"it knows none of the {answer.packages} packages"
        print(f"{service}: nothing was told: {why}")
    print("No service could be asked, so NOTHING is known about vulnerabilities, good or bad. It takes a way to PyPI's")
    print("JSON API (an index that pip can install from need not have it), to OSV, or to a copy: ARGS=--osv-url=…")
    return UNTOLD


def _say(service: str, answer: Answer) -> int:
    for package, ids in sorted(answer.known.items()):
        print(f"{package}: {', '.join(ids)}")
    for package, why in sorted(answer.skipped.items()):
        print(f"{package}: not looked at: {why}")
    looked_at = answer.packages - len(answer.skipped)
    print(f"{service}: {looked_at} packages looked at, {len(answer.known)} with a known vulnerability")
    return BAD if answer.known else UNTOLD if answer.skipped else GOOD


def _ask(service: str, options: argparse.Namespace) -> Answer:
    command = ["pip_audit", "--vulnerability-service", service, "--disable-pip", "--require-hashes"]
    command += ["--format", "json", "--desc", "off", "--progress-spinner", "off", "--timeout", str(_WAIT_S)]
    command += [f"--osv-url={options.osv_url}"] if options.osv_url else []
    command += [f"--ignore-vuln={each}" for each in options.ignore_vuln]
    done = _run(*command, *(f"--requirement={lock}" for lock in options.locks))
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return Answer(error=_last_line(done.stderr))
    return Answer(
        packages=len(packages),
        known={_name(each): list(_ids_of(each)) for each in packages if each.get("vulns")},
        skipped={each["name"]: each["skip_reason"] for each in packages if "skip_reason" in each},
    )


def _ids_of(package: dict[str, Any]) -> Iterator[str]:
    for known in package["vulns"]:
        fixed = f" (mended in {', '.join(known['fix_versions'])})" if known["fix_versions"] else ""
        yield " ".join([known["id"], *known["aliases"]]) + fixed


def _name(package: dict[str, Any]) -> str:
    return f"{package['name']} {package['version']}"


def _run(*module: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *module], capture_output=True, text=True, check=False)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1][:300]


if __name__ == "__main__":
    sys.exit(main())
