"""What SLURM, MPI, Kubernetes and Cloud TPU tell the processes they start.

Each function takes environment variables and gives a `Found`, or None if the process
was not started in this way. Nothing is asked of any server.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping

from earthformer_jax.settings import ConfigError

PORT = "JAX_COORDINATOR_PORT"
_FIRST_PORT, _PORTS = 61440, 4096  # as JAX: the last of those that servers do not use
_KUBERNETES_PORT, _TPU_PORT = 8476, 8476
# Accelerators that a process sees; the first that is set counts.
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
# Rank, number of processes, rank on this machine, and processes on it.
_MPI = {
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "MVAPICH": (
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    "MPI (PMI)": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}
_PMIX = "PMIX_RANK"


@dataclasses.dataclass(frozen=True)
class Found:
    """What one of them tells.

    Attributes:
        source: its name.
        coordinator: "HOST:PORT" where process 0 can wait; None: it does not say.
        processes: number of processes; None: it does not say.
        process: number of this one; None: it does not say.
        local_devices: numbers of the accelerators for this process; None: all it sees.
        lacks: what to give by hand if something is None.
        by_jax: JAX asks for all of this by itself.
    """

    source: str
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    local_devices: tuple[int, ...] | None = None
    lacks: str = ""
    by_jax: bool = False


def find(environment: Mapping[str, str], has_tpu: bool = False) -> Found | None:
    """Asks all of them; None if none has started this process.

    MPI comes before SLURM, because `mpirun` in a SLURM job hands on variables of SLURM
    that are those of its own helpers.

    Raises:
        ConfigError: if one of them tells something that cannot be used.
    """
    for ask in (mpi, slurm, tpu, kubernetes):
        if (found := ask(environment)) is not None:
            return found
    return Found("Cloud TPU", by_jax=True) if has_tpu else None


def slurm(environment: Mapping[str, str]) -> Found | None:
    """What `srun` tells.

    Raises:
        ConfigError: in the batch script itself, where `srun` is missing.
    """
    if "SLURM_JOB_ID" not in environment:
        return None
    nodes = environment.get("SLURM_STEP_NODELIST")
    if not nodes or "SLURM_PROCID" not in environment:
        raise ConfigError(
            f"--distributed: SLURM job {environment['SLURM_JOB_ID']} has not started "
            "this process as one of its tasks; put srun in front of the command"
        )
    count = _first(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    processes = _number(environment, count, least=1)
    process = _number(environment, "SLURM_PROCID")
    key = _number(environment, "SLURM_JOB_ID")
    if environment.get("SLURM_STEP_ID", "").isdigit():
        key += int(environment["SLURM_STEP_ID"])
    port = _port(environment, key)
    per_task = environment.get("SLURM_GPUS_PER_TASK") or (
        "gpu" in environment.get("SLURM_TRES_PER_TASK", "")
    )
    bound = bool(per_task) and environment.get("SLURM_GPU_BIND") != "none"
    devices = None
    if "SLURM_LOCALID" in environment and not bound:
        rank = _number(environment, "SLURM_LOCALID")
        devices = share(environment, rank, _tasks_here(environment, processes))
    return Found(
        source=f"SLURM job {environment['SLURM_JOB_ID']}",
        coordinator=f"{first_node(nodes)}:{port}",
        processes=processes,
        process=process,
        local_devices=devices,
    )


def mpi(environment: Mapping[str, str]) -> Found | None:
    """What `mpirun` and its relatives tell; for more than a machine, not always where
    process 0 runs.

    Raises:
        ConfigError: if a variable is not a number.
    """
    for source, (rank, size, local_rank, local_size) in _MPI.items():
        if not {rank, size} <= environment.keys():
            continue
        if _is_srun(environment, environment[rank], environment[size]):
            return None
        processes, process = (
            _number(environment, size, least=1),
            _number(environment, rank),
        )
        here = None
        if environment.get(local_size):
            here = _number(environment, local_size, least=1)
        devices = None
        if local_rank in environment:
            devices = share(environment, _number(environment, local_rank), here or 2)
        return Found(
            source=source,
            coordinator=_mpi_coordinator(environment, here == processes),
            processes=processes,
            process=process,
            local_devices=devices,
            lacks=(
                f"{source} does not tell where process 0 runs; give "
                "--coordinator=HOST:PORT with the machine of rank 0 and a free port"
            ),
        )
    if _PMIX not in environment or "SLURM_PROCID" in environment:
        return None
    return Found(
        source="PMIx",
        coordinator=_mpi_coordinator(environment, alone=False),
        process=_number(environment, _PMIX),
        lacks=(
            "PMIx does not tell the number of processes; give --num_processes=N, and "
            "--coordinator=HOST:PORT with the machine of rank 0 and a free port"
        ),
    )


def _is_srun(environment: Mapping[str, str], rank: str, size: str) -> bool:
    """Whether `srun` itself has set these, which knows more than they tell."""
    count = environment.get(_first(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"))
    step = "SLURM_STEP_NODELIST" in environment
    return step and (environment.get("SLURM_PROCID"), count) == (rank, size)


def _mpi_coordinator(environment: Mapping[str, str], alone: bool) -> str | None:
    """Where process 0 can wait; None: nothing tells."""
    name = _first(
        environment, "PMIX_NAMESPACE", "PBS_JOBID", "SLURM_JOB_ID", "LSB_JOBID"
    )
    port = _port(environment, zlib.crc32(environment.get(name, "").encode()))
    if alone:
        return f"127.0.0.1:{port}"
    uri = environment.get("OMPI_MCA_orte_hnp_uri", "")  # of mpirun, up to Open MPI 4
    if found := re.search(r"tcp://(.+?)[,:]|tcp6://\[(.+?)[,\]]", uri):
        host = found[1] or f"[{found[2]}]"
        return f"{host}:{port}"
    if nodes := environment.get(_first(environment, "SLURM_JOB_NODELIST")):
        return f"{first_node(nodes)}:{port}"
    if hosts := environment.get("LSB_HOSTS", "").split():
        return f"{hosts[0]}:{port}"
    return None


def kubernetes(environment: Mapping[str, str]) -> Found | None:
    """What an Indexed Job tells; a JobSet also names the machine of process 0.

    JOBSET_NAME and REPLICATED_JOB_NAME come from the labels of the pod, see
    docs/launch/jobset.yaml.

    Raises:
        ConfigError: if a variable is not a number, or the JobSet has several jobs.
    """
    if "JOB_COMPLETION_INDEX" not in environment:
        return None
    if environment.get("JOB_INDEX", "0") != "0":
        raise ConfigError(
            f"--distributed: JOB_INDEX={environment['JOB_INDEX']}; expected one job "
            "with all pods (replicas: 1), or JAX_PROCESS_ID for each of them"
        )
    coordinator = None
    name, job = (environment.get(x) for x in ("JOBSET_NAME", "REPLICATED_JOB_NAME"))
    if name and job:
        port = environment.get(PORT) or _KUBERNETES_PORT
        coordinator = f"{name}-{job}-0-0.{name}:{port}"
    return Found(
        source="Kubernetes",
        coordinator=coordinator,
        process=_number(environment, "JOB_COMPLETION_INDEX"),
        lacks=(
            "Kubernetes does not tell all; set JAX_NUM_PROCESSES to the number of pods "
            "and either JAX_COORDINATOR_ADDRESS or both JOBSET_NAME and "
            "REPLICATED_JOB_NAME in the pods (docs/launch/jobset.yaml does)"
        ),
    )


def tpu(environment: Mapping[str, str]) -> Found | None:
    """What a TPU pod tells by variables; several slices are left to JAX.

    Raises:
        ConfigError: if a variable is not a number.
    """
    if environment.get("MEGASCALE_COORDINATOR_ADDRESS"):
        return Found("Cloud TPU slices", by_jax=True)
    hosts = [x for x in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if x]
    if not hosts or "TPU_WORKER_ID" not in environment:
        return None
    return Found(
        source="Cloud TPU",
        coordinator=f"{hosts[0].strip()}:{environment.get(PORT) or _TPU_PORT}",
        processes=len(hosts),
        process=_number(environment, "TPU_WORKER_ID"),
    )


def first_node(nodes: str) -> str:
    """The first machine of a list of SLURM: "n01" of "n[01-03,7],login"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0] if first else nodes)


