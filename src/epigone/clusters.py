"""Ray, the engine for more than one machine: found, started or attached to, and left."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from epigone.errors import MissingExtra, Stopped, UnknownName, UserError
from epigone.processes import cores

# What a stage that can work on a cluster does so by, and where the cluster is.
ON, ADDRESS = "EPIGONE_ON", "EPIGONE_RAY_ADDRESS"
PLACES = ("local", "ray")
# Blocks on their way from one task to the next; what does not fit is on the disk.
_OBJECTS = 256 << 20
# Seconds in which a cluster's address has to answer.
_PATIENCE = 10.0
# The first bytes of a client of HTTP/2: its preface, and a frame with no settings.
_SETTINGS = 4
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])


def asked() -> str | None:
    """The cluster's address that $EPIGONE_ON=ray asks for, "" for one here; None to work locally.

    Raises UnknownName for a value of $EPIGONE_ON that is neither local nor ray.
    """
    place = os.environ.get(ON) or PLACES[0]
    if place not in PLACES:
        raise UnknownName("place to work", place, PLACES)
    return os.environ.get(ADDRESS, "") if place == "ray" else None


@contextmanager
def asking(on: str, address: str = "") -> Iterator[None]:
    """Ask for a place as the environment does, for as long as this lasts; with "" it is asked.

    Raises UnknownName for a place that there is not, UserError for an address without ray, and
    MissingExtra where ray is asked for and not installed.
    """
    with _environment({name: value for name, value in ((ON, on), (ADDRESS, address)) if value}):
        if asked() is None and address:
            raise UserError("an address of a cluster", value=address, fix="with --on ray only")
        if asked() is not None and importlib.util.find_spec("ray") is None:
            raise _missing()
        yield


@contextmanager
def start(address: str = "") -> Iterator[Any]:
    """The module `ray`, attached to a cluster ("auto" or host:port) or to one that is started here.

    One that is started here has this machine's cores, hears only this machine and ends with the
    context; one that was there before goes on. Raises MissingExtra without Ray, and UserError
    where no cluster answers at the address.
    """
    own = {} if address else _own()
    with _environment({"RAY_USAGE_STATS_ENABLED": "0", **own}):
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError:
            raise _missing() from None
        if ray.is_initialized():
            # Whoever began, perhaps the task in which this runs, also ends it.
            yield ray
            return
        with _signals_kept():
            _begin(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()


def _missing() -> MissingExtra:
    return MissingExtra("working on Ray", "ray")


def _own() -> dict[str, str]:
    """The environment of a cluster that nobody else may reach: it runs whatever it is sent."""
    # Ray takes 127.0.0.1 for the machine's outer address unless it may have no other machines.
    found = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    if "RAY_AUTH_MODE" not in os.environ:
        found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return found


def _begin(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        ray.init(
            "local",
            num_cpus=cores(),
            include_dashboard=False,
            object_store_memory=_OBJECTS,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
        return
    try:
        _listens(address)
        ray.init(address, **quiet)
    except (OSError, OverflowError, ValueError, RuntimeError, SystemExit) as error:
        # Ray's own handler of SIGTERM, which it has put there meanwhile.
        if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
            raise Stopped("stopped by SIGTERM; run the same command again to continue") from None
        raise _refused(address, " ".join(str(error).split())) from None


def _refused(address: str, why: str) -> UserError:
    if why.startswith("Version mismatch"):
        other = why.partition(": ")[2]
        return UserError("the Ray cluster has another Ray or Python", value=address, fix=other)
    fix = f"ray start --head starts one here; {why.partition('. ')[0][:120]}"
    return UserError("no Ray cluster answers", value=address, fix=fix)


def _listens(address: str) -> None:
    """Raise OSError where no cluster is at an address, as far as that can be told by asking it.

    Without this, Ray tries for minutes, in which no signal is heard, and may end the process.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    at = (host.strip("[]"), int(port))
    with socket.create_connection(at, timeout=_PATIENCE) as there:
        if os.environ.get("RAY_USE_TLS", "0").lower() not in ("", "0", "false"):
            return
        # A cluster speaks gRPC: both sides of HTTP/2 (RFC 9113, 3.4) begin with their settings.
        there.sendall(_HELLO)
        with there.makefile("rb") as told:
            head = told.read(9)
    if len(head) < 9 or head[3] != _SETTINGS or any(head[5:]):
        raise OSError("something else listens there")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM; whoever had one keeps it."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)
