"""Making the processes of a job meet, and JAX join them.

JAX itself ends a process with pages of text if the others do not come. So they first
meet at the coordinator's address: process 0 waits there for all others, tells them
where JAX will serve, and keeps the connections, by which it notices who is lost.
"""

import contextlib
import functools
import json
import os
import pathlib
import socket
import time
from collections.abc import Mapping

import jax

from earthformer_jax.run.distributed.job import Job
from earthformer_jax.run.distributed.peers import (
    LOST_AFTER,
    PARENT,
    Peer,
    Watch,
    free_port,
    keep_alive,
)
from earthformer_jax.run.distributed.schedulers import port_in
from earthformer_jax.settings import ConfigError

WITHIN = 300.0  # seconds that processes wait for each other at the start
_HELLO = "earthformer_jax"
_LATER = 20  # seconds that JAX waits beyond twice our own time
_RETRY = 0.2  # seconds between two tries to reach process 0
_ANSWER = 10.0  # seconds that a caller has to say who it is


def has_tpu(devices: pathlib.Path = pathlib.Path("/dev")) -> bool:
    """Whether this machine has TPU chips, as far as its device files tell."""
    return any(devices.glob("accel[0-9]*"))


def join(
    job: Job, within: float = WITHIN, lost_after: float = LOST_AFTER
) -> Watch | None:
    """Joins a job; before JAX looks for devices.

    Args:
        job: this process and its job.
        within: seconds that the processes wait for each other.
        lost_after: seconds without an answer after which a machine, or a process that
            does not run any more, is taken for lost.

    Returns:
        the watch over the others, which has begun; None if JAX found the job.

    Raises:
        ConfigError: in one line, if the others do not come or are of another job.
    """
    # JAX may notice after half of its time, and ends without our line: we come first.
    watched = job.coordinator is not None
    jax_after = 2 * int(lost_after) + _LATER if watched else int(lost_after)
    initialize = functools.partial(
        jax.distributed.initialize,
        initialization_timeout=int(within),
        heartbeat_timeout_seconds=jax_after,
        shutdown_timeout_seconds=jax_after,
    )
    if job.coordinator is None:
        try:
            initialize()
        except (RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ConfigError(
                f"--distributed: JAX could not join {job.source}: {reason}"
            ) from error
        return None
    peers, service = meet(job, within, lost_after)
    initialize(
        service,
        job.processes,
        job.process,
        local_device_ids=job.local_devices,
        cluster_detection_method="deactivate",
    )
    parent = os.environ.get(PARENT)
    watch = Watch(
        job.process,
        peers,
        parent=int(parent) if parent else None,
        lost_after=lost_after,
    )
    watch.start()
    return watch


def meet(job: Job, within: float, lost_after: float) -> tuple[dict[int, Peer], str]:
    """Connects process 0 with all others.

    Returns:
        the others, and "HOST:PORT" for the service of JAX.

    Raises:
        ConfigError: in one line, if some do not come or are of another job.
    """
    assert job.coordinator is not None
    host = job.coordinator.rpartition(":")[0]
    if job.process == 0:
        peers = _gather(job, within)
        port = free_port()
        for peer in peers.values():
            peer.tell(service=port)
    else:
        connection, port = _call(job, within)
        peers = {0: Peer(0, host, connection)}
    for peer in peers.values():
        peer.connection.settimeout(None)
        keep_alive(peer.connection, lost_after)
    return peers, f"{host}:{port}"


def _gather(job: Job, within: float) -> dict[int, Peer]:
    """Waits for all others to call."""
    if job.processes == 1:
        return {}
    assert job.coordinator is not None
    port = port_in(job.coordinator, "coordinator")
    deadline = time.monotonic() + within
    peers: dict[int, Peer] = {}
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(_listen(port))
        except OSError as error:
            raise ConfigError(
                f"process 0 cannot wait for the others at port {port}: "
                f"{error.strerror}; choose another one by --coordinator=HOST:PORT"
            ) from error
        while len(peers) < job.processes - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                _refuse(peers, f"not all processes came within {within:g} s")
                missing = [i for i in range(1, job.processes) if i not in peers]
                raise ConfigError(
                    f"{_listed(missing)} of {job.processes} did not come to "
                    f"{job.coordinator} within {within:g} s: look at their messages, "
                    "or wait longer by --join_within=SECONDS"
                ) from None
            if (peer := _greet(connection, job, peers)) is not None:
                peers[peer.process] = peer
    return peers


def _greet(connection: socket.socket, job: Job, peers: dict[int, Peer]) -> Peer | None:
    """Hears who calls; None if it is no process of this program.

    Raises:
        ConfigError: if it is of another job, or another says that it is the same one.
    """
    connection.settimeout(_ANSWER)
    try:
        hello = json.loads(_line(connection))
        process, processes = int(hello[_HELLO]), int(hello["processes"])
        peer = Peer(process, str(hello["place"]), connection)
    except (OSError, ValueError, KeyError, TypeError):
        connection.close()
        return None
    problem = ""
    if processes != job.processes:
        problem = (
            f"{peer} takes part in a job of {processes} processes, process 0 in one "
            f"of {job.processes}; expected the same number everywhere"
        )
    elif process in peers or process == 0:
        other = peers[process].place if process in peers else "process 0 itself"
        problem = f"two processes have number {process}: {peer.place} and {other}"
    if problem:
        _refuse({**peers, -1: peer}, problem)
        raise ConfigError(problem)
    return peer


def _refuse(peers: Mapping[int, Peer], reason: str) -> None:
    for peer in peers.values():
        peer.tell(refused=reason)


def _call(job: Job, within: float) -> tuple[socket.socket, int]:
    """Calls process 0; its connection, and the port of the service of JAX."""
    assert job.coordinator is not None
    host, _, port = job.coordinator.rpartition(":")
    deadline = time.monotonic() + within
    reason = ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), left)
        except OSError as error:  # it may come up, and its name become known, later
            reason = error.strerror or str(error)
            time.sleep(min(_RETRY, max(left, 0)))
            continue
        place = f"{socket.gethostname()}, pid {os.getpid()}"
        hello = {_HELLO: job.process, "processes": job.processes, "place": place}
        try:
            connection.sendall(json.dumps(hello).encode() + b"\n")
            connection.settimeout(max(left, _ANSWER) + _ANSWER)
            answer = json.loads(_line(connection))
        except (OSError, ValueError) as error:
            reason = f"what answers there is not process 0 ({error})"
            connection.close()
            time.sleep(min(_RETRY, max(left, 0)))
            continue
        if "refused" in answer:
            raise ConfigError(f"process 0 at {job.coordinator}: {answer['refused']}")
        return connection, int(answer["service"])
    raise ConfigError(
        f"process 0 does not answer at {job.coordinator} within {within:g} s "
        f"({reason}): is it started, and may this machine connect to that port?"
    )


def _line(connection: socket.socket) -> bytes:
    """One line, read byte by byte: what follows belongs to the watch."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(line) > 4096:
            raise ValueError("the connection was closed")
        line += byte
    return line


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True
        )
    return socket.create_server(("", port))


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"process{'es' * (len(numbers) > 1)} {shown}"
