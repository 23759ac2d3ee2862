"""Forecasts with members: arrays, data sets, files, and what is refused."""

import contextlib
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.models.probabilistic import NoiseOptions, Probabilistic
from earthformer_jax.run import api
from earthformer_jax.run.forecasting import command, making, members, watching
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from tests.data import cube_files

DAYS, COUNT = 30, 5


class Drawing(nn.Module):
    """Persistence plus noise of each member, which the inputs and numbers decide."""

    steps: int = 2
    draws = True

    def __call__(self, inputs, *, train=False):
        return self.members(inputs, 4).mean(axis=0)

    def members(self, inputs, size, *, first=0, seen=None, train=False):
        key = inputs if seen is None else seen
        bits = jax.lax.bitcast_convert_type(jnp.asarray(key), jnp.uint32)
        level = (bits.sum(axis=(1, 2, 3, 4), dtype=jnp.uint32) % 1000).astype("f4")
        number = first + jnp.arange(size)
        noise = jnp.cos(0.7 * number[:, None] + level)
        noise = noise.reshape(size, -1, 1, 1, 1, 1)
        last = jnp.repeat(inputs[:, -1:, ..., :2], self.steps, axis=1)
        return last + noise


class Level(nn.Module):
    """Persistence plus a parameter, which the trained members do not share."""

    input_shape: tuple = (4, 4, 5, 4)
    target_shape: tuple = (2, 4, 5, 2)

    @nn.compact
    def __call__(self, inputs, *, train=False):
        level = self.param("level", nn.initializers.normal(), ())
        return jnp.repeat(inputs[:, -1:, ..., :2], 2, axis=1) + level


