"""Workers: processes that serve one request at a time.

A request is a line of JSON, {"command": name, ...arguments}. So is the answer, which is
{"error": traceback} on failure. Between requests a worker waits for its standard input
and does nothing.
"""

import json
import os
import pathlib
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping

ROOT = pathlib.Path(__file__).parents[1]


class WorkerError(RuntimeError):
    """A worker failed or has exited."""


class Worker:
    """The owner's view of a worker; a context manager that ends it on exit."""

    def __init__(self, module: str, environment: Mapping[str, str]):
        """Starts `python -m module` with this environment."""
        self.module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=dict(environment),
        )

    def ask(self, command: str, **arguments) -> dict:
        """The answer to a request.

        Raises:
            WorkerError: if the worker reports an error or has exited.
        """
        try:
            request = json.dumps({"command": command, **arguments})
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            raise WorkerError(f"{self.module} exited with status {status} at {command}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.module}, {command}:\n{answer['error']}")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._process.stdin.close()  # a worker without an owner exits
            self._process.wait(10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(commands: Mapping[str, Callable[..., dict | None]]) -> None:
    """The worker's side: answers requests until there are no more.

    Anything printed in the meantime goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = commands[request.pop("command")](**request) or {}
        except Exception:  # the owner decides what an error means
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
