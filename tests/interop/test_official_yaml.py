"""Config files of the reference implementation."""

import pytest
import yaml

from earthformer_jax.interop import official_yaml
from earthformer_jax.models import create_model
from earthformer_jax.run import config_files
from earthformer_jax.settings import ConfigError
from tests.interop.test_official import ENSO, SEVIR, SEVIR_LR


def test_sevir():
    found = official_yaml.fields({"model": SEVIR, "dataset": {"dataset_name": "sevir"}})
    assert found["data"] == dict(
        name="sevir",
        normalization="01",
        time_step=1,
        space_step=1,
        in_len=13,
        out_len=12,
    )
    options = dict(found["model"])
    assert options["stem_stages"] == (
        (16, (1, 3, 3), 2),
        (64, (1, 2, 2), 2),
        (128, (1, 2, 2), 2),
    )
    model = create_model(
        input_shape=SEVIR["input_shape"], target_shape=SEVIR["target_shape"], **options
    )
    assert model.match_reference and model.base_units == 128


@pytest.mark.parametrize(
    ("section", "name", "expected"),
    [
        (SEVIR, "", dict(name="sevir", space_step=1, time_step=1)),
        (SEVIR_LR, "sevirlr", dict(name="sevir", space_step=3, time_step=2)),
        (SEVIR_LR, "", dict(name="sevir", space_step=3, time_step=2)),
        (ENSO, "", dict(name="enso", normalization="official", out_len=14)),
        (SEVIR_LR | dict(input_shape=(10, 64, 64, 1)), "nbody", dict(in_len=10)),
        (SEVIR_LR | dict(input_shape=(10, 48, 48, 1)), "sevir", dict(space_step=8)),
    ],
)
def test_data(section, name, expected):
    found = official_yaml.fields({"model": section, "dataset": {"dataset_name": name}})
    assert expected.items() <= found["data"].items()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", "has no fields; expected a section `model`"),
        ("model: 3", "expected a section `model` with the options"),
        ("a: [", "cannot be read as yaml"),
        ("model: {base_unit: 8}", "base_unit"),
        ("model: {base_units: 8}", "lacks input_shape and target_shape"),
        (
            yaml.safe_dump({"model": ENSO | dict(input_shape=[12, 20, 20, 1])}),
            "not known which data have fields of 20 x 20 cells",
        ),
        (
            yaml.safe_dump({"model": ENSO | dict(self_pattern=None)}),
            "enc_pattern consists of cuboids",
        ),
    ],
)
def test_wrong_files(tmp_path, content, message):
    content = content.replace("!!python/tuple", "")
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        config_files.load(str(tmp_path / "a.yaml"))


def test_a_file(tmp_path):
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in ENSO.items()}
    (tmp_path / "enso.yaml").write_text(yaml.safe_dump({"model": plain}))
    config = config_files.load(str(tmp_path / "enso.yaml"))
    assert config.data.name == "enso" and config.model.stem_scale == (1, 1, 2)
    assert config.train.batch_size  # complete
    with pytest.raises(ConfigError, match="has no variants; got 'quick'"):
        config_files.load(f"{tmp_path / 'enso.yaml'}:quick")
    with pytest.raises(ConfigError, match="does not exist"):
        config_files.load(str(tmp_path / "other.yaml"))
