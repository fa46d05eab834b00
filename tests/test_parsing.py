"""An unknown key is one line that names where it is and the nearest key of that place."""

import pytest

from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Paper


@pytest.mark.parametrize(
    ("place", "key", "meant"),
    [
        ("", "autors", "authors"),
        ("", "titel", "title"),
        ("methods.a", "titel", "title"),
        ("claims.0.subject", "metrik", "metric"),
    ],
)
def test_an_unknown_key_names_the_nearest_one_of_its_own_place(place, key, meant):
    paper = {
        "title": "T",
        "authors": ["A"],
        "venue": "V",
        "year": 2019,
        "bibtex": "",
        "task": "t",
        "methods": {"a": {"title": "A", "build": "m:f"}},
        "claims": [
            {
                "id": "C1",
                "statement": "s",
                "where": "w",
                "subject": {"method": "p/a", "metric": "m"},
                "expected": 1.0,
                "direction": "equal",
                "smallest_effect": 1,
                "tiers": ["mini"],
            }
        ],
    }
    parse(Paper, paper, "x.yaml")
    spot = paper
    for part in filter(None, place.split(".")):
        spot = spot[int(part) if part.isdigit() else part]
    spot[key] = spot.pop(meant)
    with pytest.raises(UserError) as caught:
        parse(Paper, paper, "x.yaml")
    where = f"{place}.{key}" if place else key
    assert str(caught.value) == f"x.yaml: {where}: unknown key (did you mean '{meant}'?)"
