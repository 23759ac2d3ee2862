"""The end of one process ends all, and each says why."""

import queue
import socket
import threading
import time

import pytest

from earthformer_jax.run.distributed import peers
from earthformer_jax.run.distributed.peers import LOST, Peer, Watch
from earthformer_jax.run.interrupts import STOPPED


@pytest.fixture
def three(monkeypatch):
    """Watches of processes 0, 1 and 2, and where they put how they would end."""
    monkeypatch.setattr(peers, "GRACE", 0.2)
    monkeypatch.setattr(peers, "_AFTER", 0.05)
    monkeypatch.setattr(peers, "_POLL", 0.02)
    pairs = {i: socket.socketpair() for i in (1, 2)}
    ends = [queue.Queue() for _ in range(3)]
    of_first = {i: Peer(i, f"host{i}", a) for i, (a, _) in pairs.items()}
    all_peers = [of_first, *({0: Peer(0, "host0", b)} for _, b in pairs.values())]
    watches = [
        Watch(i, p, end=lambda *x, i=i: ends[i].put(x)) for i, p in enumerate(all_peers)
    ]
    for watch in watches:
        watch.start()
    yield watches, ends, pairs
    for pair in pairs.values():
        for connection in pair:
            connection.close()


def test_a_lost_process_ends_all(three):
    _, ends, pairs = three
    pairs[2][1].shutdown(socket.SHUT_RDWR)
    for end in ends[:2]:
        line, status = end.get(timeout=5)
        assert status == LOST
        assert line.startswith("error: process 2 (host2) has ended, so that all")
        assert "the same command continues from the last checkpoint" in line


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_process_that_falls_silent_ends_the_other(monkeypatch, frozen):
    monkeypatch.setattr(peers, "_POLL", 0.02)
    monkeypatch.setattr(peers, "_AFTER", 0.05)
    ends = queue.Queue()
    silent, own = socket.socketpair()
    watch = Watch(
        1 - frozen,
        {frozen: Peer(frozen, "host", own)},
        end=lambda *x: ends.put(x),
        lost_after=0.4,
    )
    watch.start()
    for _ in range(4):
        time.sleep(0.2)
        silent.sendall(b'{"runs": true}\n')
    assert ends.empty(), "it has answered all the time"
    line, status = ends.get(timeout=5)
    assert status == LOST
    expected = f"error: process {frozen} (host) has not answered for 0.4 s, so that all"
    assert line.startswith(expected)
    assert b'{"runs": true}' in silent.recv(4096), "it says that it runs"
    silent.close()
    own.close()


def test_without_the_first_process_all_end():
    ends = queue.Queue()
    first, own = socket.socketpair()
    watch = Watch(1, {0: Peer(0, "host0", own)}, end=lambda *x: ends.put(x))
    watch.start()
    first.close()
    line, status = ends.get(timeout=5)
    assert line.startswith("error: process 0 (host0) has ended") and status == LOST
    own.close()


def test_an_error_in_one_process_is_told_by_all(three):
    watches, ends, _ = three
    watches[1].leave(2, "error: the data cannot be read: no such file")
    for end in (ends[0], ends[2]):
        line, status = end.get(timeout=5)
        assert status == 2
        assert line == (
            "process 1 (host1) ends: error: the data cannot be read: no such file"
        )


def test_an_error_that_follows_from_another_one_gives_way_to_it(three, monkeypatch):
    watches, ends, _ = three
    monkeypatch.setattr(peers, "GRACE", 60.0)
    watches[1].leave(2, "error: its own")
    for i in (0, 2):
        watches[i].verdict(5)
        assert ends[i].get_nowait() == ("process 1 (host1) ends: error: its own", 2)


def test_an_error_of_its_own_is_not_changed(three):
    watches, ends, _ = three
    watches[0].verdict(0.05)
    assert ends[0].empty()


@pytest.mark.parametrize("status", [0, STOPPED])
def test_all_end_together_without_a_word(three, status):
    watches, ends, pairs = three

    def leave(i):
        watches[i].leave(status)
        if i:
            pairs[i][1].shutdown(socket.SHUT_RDWR)

    threads = [threading.Thread(target=leave, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    time.sleep(0.1)
    assert all(end.empty() for end in ends)


def test_it_ends_with_who_started_it(monkeypatch):
    monkeypatch.setattr(peers, "_POLL", 0.02)
    ends = queue.Queue()
    Watch(0, {}, end=lambda *x: (ends.put(x), time.sleep(60)), parent=-1).start()
    assert ends.get(timeout=5)[1] == LOST
