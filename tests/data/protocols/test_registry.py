import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data.protocols import table
from earthformer_jax.data.protocols.definition import MEAN
from earthformer_jax.data.protocols.registry import OF_INDICES, PROTOCOLS

# Scores that were published by a name can only be compared while this does not change.
CHECKSUMS = {
    "enso-kaplan-1985-2014": (
        "03f8ab355312c4fb59811b0c55789862447e48e333ad57c36e2d117443a2f252"
    ),
}


def test_names():
    assert set(PROTOCOLS) >= {
        "sevir-paper",
        "sevir-challenge",
        "sevir-lr",
        "nbody-paper",
        "moving-mnist-paper",
        "enso-icar-paper",
    }
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())


@pytest.mark.parametrize("name", sorted({*PROTOCOLS} - {OF_INDICES}))
def test_settings_are_those_of_the_data(name):
    protocol = PROTOCOLS[name]
    fields = {x.name for x in dataclasses.fields(data.settings(protocol.data))}
    assert {*protocol.settings, *protocol.equivalent} <= fields
    assert "path" not in protocol.settings


def test_checksums_differ_and_stay():
    found = {name: p.sha256 for name, p in PROTOCOLS.items()}
    assert len(set(found.values())) == len(found)
    assert {name: found[name] for name in CHECKSUMS} == CHECKSUMS


def test_everything_but_the_purpose_is_in_the_checksum():
    protocol = PROTOCOLS["sevir-paper"]
    json.dumps(protocol.definition)  # without numbers that only Python knows
    scoring: Any = protocol.scoring
    changes = [
        dict(settings={**protocol.settings, "in_len": 12}),
        dict(frame="10 min"),
        dict(size=(128, 128)),
        dict(examples={**protocol.examples, "test": 12_160}),
        dict(scoring=dataclasses.replace(scoring, leads=MEAN)),
        dict(scoring=dataclasses.replace(scoring, epsilon=(0.0, 1e-6))),
        dict(scoring=dataclasses.replace(scoring, thresholds=(16, 74))),
        dict(scoring=dataclasses.replace(scoring, pools=(1, 4))),
        dict(scoring=dataclasses.replace(scoring, units="mm/h")),
    ]
    made = {dataclasses.replace(protocol, **change).sha256 for change in changes}
    assert len(made) == len(changes) and protocol.sha256 not in made
    same = dataclasses.replace(protocol, purpose="anything", name="else")
    assert same.sha256 == protocol.sha256


def test_facts_of_the_published_tables():
    known: Any = PROTOCOLS
    paper, challenge = known["sevir-paper"], known["sevir-challenge"]
    assert sum(paper.examples.values()) == 3 * (11_906 + 3_020 + 4_053)
    assert paper.scoring.thresholds == (16, 74, 133, 160, 181, 219)
    assert challenge.scoring.thresholds == (16, 74, 133)
    assert paper.settings.items() - challenge.settings.items() == {
        ("normalization", "01")
    }
    low = PROTOCOLS["sevir-lr"]
    assert np.array_equal(np.array(paper.size), 3 * np.array(low.size))
    # The defaults of the data sets of digits are the paper's rules.
    for name in ("nbody-paper", "moving-mnist-paper"):
        protocol = PROTOCOLS[name]
        made = data.settings(protocol.data)()
        found = {x: getattr(made, x) for x in (*protocol.settings, *protocol.examples)}
        assert found == {**protocol.settings, **protocol.examples}


@pytest.mark.parametrize("part", table.markdown().split("\n\n"))
def test_the_documentation_has_the_tables(part):
    """`python -m earthformer_jax.data.protocols.table` prints them."""
    text = pathlib.Path(__file__).parents[3].joinpath("docs/protocols.md").read_text()
    assert part in text
    assert len(part.splitlines()) > 5
