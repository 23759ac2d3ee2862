"""A model of codes: its VQ-VAE is trained first, by the same call."""

import shutil

import jax
import jax.export
import numpy as np
import pytest

from earthformer_jax.forecast import archive
from earthformer_jax.run import config_files
from earthformer_jax.run.forecasting import exporting
from earthformer_jax.run.run import Run
from earthformer_jax.run.tokenizers import first
from earthformer_jax.training import loop
from earthformer_jax.training.checkpoint import Checkpoints


@pytest.mark.slow
def test_stopped_between_the_two_and_continued(tmp_path, monkeypatch):
    config = config_files.load("moving_mnist:test,earthformer_ar")
    with config.unlocked():
        config.train.update(steps=1, validate_every=1)
        config.train.micro_batch = config.train.batch_size
        config.eval.members = 2
        config.model.update(tokenizer_steps=1, num_global_vectors=0)
        config.model.update(enc_depth=(1,), dec_depth=(1,), dec_self_pattern="full")
        config.data.update(validation=4, test=4)
    workdir, train = tmp_path / "run", loop.train

    def stops(config, *parts, **options):
        is_tokenizer = config.model.name == "vq_vae"
        return is_tokenizer and train(config, *parts, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", stops)
        assert not Run(config, workdir).train()
    own = Checkpoints(first.folder(workdir) / "checkpoints")
    before = own.path(1).stat().st_mtime_ns
    assert not Checkpoints(workdir / "checkpoints").steps()
    assert (first.folder(workdir) / "scores.json").exists()

    run = Run.of(workdir)
    assert run.train()
    assert own.path(1).stat().st_mtime_ns == before
    variables, _ = own.restore_variables("best")
    scores = run.evaluate()
    assert np.isfinite(scores["forecasts"]["model"]["mse"])
    assert (workdir / "figures" / "samples.png").exists()

    shutil.rmtree(first.folder(workdir))  # its variables are part of the model
    trained = Run.of(workdir).load()
    constants = trained.variables["batch_stats"][first.FOLDER]
    jax.tree.map(np.testing.assert_array_equal, dict(constants), variables)
    assert Run.of(workdir).train()  # complete already
    _exported_samples_are_those_of_the_model(trained, tmp_path / "codes.efx")


def _exported_samples_are_those_of_the_model(trained, path):
    found = archive.read(exporting.export(trained, path))
    assert found.members is not None and found.self_test is not None
    test, weights = dict(found.self_test), archive.flatten(found.variables)
    call = jax.export.deserialize(bytearray(found.members)).call
    made = call(weights, test["inputs"], np.int32(0))
    assert np.nanstd(test["members"]) > 1e-3
    np.testing.assert_allclose(made, test["members"], atol=1e-5, rtol=0)
