"""The port: refused when it is taken, asked whether somebody accepts on it."""

import asyncio
import errno
import socket
from contextlib import suppress

from customersignal_ingest.domain.errors import ConfigurationError

Address = tuple[str, int]

_POLL_S = 0.01
_WHY = {
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "this user may not listen on that port",
}


def resolved(address: Address, /) -> Address:
    """Return the address with its host as a number, as the server wants it."""
    host, port = address
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise ConfigurationError(f"can't listen on {host}: there is no such address") from None
    return str(found[0][4][0]), port


def refuse_taken(address: Address, /) -> None:
    """Raise `ConfigurationError` when the port can't be had: workers would share a taken one in silence."""
    bound(address, shared=False).close()


def reserve(address: Address, /) -> socket.socket:
    """Hold the port for the workers, who share it, while none of them listens; close it to let go."""
    refuse_taken(address)
    return bound(address, shared=True)


def bound(address: Address, /, *, shared: bool) -> socket.socket:
    """Return a socket that has the port, for one who listens or for several. Raises `ConfigurationError`."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    # asyncio turns off Nagle's waiting only where it is told that this is TCP.
    held = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Without this, connections of a server that has just ended would hold the port for a minute.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(held, address)
    return held


async def accepting(address: Address, /) -> None:
    """Return once somebody accepts connections there."""
    while not await _connects(reachable(address)):  # noqa: ASYNC110  The event is the kernel's, not ours.
        await asyncio.sleep(_POLL_S)


def reachable(address: Address, /) -> Address:
    """Return where a server that listens on this address is found from this machine."""
    host, port = address
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104  We connect, not bind.


async def _connects(address: Address) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection(*address)
        writer.close()
        return True
    return False


def _bind(to: socket.socket, address: Address) -> None:
    host, port = address
    try:
        to.bind(address)
    except OSError as error:
        to.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} is taken: stop what listens there, or set CS_INGEST_LISTEN"
            ) from None
        raise ConfigurationError(
            f"can't listen on {host}:{port}: {_WHY.get(error.errno or 0, error.strerror)}"
        ) from None
