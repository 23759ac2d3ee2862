"""A process finds its job in flags and in variables of every program that starts it."""

import pytest

from earthformer_jax.run.distributed import schedulers
from earthformer_jax.run.distributed.job import VARIABLES, Job, find
from earthformer_jax.settings import ConfigError

SLURM = {
    "SLURM_JOB_ID": "4100",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "gpu[007-008,012]",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_NTASKS": "6",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
PMI = {
    "PMI_RANK": "1",
    "PMI_SIZE": "2",
    "MPI_LOCALRANKID": "1",
    "MPI_LOCALNRANKS": "2",
}
JOBSET = {
    "JOB_COMPLETION_INDEX": "2",
    "JOBSET_NAME": "forecast",
    "REPLICATED_JOB_NAME": "workers",
    "JAX_NUM_PROCESSES": "4",
}
TPU = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "t1v-0,t1v-1"}
FLAGS = {"coordinator": "node1:8476", "num_processes": 4, "process_id": 2}


def refusal(given, environment, **more):
    with pytest.raises(ConfigError) as caught:
        find(given, environment, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestTold:
    def test_flags(self):
        assert find(FLAGS, {}) == Job(
            "node1:8476", 4, 2, None, source="flags or variables"
        )

    def test_variables(self):
        told = {VARIABLES[name]: str(value) for name, value in FLAGS.items()}
        told["JAX_LOCAL_DEVICE_IDS"] = "0,1"
        job = find({}, told)
        assert (job.coordinator, job.processes, job.process) == ("node1:8476", 4, 2)
        assert job.local_devices == (0, 1)

    def test_flags_come_before_variables_and_both_before_schedulers(self):
        job = find(FLAGS, SLURM | {"JAX_PROCESS_ID": "1"})
        assert (job.process, job.processes) == (2, 4)
        job = find({}, SLURM | {"JAX_COORDINATOR_ADDRESS": "10.0.0.9:7000"})
        assert (job.coordinator, job.process) == ("10.0.0.9:7000", 3)

    def test_nothing(self):
        said = refusal({}, {})
        assert "--coordinator=HOST:PORT" in said and "--launch=N" in said

    def test_what_is_missing_is_named(self):
        said = refusal({"coordinator": "node1:8476", "num_processes": 2}, {})
        assert "--process_id (or JAX_PROCESS_ID) is missing" in said

    @pytest.mark.parametrize(
        "change, said",
        [
            (dict(process_id=4), "--process_id=4 does not go with --num_processes=4"),
            (dict(coordinator="node1"), "--coordinator=node1: expected HOST:PORT"),
            (dict(coordinator="node1:99999"), "expected HOST:PORT"),
            (dict(local_devices="0,x"), "--local_devices=0,x: expected a whole number"),
        ],
    )
    def test_what_is_wrong_is_named(self, change, said):
        assert said in refusal({**FLAGS, **change}, {})

    def test_a_variable_that_is_no_number(self):
        environment = {"JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}
        said = refusal({"coordinator": "node1:1"}, environment)
        assert said == "JAX_NUM_PROCESSES=two: expected a whole number from 1"

    def test_another_number_than_was_started(self):
        said = refusal({"num_processes": 2}, SLURM)
        assert "--num_processes=2: SLURM job 4100 has started 6 processes" in said


class TestSlurm:
    def test_a_step(self):
        job = find({}, SLURM)
        assert (job.processes, job.process) == (6, 3)
        assert job.coordinator == f"gpu007:{61440 + 4102 % 4096}"
        assert job.source == "SLURM job 4100"

    @pytest.mark.parametrize(
        "nodes, first",
        [
            ("node1", "node1"),
            ("node1,node2", "node1"),
            ("node[001-015],login", "node001"),
            ("node[007,009-015]", "node007"),
            ("rack[2-3]n[04-08],x", "rack2n04"),
        ],
    )
    def test_the_first_machine(self, nodes, first):
        assert schedulers.first_node(nodes) == first

    def test_the_batch_script_itself(self):
        said = refusal({}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"})
        assert "put srun in front of the command" in said

    @pytest.mark.parametrize(
        "more, devices",
        [
            ({}, (1,)),  # all GPUs are seen, without a variable
            ({"CUDA_VISIBLE_DEVICES": "0,1"}, (1,)),
            ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (2, 3)),
            # Each task sees its own only.
            ({"CUDA_VISIBLE_DEVICES": "0"}, None),
            ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "2"}, None),
            (
                {
                    "CUDA_VISIBLE_DEVICES": "0,1",
                    "SLURM_TRES_PER_TASK": "cpu=4,gres/gpu=1",
                    "SLURM_GPU_BIND": "none",
                },
                (1,),
            ),
            ({"SLURM_STEP_TASKS_PER_NODE": "1(x6)", "SLURM_LOCALID": "0"}, None),
        ],
    )
    def test_accelerators(self, more, devices):
        assert find({}, SLURM | more).local_devices == devices

    def test_tasks_on_this_machine(self):
        layout = {"SLURM_STEP_TASKS_PER_NODE": "3(x2),1", "SLURM_NODEID": "2"}
        devices = {"CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_LOCALID": "0"}
        assert find({}, SLURM | layout | devices).local_devices is None


