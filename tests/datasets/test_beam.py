"""Apache Beam prepares the same examples, in the same order, as one process does."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.datasets import test_builders
from tests.datasets.test_builders import DATASETS, builder_class, sevir_folder

pytest.importorskip("apache_beam", reason="apache-beam is not installed")
tfds = test_builders.tfds
pytestmark = pytest.mark.slow

__all__ = ["sevir_folder"]  # a fixture


def prepared(name, folder, config, runner, **options):
    """The builder of a folder that a runner, or one process, has prepared."""
    chosen = tfds.download.DownloadConfig(beam_runner=runner, **options)
    builder = builder_class(name)(data_dir=folder, config=config)
    builder.download_and_prepare(download_config=chosen)
    return builder


def assert_same(found, expected):
    sizes = [
        {k: v.num_examples for k, v in x.info.splits.items()} for x in (found, expected)
    ]
    assert sizes[0] == sizes[1]
    for split in sizes[0]:
        pairs = zip(
            found.as_data_source(split), expected.as_data_source(split), strict=True
        )
        for one, other in pairs:
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])


def test_events(sevir_folder, tmp_path):
    options = dict(manual_dir=sevir_folder, num_shards=2)
    builders = [
        prepared("sevir", tmp_path / str(runner), "lr", runner, **options)
        for runner in ("DirectRunner", None)
    ]
    assert_same(*builders)
    assert builders[0].info.splits["train"].num_shards == 2


def test_sequences_of_a_trial(tmp_path):
    builders = [
        prepared(
            "nbody_mnist",
            tmp_path / str(runner),
            "tiny",
            runner,
            max_examples_per_split=3,
        )
        for runner in ("DirectRunner", None)
    ]
    assert builders[0].info.splits["train"].num_examples == 3
    assert_same(*builders)


def test_the_command_on_workers_without_this_folder(tmp_path):
    """Each worker is a process of its own, as on another machine."""
    few = {"train": 3, "validation": 1, "test": 1}
    config = json.dumps({"name": "few", "data": few})
    options = "runner=DirectRunner,direct_num_workers=2,"
    options += "direct_running_mode=multi_processing"
    done = subprocess.run(
        [
            sys.executable,
            str(DATASETS / "build.py"),
            str(DATASETS / "nbody_mnist"),
            f"--config={config}",
            f"--data_dir={tmp_path}/beam",
            f"--beam_pipeline_options={options}",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kind = builder_class("nbody_mnist").builder_config_cls
    expected = prepared(
        "nbody_mnist", tmp_path / "alone", kind(name="few", data=few), None
    )
    found = tfds.builder_from_directory(str(tmp_path / "beam/nbody_mnist/few/1.0.0"))
    assert_same(found, expected)
