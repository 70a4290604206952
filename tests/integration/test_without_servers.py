"""What the tests say where there is neither the one thing that serves Kafka or PostgreSQL nor the other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDS = {
    "kafka": ("test_kafka_partitions.py", "install Java 17 and Maven, or Docker"),
    "postgres": (
        "test_postgres_keys.py",
        "install PostgreSQL (Debian: apt-get install postgresql), or a Docker engine",
    ),
}


def run_without(folder: Path, file: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests on a machine that has this Python and nothing else."""
    # Whatever is looked for by its name, in Debian's folder of PostgreSQL too, is found nowhere here.
    (folder / "sitecustomize.py").write_text("import shutil; shutil.which = lambda *_args, **_how: None")
    nothing = {"PATH": str(folder), "HOME": str(folder), "DOCKER_HOST": f"unix://{folder}/nobody.sock"}
    given = nothing | {"PYTHONPATH": str(folder), "CS_INGEST_TEST_CACHE": str(folder), "COLUMNS": "300"} | variables
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/integration/{file}"]
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("server", NEEDS)
def test_without_a_server_its_tests_are_skipped_and_say_what_to_install(server: str, tmp_path: Path) -> None:
    file, advice = NEEDS[server]

    run = run_without(tmp_path, file)

    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert re.search(rf"^SKIPPED \[\d+\] .*{re.escape(advice)}", run.stdout, re.M)


@pytest.mark.parametrize("server", NEEDS)
def test_in_ci_the_same_tests_fail_and_say_what_to_install(server: str, tmp_path: Path) -> None:
    file, advice = NEEDS[server]

    run = run_without(tmp_path, file, CI="true")

    assert run.returncode == 1, run.stdout + run.stderr
    assert "SKIPPED" not in run.stdout
    assert re.search(rf"^ERROR .*{re.escape(advice)}.*nothing is skipped", run.stdout, re.M)