class TestMpi:
    def test_one_machine(self):
        job = find({}, PMI)
        assert (job.processes, job.process, job.local_devices) == (2, 1, (1,))
        assert job.coordinator.startswith("127.0.0.1:")

    def test_open_mpi_4(self):
        uri = "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"
        job = find({}, OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": uri})
        assert job.coordinator.startswith("10.96.0.1:")
        uri = "1314521088.0;tcp6://[fe80::b9b,2620:10d::2]:43370"
        job = find({}, OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": uri})
        assert job.coordinator.startswith("[fe80::b9b]:")

    def test_open_mpi_5_needs_the_machine_of_process_0(self):
        assert "give --coordinator=HOST:PORT" in refusal({}, OPEN_MPI)
        assert find({"coordinator": "n1:8476"}, OPEN_MPI).process == 1

    def test_in_a_job_of_a_queue(self):
        slurm = {"SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "n[3-4]"}
        assert find({}, OPEN_MPI | slurm).coordinator.startswith("n3:")
        lsf = {"LSB_JOBID": "9", "LSB_HOSTS": "h5 h6"}
        assert find({}, OPEN_MPI | lsf).coordinator.startswith("h5:")

    def test_mpirun_in_slurm_is_mpi_and_srun_with_pmi_is_slurm(self):
        own = OPEN_MPI | {"JAX_COORDINATOR_PORT": "5000"}
        helper = SLURM | {"SLURM_PROCID": "0", "SLURM_JOB_NODELIST": "n[3-4]"}
        assert find({}, helper | own).coordinator == "n3:5000"
        ranks = {"PMI_RANK": "3", "PMI_SIZE": "6"}
        assert find({}, SLURM | ranks).source == "SLURM job 4100"

    def test_pmix_does_not_tell_the_number(self):
        assert "give --num_processes=N" in refusal({}, {"PMIX_RANK": "1"})
        given = {"num_processes": 2, "coordinator": "n1:8476"}
        assert find(given, {"PMIX_RANK": "1"}).process == 1


class TestKubernetes:
    def test_a_jobset(self):
        job = find({}, JOBSET)
        assert job == Job(
            "forecast-workers-0-0.forecast:8476", 4, 2, None, source="Kubernetes"
        )

    @pytest.mark.parametrize("missing", ["JAX_NUM_PROCESSES", "JOBSET_NAME"])
    def test_what_it_does_not_tell(self, missing):
        environment = {k: v for k, v in JOBSET.items() if k != missing}
        assert f"{missing}" in refusal({}, environment)

    def test_several_jobs_of_a_set(self):
        assert "JOB_INDEX=1" in refusal({}, JOBSET | {"JOB_INDEX": "1"})


class TestTpu:
    def test_a_pod(self):
        assert find({}, TPU) == Job("t1v-0:8476", 2, 1, None, source="Cloud TPU")

    def test_in_kubernetes(self):
        assert find({}, TPU | {"JOB_COMPLETION_INDEX": "1"}).source == "Cloud TPU"

    def test_what_jax_finds_by_itself(self):
        assert find({}, {}, has_tpu=True).coordinator is None
        slices = TPU | {"MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.2"}
        assert find({}, slices).coordinator is None
        said = refusal({"num_processes": 2}, {}, has_tpu=True)
        assert said.startswith("--num_processes=2: JAX finds the processes")
