"""Ends every process of a job when one of them is lost.

Process 0 holds a connection to each of the others. A process that ends closes its
connections, which the system of the other side notices at once, whatever Python or the
devices are doing there; a machine that is gone is noticed when it no longer answers
(keep-alive). The system answers for a process that is frozen, so processes also tell
each other regularly that they run. Who notices says so in one line and ends. A process
that ends by itself says goodbye first, with its exit status and its error.
"""

import contextlib
import dataclasses
import json
import math
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping

from earthformer_jax.run.interrupts import STOPPED

PARENT = "EARTHFORMER_JAX_LAUNCHER"  # set by `launching` to its own process number
LOST = 75  # exit status: "temporary failure", the same command continues
GRACE = 10.0  # seconds between the end of one process by an error and that of all
_AFTER = 1.0  # seconds that process 0 ends after the others, whom it serves until then
LOST_AFTER = 60.0  # seconds without an answer after which a process is lost
NOTICED = 3.0  # seconds within which the end of another process is noticed
_STEPS = 3  # unanswered questions after which a machine is taken for lost
_POLL = 1.0  # seconds between two looks at what does not announce itself
_SIGNS = 4  # of life that a process gives in the time after which it is taken for lost


@dataclasses.dataclass
class Peer:
    """Another process of the job.

    Attributes:
        process: its number.
        place: its machine and number there, for messages.
        connection: to it.
        status: exit status it has announced; None: it runs.
        heard: when it last gave a sign of life, as `time.monotonic`.
    """

    process: int
    place: str
    connection: socket.socket
    status: int | None = None
    unread: bytes = b""
    heard: float = 0.0

    def __str__(self) -> str:
        return f"process {self.process} ({self.place})"

    def tell(self, **message) -> None:
        """Sends a message; a peer that is gone is noticed elsewhere."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as server:
        server.bind(("", 0))
        return server.getsockname()[1]


def keep_alive(connection: socket.socket, seconds: float) -> None:
    """Lets the system notice within `seconds` that the other machine is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    interval = max(1, int(seconds / (_STEPS + 1)))
    values = dict(
        TCP_KEEPIDLE=interval,
        TCP_KEEPINTVL=interval,
        TCP_KEEPCNT=_STEPS,
        TCP_USER_TIMEOUT=int(1000 * seconds),
    )
    for name, value in values.items():
        if hasattr(socket, name):  # Linux; elsewhere the defaults of the system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def end_process(line: str, status: int) -> None:
    """Writes a line and ends this process, without waiting for any of its threads."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())
    os._exit(status)


class Watch:
    """Watches over the other processes, and says goodbye to them.

    Args:
        process: number of this one.
        peers: process 0 knows all others, and each of those only process 0.
        end: called with a line and an exit status when this process has to end.
        parent: number of the system for the process that started this one, with which
            it ends; None: it may end before this one.
        lost_after: seconds without a sign of life after which another process is lost.
    """

    def __init__(
        self,
        process: int,
        peers: Mapping[int, Peer],
        end: Callable[[str, int], None] = end_process,
        parent: int | None = None,
        lost_after: float = LOST_AFTER,
    ):
        self._process, self._peers = process, dict(peers)
        self._end, self._parent = end, parent
        self._lost_after = lost_after
        self._told = self._looked = -math.inf
        self._selector = selectors.DefaultSelector()
        self._leaves: int | None = None  # exit status, once this process says goodbye
        self._failed: tuple[float, str, int] | None = None
        for peer in self._peers.values():
            self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        self._gone = threading.Condition()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def leave(self, status: int, why: str = "") -> None:
        """Says goodbye before this process ends; returns when it may.

        After success the others are waited for, and process 0 ends last: it runs the
        service that the others need until they end.

        Args:
            status: exit status.
            why: the error, if there was one.
        """
        with self._gone:
            self._leaves = status
            for peer in self._peers.values():
                peer.tell(status=status, why=why)
            if status == 0:
                self._gone.wait_for(
                    lambda: all(p.status is not None for p in self._peers.values())
                )
            elif self._process == 0:
                self._gone.wait_for(lambda: not self._selector.get_map(), GRACE)

    def verdict(self, seconds: float = NOTICED) -> None:
        """Ends this process if another one has ended; returns if none has.

        Args:
            seconds: to wait for the news.
        """
        with self._gone:
            self._gone.wait_for(lambda: self._failed is not None, seconds)
        if self._failed is not None:
            time.sleep(_AFTER if self._process == 0 else 0)
            self._end(*self._failed[1:])

    def _watch(self) -> None:
        while True:
            for key, _ in self._selector.select(_POLL):
                self._receive(key.data)
            self._keep_in_touch()
            if self._failed is not None and time.monotonic() > self._failed[0]:
                if self._leaves is None:
                    self._end(*self._failed[1:])
                self._failed = None
            if self._parent is not None and os.getppid() != self._parent:
                self._end("the process that started this one has ended", LOST)

    def _keep_in_touch(self) -> None:
        """Says that this process runs; ends it if another one has long been silent."""
        now = time.monotonic()
        running = [peer for peer in self._peers.values() if peer.status is None]
        if now - self._looked > self._lost_after / 2:  # this one was frozen itself
            for peer in running:
                peer.heard = now
        self._looked = now
        if now - self._told >= self._lost_after / _SIGNS:
            self._told = now
            for peer in running:
                peer.tell(runs=True)
        for peer in running:
            if now - peer.heard > self._lost_after:
                self._lose(f"{peer} has not answered for {self._lost_after:g} s")
                with self._gone:
                    peer.status = LOST
                    self._gone.notify_all()

    def _receive(self, peer: Peer) -> None:
        try:
            received = peer.connection.recv(65536)
            reason = "has ended"
        except OSError as error:
            received, reason = b"", f"cannot be reached any more ({error.strerror})"
        if not received:
            with self._gone:
                self._selector.unregister(peer.connection)
                expected = peer.status is not None
                peer.status = LOST if peer.status is None else peer.status
                self._gone.notify_all()
            if not (expected or self._leaves is not None):
                self._lose(f"{peer} {reason}")
            return
        peer.heard = time.monotonic()
        *lines, peer.unread = (peer.unread + received).split(b"\n")
        for line in lines:
            self._hear(peer, json.loads(line))

    def _hear(self, peer: Peer, message: Mapping) -> None:
        if "runs" in message:
            return
        if "lost" in message:  # process 0 passes on what it has noticed
            self._lose(message["lost"])
            return
        with self._gone:
            peer.status = int(message["status"])
            self._gone.notify_all()
        if peer.status in (0, STOPPED) or self._failed is not None:
            return  # these end all together
        line = message["why"] if self._process else f"{peer} ends: {message['why']}"
        seconds = GRACE / 2
        if self._process == 0:
            seconds += _AFTER
            for other in self._peers.values():
                if other is not peer:
                    other.tell(status=peer.status, why=line)
        with self._gone:
            self._failed = time.monotonic() + seconds, line, peer.status
            self._gone.notify_all()

    def _lose(self, line: str) -> None:
        if self._leaves:  # with an error of its own
            return
        if self._process == 0:
            for peer in self._peers.values():
                peer.tell(lost=line)
            time.sleep(_AFTER)
        self._end(
            f"error: {line}, so that all processes of the job end; the same command "
            "continues from the last checkpoint",
            LOST,
        )
