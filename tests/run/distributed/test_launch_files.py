"""The launch files of the documentation start what the program then finds."""

import os
import pathlib
import shlex
import subprocess

import pytest
import yaml

from earthformer_jax.run.distributed import job

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "docs" / "launch"
SCRIPTS = ("mpi.sh", "slurm.sbatch", "tpu_pod.sh")
ARGUMENTS = ["--config=configs/sevir.py", "--workdir=runs/with space"]


@pytest.fixture
def start(tmp_path):
    """Runs a script with programs of other machines replaced by short scripts."""

    def start(name, programs, **variables):
        for program, text in programs.items():
            path = tmp_path / program
            path.write_text(f"#!/usr/bin/env bash\n{text}\n")
            path.chmod(0o755)
        return subprocess.run(
            ["bash", str(FOLDER / name), *ARGUMENTS],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}"} | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return start


@pytest.mark.parametrize("name", SCRIPTS)
def test_they_are_bash(name):
    subprocess.run(["bash", "-n", str(FOLDER / name)], check=True)
    assert os.access(FOLDER / name, os.X_OK)


class TestSlurm:
    srun = 'while [[ $1 == --* ]]; do shift; done; "$@"'  # drops the options of srun

    def test_the_command_of_a_task(self, start):
        python = 'printf "%s\\n" "$@"'
        done = start("slurm.sbatch", {"srun": self.srun, "python": python})
        assert done.returncode == 0, done.stderr
        expected = ["-m", "earthformer_jax.main", "--distributed", *ARGUMENTS]
        assert done.stdout.splitlines() == expected

    @pytest.mark.parametrize("status, again", [(143, 1), (75, 1), (2, 0)])
    def test_what_ended_from_outside_is_queued_again(self, start, status, again):
        programs = {
            "srun": self.srun,
            "python": f"exit {status}",
            "scontrol": 'echo "$@"',
        }
        done = start("slurm.sbatch", programs, SLURM_JOB_ID="77")
        assert done.returncode == status
        assert done.stdout.splitlines() == ["requeue 77"] * again

    def test_its_tasks_are_what_the_program_finds(self):
        lines = (FOLDER / "slurm.sbatch").read_text().splitlines()
        asked = dict(
            line.removeprefix("#SBATCH --").split("=")
            for line in lines
            if line.startswith("#SBATCH --") and "=" in line
        )
        nodes, tasks = int(asked["nodes"]), int(asked["ntasks-per-node"])
        gpus = int(asked["gpus-per-node"])
        found = [
            job.find(
                {},
                {
                    "SLURM_JOB_ID": "77",
                    "SLURM_STEP_NODELIST": f"n[01-{nodes:02}]",
                    "SLURM_STEP_NUM_TASKS": str(nodes * tasks),
                    "SLURM_STEP_TASKS_PER_NODE": f"{tasks}(x{nodes})",
                    "SLURM_PROCID": str(i),
                    "SLURM_LOCALID": str(i % tasks),
                    "SLURM_NODEID": str(i // tasks),
                    "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus))),
                },
            )
            for i in range(nodes * tasks)
        ]
        assert len({x.coordinator for x in found}) == 1
        devices = {(x.process // tasks, x.local_devices) for x in found}
        assert devices == {(n, (g,)) for n in range(nodes) for g in range(gpus)}


class TestJobSet:
    jobset = yaml.safe_load((FOLDER / "jobset.yaml").read_text())
    (workers,) = jobset["spec"]["replicatedJobs"]
    pods = workers["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]

    def environment(self, index):
        """What Kubernetes makes of the file for a pod."""
        name = self.jobset["metadata"]["name"]
        labels = {
            "metadata.labels['jobset.sigs.k8s.io/jobset-name']": name,
            "metadata.labels['jobset.sigs.k8s.io/replicatedjob-name']": (
                self.workers["name"]
            ),
        }
        return {
            x["name"]: x.get("value") or labels[x["valueFrom"]["fieldRef"]["fieldPath"]]
            for x in self.container["env"]
        } | {"JOB_COMPLETION_INDEX": str(index)}

    def test_each_pod_finds_the_job(self):
        count = self.pods["parallelism"]
        found = [job.find({}, self.environment(i)) for i in range(count)]
        assert [x.process for x in found] == [*range(count)]
        assert {x.processes for x in found} == {count} == {self.pods["completions"]}
        assert {x.coordinator for x in found} == {"forecast-workers-0-0.forecast:8476"}

    def test_what_the_program_counts_on(self):
        assert self.pods["completionMode"] == "Indexed"
        assert self.workers["replicas"] == 1
        assert self.jobset["spec"]["network"]["publishNotReadyAddresses"] is True
        assert "--distributed" in self.container["args"]


class TestMpi:
    python = 'echo "$JAX_COORDINATOR_ADDRESS"; printf "%s\\n" "$@"'

    def test_the_first_machine_of_the_hostfile(self, start, tmp_path):
        (tmp_path / "hosts").write_text("# machines\n\nn1 slots=4\nn2 slots=4\n")
        done = start("mpi.sh", {"python": self.python})
        address, *command = done.stdout.splitlines()
        assert command[2:] == ["--distributed", *ARGUMENTS]
        rank = {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8"}
        found = job.find({}, rank | {"JAX_COORDINATOR_ADDRESS": address})
        assert (found.coordinator, found.process) == ("n1:8476", 5)

    def test_another_machine(self, start):
        done = start("mpi.sh", {"python": self.python}, COORDINATOR="n3", PORT="9000")
        assert done.stdout.splitlines()[0] == "n3:9000"


class TestTpuPod:
    def test_the_command_of_each_machine(self, start):
        gcloud = 'for word in "$@"; do echo "$word"; done'
        done = start("tpu_pod.sh", {"gcloud": gcloud}, TPU="pod", ZONE="z")
        assert done.returncode == 0, done.stderr
        words = done.stdout.splitlines()
        assert {"pod", "--zone=z", "--worker=all"} <= {*words}
        command = shlex.split(words[-1].removeprefix("--command="))
        assert command[3:] == ["--distributed", *ARGUMENTS]

    def test_it_tries_again(self, start):
        done = start(
            "tpu_pod.sh", {"gcloud": "exit 1"}, TPU="pod", ZONE="z", ATTEMPTS="2"
        )
        assert done.returncode == 1
        assert done.stderr.splitlines() == [f"attempt {i} has failed" for i in (1, 2)]

    def test_what_is_missing_is_named(self, start):
        assert "the name of the TPU" in start("tpu_pod.sh", {}).stderr
