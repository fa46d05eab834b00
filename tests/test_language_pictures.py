"""Pictures of language modelling: what they derive from records, and that each is drawn."""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.tasks.base import Look
from replications.tasks.language_modelling import pictures

LENGTHS = (512, 1024, 2048, 4096)


def record(seed, factor=1.0, timed=True):
    def costs(exponent, scale, longest=4096):
        return {
            str(n): {
                "seconds": factor * scale * (n / 512) ** exponent if n <= longest else None,
                "bytes": 1e6 * (n / 512) ** exponent if n <= longest else None,
            }
            for n in LENGTHS
        }

    method = costs(1.0, 0.02)
    for point in method.values():
        point["token_seconds"] = 1e-3
    points = {"method": method, "sdpa": costs(2.0, 0.01), "naive": costs(2.0, 0.04, longest=2048)}
    metrics = {"bits_per_byte": 3.0 + 0.1 * seed} | ({"bits_per_byte_equal_time": 3.2} if timed else {})
    validation = {"seconds": [1.0, 2.0, 3.0], "bits_per_byte": [4.0, 3.5, 3.1]}
    return SimpleNamespace(extra={"sweep": {"points": points}, "validation": validation}, metrics=metrics)


class Album:
    tier, width = "mini", 7.4
    addresses = ("flash/flash", "transformer/transformer", "flash/flash_local")

    def role(self, address):
        return {"flash/flash": "method", "transformer/transformer": "baseline"}.get(address, "ablation")

    def look(self, address):
        return Look("#0072B2", "o", "solid")

    def runs(self, address):
        return {seed: record(seed, 1 + seed, timed=address == "flash/flash") for seed in range(3)}

    def arrays(self, address, seed):
        return {"attention": np.tril(np.random.default_rng(0).normal(size=(2, 16, 16))).astype(np.float16)}


def test_costs_are_geometric_means_of_what_every_record_has():
    first, second = record(0, 1.0), record(1, 4.0)
    second.extra["sweep"]["points"]["method"]["512"]["bytes"] = None
    costs = pictures.mean_costs([first, second])
    assert costs["method"]["seconds"][1024] == pytest.approx(0.04 * 2)
    assert list(costs["naive"]["seconds"]) == [512, 1024, 2048]
    assert list(costs["method"]["bytes"]) == [1024, 2048, 4096]
    assert pictures.mean_costs([SimpleNamespace(extra={})]) == {}


def test_crossovers_are_where_the_laws_meet():
    found = pictures.crossovers(pictures.mean_costs([record(0)]))
    assert found["sdpa"].size == pytest.approx(1024)
    assert found["naive"].size == pytest.approx(256)


def test_one_word_says_what_holds_all_along():
    assert pictures._all_along({1: 1.0, 2: 1.0, 4: 9.0}, {1: 2.0, 2: 3.0}) == "faster at every length measured"
    assert pictures._all_along({1: 3.0}, {1: 2.0}) == "slower at every length measured"
    assert pictures._all_along({1: 3.0, 2: 1.0}, {1: 2.0, 2: 2.0}) == "no telling"


def test_every_picture_is_drawn_from_what_there_is(tmp_path):
    drawn = {picture.name: picture for picture in pictures.draw(Album())}
    assert list(drawn) == ["length", "time", "attention"]
    for picture in drawn.values():
        picture.figure.savefig(tmp_path / "x.png", dpi=40)
        assert picture.publish and picture.alt and picture.caption
    labels = [text.get_text() for text in drawn["length"].figure.axes[0].get_legend().get_texts()]
    assert labels[0] == "flash/flash\np = 1.00 [1.00, 1.00]" and len(labels) == 3
    assert len(drawn["attention"].figure.axes) == 5


def test_nothing_is_drawn_where_nothing_was_measured():
    class Empty(Album):
        def runs(self, address):
            return {}

        def arrays(self, address, seed):
            return {}

    assert list(pictures.draw(Empty())) == []
