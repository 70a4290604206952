"""The Docker engine, where one answers."""

import gc
import warnings

import docker


def answers() -> bool:
    """Tell whether an engine answers; having the `docker` program says nothing of that."""
    with warnings.catch_warnings():
        # Where nobody listens, the client leaves its socket open, which would be an error of the tests.
        warnings.simplefilter("ignore", ResourceWarning)
        found = _pings()
        gc.collect()
    return found


def _pings() -> bool:
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException:
        return False
    client.close()
    return True
