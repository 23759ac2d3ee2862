"""Functions of a model whose compiled programs are kept from process to process.

The compiled programs that JAX itself keeps (`run.compilation_cache`) are found by what
tracing a function gives, which takes longer than the forecast of a small model. These
are found by what goes into tracing (`run.programs.identity`), and skip it.
"""

import contextlib
import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.traverse_util
import jax
import jax.core
import numpy as np
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.ops.derivatives import in_forward_mode
from earthformer_jax.ops.tuned.native import library
from earthformer_jax.run.programs import identity
from earthformer_jax.run.programs.store import Store

logger = logging.getLogger(__name__)

FOLDER = "forecasts"  # in the folder of compiled programs

Function = Callable[..., jax.Array]


class Programs:
    """The compiled programs of a user on a machine.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store):
        self._store = store

    def compiled(self, model: Forecaster, name: str, function: Function) -> Function:
        """A function of arrays that is compiled once for each shape, and kept.

        Args:
            model: on which the function depends, apart from its arguments.
            name: of the function; one name, one function.
            function: of trees of arrays and numbers, which returns one array.
        """
        try:
            described = identity.of_model(model)
        except identity.UnknownError as error:
            logger.debug("programs of this model are not kept: %s", error)
            return jax.jit(function)
        return Kept(function, name, described, self._store)

    def variables(
        self, model: Forecaster, shape: tuple[int, ...], make: Callable[[], Variables]
    ) -> Variables:
        """Shapes and types of the variables of a model.

        Args:
            model: the forecaster.
            shape: (t, h, w, c) of its inputs.
            make: traces them, if they are not known.
        """
        try:
            described = identity.of_model(model)
        except identity.UnknownError:
            return make()
        name = _name("variables", described, str(shape))
        known = self._store.read(name)
        if known is not None:
            return _from_json(known)
        variables = make()
        self._store.write(name, _to_json(variables))
        return variables


def find() -> Programs | None:
    """The programs beside those that JAX keeps; None if it keeps none."""
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore (set at run time)
    if not folder or not jax.config.jax_enable_compilation_cache:  # pyright: ignore
        return None
    if "://" in folder:  # a bucket
        return None
    return Programs(Store(pathlib.Path(folder, FOLDER)))


class Kept:
    """A compiled function; `Programs.compiled` makes it.

    Called by other functions that are traced, it is an ordinary function of JAX.
    """

    def __init__(self, function: Function, name: str, described: str, store: Store):
        # Of a function that was compiled before, JAX would give that program again,
        # which may come from its cache (`_without_cache`); this one is new.
        self._function = jax.jit(lambda *arguments: function(*arguments))
        self._name = name
        self._described = described
        self._store = store
        self._programs: dict[str, Function] = {}

    def __call__(self, *arguments: Any) -> jax.Array:
        """The value of the function.

        Args:
            arguments: trees of arrays and numbers.
        """
        if not _are_usual(arguments):
            return self._function(*arguments)
        shapes = identity.of_arrays(arguments)
        if shapes in self._programs:
            return self._programs[shapes](*arguments)
        name = _name(self._name, self._described, shapes)
        found = self._first_call(name, arguments)
        if found is not None:
            self._programs[shapes], value = found
            return value
        program = self._programs[shapes] = self._compile(name, arguments)
        return program(*arguments)

    def _first_call(
        self, name: str, arguments: tuple[Any, ...]
    ) -> tuple[Function, jax.Array] | None:
        """A program that was kept, and its first value; None if there is none.

        Its first call is part of the test whether it can be used.
        """
        payload = self._store.read(name)
        if payload is None:
            return None
        if library.wanted():
            library.version()  # the program may use its functions
        try:
            program = serialize_executable.deserialize_and_load(
                payload,
                jax.tree.structure((arguments, {})),
                jax.tree.structure(0),
                execution_devices=jax.local_devices()[:1],
            )
            return program, jax.block_until_ready(program(*arguments))
        except Exception as error:  # whatever the compiler makes of foreign code
            why = (str(error).splitlines() or [""])[0]
            logger.warning("the kept program %s is made again: %s", name, why)
            self._store.remove(name)
            return None

    def _compile(self, name: str, arguments: tuple[Any, ...]) -> Function:
        """Compiles the function for arguments, and keeps the program."""
        with _without_cache():
            program = self._function.lower(*arguments).compile()
        try:
            payload, _, _ = serialize_executable.serialize(program)
        except Exception as error:  # not every device and program can
            logger.debug("the program %s is not kept: %s", name, error)
        else:
            self._store.write(name, payload)
        return program


def _are_usual(arguments: tuple[Any, ...]) -> bool:
    """Whether a function is called from outside, with arrays on the first device."""
    leaves = jax.tree.leaves(arguments)
    first = {jax.local_devices()[0]}
    return (
        not any(isinstance(x, jax.core.Tracer) for x in leaves)
        and all(x.devices() == first for x in leaves if isinstance(x, jax.Array))
        and jax.config.jax_default_device is None  # pyright: ignore
        and not in_forward_mode()
    )


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """A context in which JAX compiles anew.

    A program that was read from its cache lacks the functions that it is made of when
    it is serialised once more.
    """
    before = jax.config.jax_enable_compilation_cache  # pyright: ignore
    compilation_cache.reset_cache()
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _name(function: str, *described: str) -> str:
    """The name of the file of a program."""
    texts = (function, *described, identity.of_surroundings())
    return f"{function}-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()}"


def _to_json(variables: Variables) -> bytes:
    flat: dict[Any, Any] = flax.traverse_util.flatten_dict(
        dict(variables), keep_empty_nodes=True
    )
    rows = [
        [path, None if x is flax.traverse_util.empty_node else [x.shape, x.dtype.name]]
        for path, x in flat.items()
    ]
    return json.dumps(rows).encode()


def _from_json(text: bytes) -> Variables:
    flat = {
        tuple(path): flax.traverse_util.empty_node
        if x is None
        else jax.ShapeDtypeStruct(tuple(x[0]), np.dtype(x[1]))
        for path, x in json.loads(text)
    }
    return flax.traverse_util.unflatten_dict(flat)