class Normed(nn.Module):
    """A network with one norm, which noise can change."""

    @nn.compact
    def __call__(self, inputs, *, train=False):
        x = nn.LayerNorm()(inputs[..., :2])
        return jnp.repeat(0.9 * inputs[:, -1:, ..., :2] + 0.1 * x[:, -1:], 2, axis=1)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Persistence of days, which gives one forecast."""
    folder = tmp_path_factory.mktemp("members")
    cube_files.write(cube_files.dataset(DAYS), folder / "days.nc")
    changes = {"data.path": str(folder / "days.nc"), "data.calendar": True}
    run = Run(api.load_config("custom:test,persistence", changes), folder / "run")
    with contextlib.chdir(folder):
        assert run.train()
    return run.load()


@pytest.fixture(scope="module")
def drawing(still):
    return dataclasses.replace(still, model=Drawing())


@pytest.fixture(scope="module")
def ensemble(still):
    shapes = still.input_shape, still.target_shape
    model = Ensemble(*shapes, Level(*shapes), 3)
    inputs = jnp.zeros((1, *still.input_shape))
    one = [Level(*shapes).init(jax.random.key(i), inputs)["params"] for i in range(3)]
    stacked = {"member": jax.tree.map(lambda *x: jnp.stack(x), *one)}
    variables = {"params": stacked}
    return dataclasses.replace(still, model=model, variables=variables)


@pytest.fixture(scope="module")
def noisy(still):
    """A network with noise, whose spread was fitted."""
    options = NoiseOptions(noise=3, noise_in="all", members=4)
    model = Probabilistic(still.input_shape, still.target_shape, Normed(), options)
    variables = model.init(jax.random.key(0), jnp.zeros((1, *still.input_shape)))
    rng = np.random.default_rng(1)
    noise = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype),
        variables["params"]["noise"],
    )
    variables["params"]["noise"] = noise
    spread = jnp.full(still.target_shape, 1.5)
    variables["batch_stats"]["spread"] = spread
    return dataclasses.replace(still, model=model, variables=variables)


@pytest.fixture(scope="module")
def inputs(still):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, *still.input_shape)).astype("f4")


class TestArrays:
    def test_members_of_a_model_that_draws(self, drawing, inputs):
        made = drawing(inputs, members=COUNT)
        assert made.shape == (COUNT, 2, *drawing.target_shape)
        assert made.dtype == jnp.float32
        want = Drawing().apply({}, inputs, COUNT, method="members")
        np.testing.assert_allclose(made, np.asarray(want), rtol=1e-6)
        np.testing.assert_allclose(
            drawing(inputs, members=4).mean(axis=0), drawing(inputs), atol=1e-6
        )

    def test_parts_are_the_beginning_of_a_larger_number(
        self, drawing, inputs, monkeypatch
    ):
        whole = drawing(inputs, members=11)
        monkeypatch.setattr(members, "MOST_VALUES", 2 * 3 * whole[0, 0].size)
        for count in (3, 7, 11):
            other = dataclasses.replace(drawing)
            np.testing.assert_allclose(
                other(inputs, members=count), whole[:count], atol=1e-6
            )

    def test_members_of_an_ensemble_are_the_trained_ones(self, ensemble, inputs):
        made = ensemble(inputs, members=3)
        want = ensemble.model.apply(ensemble.variables, inputs, method="members")
        np.testing.assert_allclose(made, want, rtol=1e-6)
        np.testing.assert_allclose(made.mean(axis=0), ensemble(inputs), atol=1e-6)
        np.testing.assert_allclose(ensemble(inputs, members=2), want[:2], rtol=1e-6)

    def test_physical_units(self, noisy, inputs):
        t = inputs.shape[1]
        rng = np.random.default_rng(0)
        fields = 280 + rng.normal(size=(2, t, *inputs.shape[2:4], 2)).astype("f4")
        minutes = 1440 * (15_000 + np.arange(t))[None] + np.zeros((2, 1), int)
        made = jax.jit(lambda x: noisy.apply(x, minutes, members=4))(fields)
        assert made.shape == (4, 2, *noisy.target_shape)
        mean = noisy.apply(fields, minutes)
        np.testing.assert_allclose(made.mean(axis=0), mean, rtol=1e-5)
        assert float(jnp.abs(made[0] - made[1]).min()) > 0

    @pytest.mark.parametrize("count", [0, -1, 1.5, True, "3", 2**20 + 1])
    def test_numbers_that_are_refused(self, drawing, inputs, count):
        with pytest.raises(ConfigError, match=r"members=.*: expected a whole number"):
            drawing(inputs, members=count)
        with pytest.raises(ConfigError, match=r"members=.*: expected a whole number"):
            drawing.forecast(members=count)

    def test_noise_in_the_norms(self, noisy, inputs, monkeypatch):
        """Parts have the spread about the mean of the first members, too."""
        whole = noisy(inputs, members=7)
        assert float(whole.std(axis=0).min()) > 0
        np.testing.assert_allclose(whole[:4].mean(axis=0), noisy(inputs), atol=1e-6)
        monkeypatch.setattr(members, "MOST_VALUES", 2 * 2 * whole[0, 0].size)
        parts = dataclasses.replace(noisy)(inputs, members=5)
        np.testing.assert_allclose(parts, whole[:5], atol=1e-6)

    def test_trained_members_that_draw(self, noisy, inputs):
        """One draw of each in turn; there is no limit to their number."""
        stacked = {
            name: {"member": jax.tree.map(lambda x: jnp.stack([x, 2 * x]), group)}
            for name, group in noisy.variables.items()
        }
        shapes = noisy.input_shape, noisy.target_shape
        both = Ensemble(*shapes, noisy.model, 2)
        made = dataclasses.replace(noisy, model=both, variables=stacked)(
            inputs, members=5
        )
        np.testing.assert_allclose(made[::2], noisy(inputs, members=3), atol=1e-5)


class TestFiles:
    def test_members_are_those_of_the_arrays(self, drawing):
        made = drawing.hindcast(members=COUNT)
        assert made["T"].dims[:3] == (
            "forecast_reference_time", "lead_time", "realization"
        )  # fmt: skip
        starts = made.sizes["forecast_reference_time"]
        few = drawing.hindcast(members=2)
        np.testing.assert_allclose(few["T"], made["T"][:, :, :2], rtol=1e-6)
        plain = drawing.hindcast()
        four = drawing.hindcast(members=4)["T"].mean("realization")
        np.testing.assert_allclose(four, plain["T"], rtol=1e-6)
        one = drawing.forecast(members=COUNT)  # in a batch of its own
        np.testing.assert_allclose(one["T"], made["T"][starts - 1], rtol=1e-6)

    def test_each_member_goes_on_from_its_own_frames(self, drawing, monkeypatch):
        """The noise of a member is new in every stretch, and it adds up."""
        made = drawing.forecast(steps=6, members=3)
        monkeypatch.setattr(members, "MOST_VALUES", 1)
        again = dataclasses.replace(drawing).forecast(steps=6, members=2)
        np.testing.assert_allclose(again["T"], made["T"][:, :2], rtol=1e-6)
        noise = np.diff(made["T"][[1, 2, 4]], axis=0).std(axis=(2, 3))
        assert (noise < 1e-3).all()  # one number for all cells
        steps = np.diff(made["T"][[1, 2, 4]], axis=0)[..., 0, 0]
        assert len(np.unique(steps.round(3))) == steps.size

    def test_noise_does_not_depend_on_parts_of_a_roll_out(self, noisy, monkeypatch):
        made = noisy.hindcast(steps=6, members=4)["T"]
        monkeypatch.setattr(members, "MOST_VALUES", 1)
        few = dataclasses.replace(noisy).forecast(steps=6, members=3)["T"]
        np.testing.assert_allclose(few, made[-1, :, :3], rtol=1e-5)
        assert float(made.std("realization").min()) > 0

    def test_trained_members_go_on_from_their_own_frames(self, ensemble):
        made = ensemble.forecast(steps=6, members=3)["T"].values
        rise = np.diff(made[[0, 2, 4]], axis=0)
        np.testing.assert_allclose(rise[0], rise[1], rtol=1e-3, atol=1e-3)
        assert np.ptp(rise, axis=1).min() > 1e-2

    @pytest.mark.parametrize("name", ["new.nc", "new.zarr"])
    def test_files_are_the_data_set(self, drawing, tmp_path, name):
        wanted = making.request(None, "all", members=3, packed=name == "new.nc")
        path = making.write(drawing, wanted, tmp_path / name, tmp_path)
        assert path is not None
        opened = xr.open_zarr if path.suffix == ".zarr" else xr.open_dataset
        with opened(path) as made:
            want = drawing.forecast(None, "all", members=3)
            np.testing.assert_allclose(made["T"], want["T"], rtol=1e-3)
            assert made["realization"].values.tolist() == [1, 2, 3]
            assert made.attrs["ensemble_members"] == "3"
            assert made.attrs["ensemble_spread"] == "not scaled"

    def test_names_say_how_many(self, drawing, still, tmp_path):
        for model, count, end in ((drawing, 3, "3-members.nc"), (still, 1, "30.nc")):
            wanted = making.request(members=count)
            path = making.write(model, wanted, None, tmp_path)
            assert path is not None and path.name.endswith(end)

    def test_another_number_replaces_the_whole_file(self, drawing, tmp_path):
        path = tmp_path / "new.nc"
        for count in (3, 2):
            wanted = making.request(members=count)
            making.write(drawing, wanted, path, tmp_path, existing="replace")
            with xr.open_dataset(path) as made:
                assert made.sizes["realization"] == count
        with pytest.raises(ConfigError, match="exists; choose another --output"):
            making.write(drawing, making.request(members=3), path, tmp_path)

    def test_where_members_come_from(self, drawing, noisy, ensemble):
        said = [
            members.describe(m.model, m.variables, 3)["ensemble_origin"]
            for m in (drawing, noisy, ensemble)
        ]
        assert said[0].startswith("samples that the model draws")
        assert "3 random numbers each in the norms" in said[1]
        assert said[2] == "3 models, trained with seeds of their own"

    def test_a_scaled_spread_is_said(self, drawing):
        spread = {"batch_stats": {"spread": jnp.array([1.1, 1.3])}}
        made = members.describe(drawing.model, spread, 3)["ensemble_spread"]
        assert "multiplied by 1.1 to 1.3" in made


class TestRefused:
    def test_models_that_do_not_draw(self, still, inputs, tmp_path):
        refused = r"members=2: the model gives one forecast .*config.model.noise=32"
        with pytest.raises(ConfigError, match=refused):
            still(inputs, members=2)
        with pytest.raises(ConfigError, match=refused):
            making.write(still, making.request(members=2), None, tmp_path)
        assert still(inputs, members=1).shape == (1, 2, *still.target_shape)
        assert not list(tmp_path.iterdir())

    def test_more_than_the_trained_members(self, ensemble, inputs):
        with pytest.raises(ConfigError, match="4: the model is an ensemble of 3 train"):
            ensemble(inputs, members=4)

    def test_more_than_memory_holds(self, drawing, monkeypatch):
        monkeypatch.setattr(making, "host_bytes", lambda: 2**20)
        with pytest.raises(ConfigError, match=r"need 1\.2 MiB, but .* into a file"):
            drawing.forecast(members=4000)

    def test_what_is_not_scored(self, still, ensemble, drawing):
        command.check_scored(drawing.model, 50)
        with pytest.raises(ConfigError, match="--members=1: a single member has no"):
            command.check_scored(drawing.model, 1)
        with pytest.raises(ConfigError, match="members=3: the model gives one"):
            command.check_scored(still.model, 3)
        with pytest.raises(ConfigError, match="--members=3: .* all trained members"):
            command.check_scored(ensemble.model, 3)

    def test_watching_does_not_begin(self, still, tmp_path):
        with pytest.raises(ConfigError, match="members=2"):
            watching.watch(
                still, making.request("days*.nc", members=2), None, tmp_path,
                interval=1, written=print, shown=lambda made, _: made, sleep=print,
            )  # fmt: skip
