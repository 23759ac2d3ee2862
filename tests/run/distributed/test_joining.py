"""Processes meet at the coordinator's address, or say in one line why not."""

import concurrent.futures
import socket

from earthformer_jax.run.distributed.job import Job
from earthformer_jax.run.distributed.joining import meet
from earthformer_jax.run.distributed.peers import free_port
from earthformer_jax.settings import ConfigError

HERE = "127.0.0.1"


def all_meet(*jobs, within=10.0):
    """What `meet` gives or raises in each process, here in threads."""

    def one(job):
        try:
            return meet(job, within, 60.0)
        except ConfigError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as threads:
        return [*threads.map(one, jobs)]


def job(process, processes=3, port=None):
    return Job(f"{HERE}:{port}", processes, process)


class TestMeet:
    def test_all_come(self):
        port = free_port()
        results = all_meet(*(job(i, port=port) for i in (1, 0, 2)))
        services = {service for _, service in results}
        assert len(services) == 1 and services.pop().startswith(f"{HERE}:")
        peers = results[1][0]
        assert sorted(peers) == [1, 2] and [*results[0][0]] == [0]
        assert socket.gethostname() in peers[2].place
        for found, _ in results:
            for peer in found.values():
                peer.connection.close()

    def test_alone(self):
        assert meet(Job("127.0.0.1:0", 1, 0), 1.0, 60.0)[0] == {}

    def test_some_do_not_come(self):
        port = free_port()
        first, second = all_meet(job(0, port=port), job(1, port=port), within=0.5)
        assert first.startswith("process 2 of 3 did not come to 127.0.0.1:")
        assert "within 0.5 s" in first and "--join_within" in first
        assert "not all processes came" in second

    def test_process_0_does_not_answer(self):
        said = all_meet(job(1, port=free_port()), within=0.3)[0]
        assert "process 0 does not answer at 127.0.0.1:" in said
        assert "within 0.3 s (Connection refused)" in said

    def test_a_machine_without_an_address(self):
        there = Job("no-such-machine.invalid:80", 2, 1)
        assert (
            "does not answer at no-such-machine.invalid:80"
            in (all_meet(there, within=0.3)[0])
        )

    def test_a_port_that_is_in_use(self):
        with socket.create_server(("", 0)) as taken:
            port = taken.getsockname()[1]
            (said,) = all_meet(job(0, port=port))
        assert f"at port {port}: Address already in use" in said

    def test_two_with_the_same_number(self):
        port = free_port()
        for said in all_meet(*(job(i, port=port) for i in (0, 1, 1))):
            assert "two processes have number 1" in said

    def test_different_numbers_of_processes(self):
        port = free_port()
        for said in all_meet(job(0, port=port), job(1, processes=2, port=port)):
            assert "a job of 2 processes, process 0 in one of 3" in said

    def test_strangers_are_not_counted(self):
        port = free_port()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            first = thread.submit(meet, job(0, 2, port), 10.0, 60.0)
            while True:
                try:
                    stranger = socket.create_connection((HERE, port))
                    break
                except OSError:
                    continue
            stranger.sendall(b"GET / HTTP/1.1\n")
            (second,) = all_meet(job(1, 2, port))
            assert second[1] == first.result()[1]
            stranger.close()
        for peer in (*second[0].values(), *first.result()[0].values()):
            peer.connection.close()