def share(
    environment: Mapping[str, str], rank: int, count: int
) -> tuple[int, ...] | None:
    """Accelerators of a machine for one of its processes.

    Args:
        environment: variables of this process.
        rank: number of the process among those of this machine.
        count: number of those.

    Returns:
        numbers among the accelerators that it sees; None: all of them, which is so for
        a single process, and where whoever started it has shown each its own.
    """
    visible = environment.get(_first(environment, *_VISIBLE))
    if count == 1:
        return None
    if visible is None:
        return (rank,)
    seen = len([x for x in visible.split(",") if x.strip()])
    if seen < count:
        return None
    each = seen // count
    return tuple(range(rank * each, (rank + 1) * each))


def _tasks_here(environment: Mapping[str, str], processes: int) -> int:
    """Number of tasks of a SLURM step on this machine: 4 on the first of "4(x2),3"."""
    layout = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts = []
    for number, repeats in re.findall(r"(\d+)(?:\(x(\d+)\))?", layout):
        counts += [int(number)] * int(repeats or 1)
    node = environment.get("SLURM_NODEID", "0")
    if node.isdigit() and int(node) < len(counts):
        return counts[int(node)]
    return processes


def whole(text: str, name: str, least: int = 0) -> int:
    """A whole number.

    Raises:
        ConfigError: naming where it comes from, if it is none or too small.
    """
    if not re.fullmatch(r"\s*\d+\s*", text) or int(text) < least:
        raise ConfigError(f"{name}: expected a whole number from {least}")
    return int(text)


def port_in(address: str, name: str) -> int:
    """The port of "HOST:PORT".

    Raises:
        ConfigError: if there is none.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"{name}: expected HOST:PORT, such as node1:8476")
    return int(port)


def _number(environment: Mapping[str, str], name: str, least: int = 0) -> int:
    text = environment.get(name, "")
    return whole(text, f"{name}={text}", least)


def _first(environment: Mapping[str, str], *names: str) -> str:
    """The first of the variables that is set; the last if none is."""
    return next((name for name in names if name in environment), names[-1])


def _port(environment: Mapping[str, str], key: int) -> int:
    """The port that was asked for, or one that all processes of a job compute."""
    if environment.get(PORT):
        return _number(environment, PORT, least=1)
    return _FIRST_PORT + key % _PORTS
