"""Workers: processes that do what they are asked, one request at a time.

A request is a line of JSON, {"command": name, ...arguments}; so is the answer, which
may be {"error": traceback}. Between requests a worker waits for its standard input and
does nothing.
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
    """A worker failed, or is gone."""


class Worker:
    """A worker as its owner sees it; a context, at whose end the worker ends."""

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
            WorkerError: if the worker reports an error or has ended.
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
            raise WorkerError(f"{self.module} ended with status {status} at {command}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.module}, {command}:\n{answer['error']}")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._process.stdin.close()  # a worker without an owner ends
            self._process.wait(10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(commands: Mapping[str, Callable[..., dict | None]]) -> None:
    """The worker's side: answers requests until there are no more.

    Whatever is printed meanwhile goes to standard error.
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
