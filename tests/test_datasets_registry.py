"""The registry is strict, complete and pure."""

from pathlib import Path

import pytest

from replications.datasets import registry
from replications.datasets.registry import PreparedSetEntry, Registry, data_fingerprint, describe_set, load
from replications.errors import UserError

SETS = sorted(load().sets)


def test_every_set_has_what_a_person_needs():
    for key in SETS:
        entry, about = load().sets[key], describe_set(key)
        assert about["title"] and about["licence"] and about["prepared_bytes"] > 0, key
        sources = [load().sources[name] for name in entry.sources.values()]
        if entry.kind in ("public", "gated"):
            assert sources and about["citation"].startswith("@"), key
        if entry.kind == "public":
            assert all(source.variants[0].urls for source in sources), f"{key}: a public set can be downloaded"
            assert about["bytes"] > 0, key
        if entry.kind == "gated":
            assert all(source.gated for source in sources), f"{key}: a gated source says what a person must do"
            assert about["gated"], key


def test_no_source_is_without_a_set():
    used = {source for entry in load().sets.values() for source in entry.sources.values()}
    assert used == set(load().sources)


def test_no_two_sources_share_a_place():
    paths = [variant.path for source in load().sources.values() for variant in source.variants]
    assert len(set(paths)) == len(paths)


def write(folder, text: str, name: str = "x.yaml"):
    (folder / name).write_text(text)
    return folder


SOURCE = "sources:\n  box:\n    title: T\n    licence: L\n    variants: [{path: a/b.txt, sha256: " + "ab" * 32 + "}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOURCE.replace("licence", "license"), "sources.box.license: unknown key .did you mean 'licence'"),
        (SOURCE.replace("path:", "paht: x, path:"), "variants.0.paht: unknown key .did you mean 'path'"),
        (SOURCE.replace("a/b.txt", "../b.txt"), "must be a relative path"),
        (SOURCE.replace("a/b.txt", "/etc/passwd"), "must be a relative path"),
        (SOURCE.replace("ab" * 32, "123"), "sources.box.variants.0.sha256"),
        (SOURCE.replace("sha256: " + "ab" * 32, "urls: ['http://x/y']"), "a URL needs a sha256 or md5"),
        ("sets: {s: {title: T, kind: public, preparer: faces.lfw, prepared_bytes: 1, sources: {a: bax}}}\n" + SOURCE,
         r"data set 's': unknown source 'bax' .did you mean 'box'"),
        ("sets: [", r"x\.yaml:\d+: not valid YAML"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_registry_is_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, text))


def test_a_name_in_two_files_is_refused(tmp_path):
    write(tmp_path, SOURCE)
    write(tmp_path, SOURCE, "y.yaml")
    with pytest.raises(UserError, match=r"y\.yaml: sources\.box is already in another file"):
        load(tmp_path)


def test_unknown_names_name_the_nearest():
    with pytest.raises(UserError, match=r"unknown data set 'lfw_113' .did you mean 'lfw_112'"):
        registry.find_set("lfw_113")
    with pytest.raises(UserError, match=r"unknown data source 'lfw_pear' .did you mean 'lfw_pairs'"):
        registry.find_source("lfw_pear")


@pytest.fixture
def changed(monkeypatch):
    """Return the fingerprint of lfw_112 with its entry or one of its sources changed."""

    def fingerprint(entry: dict | None = None, source: dict | None = None, variant: dict | None = None) -> str:
        known = REAL
        images = known.sources["lfw_deepfunneled"].model_copy(update=source or {})
        official = images.variants[0].model_copy(update=variant or {})
        images = images.model_copy(update={"variants": (official, *images.variants[1:])})
        lfw = known.sets["lfw_112"].model_copy(update=entry or {})
        altered = Registry(sources={**known.sources, "lfw_deepfunneled": images}, sets={**known.sets, "lfw_112": lfw})
        monkeypatch.setattr(registry, "load", lambda: altered)
        return data_fingerprint("lfw_112")

    return fingerprint


REAL = load()


def test_a_data_fingerprint_changes_with_what_decides_the_arrays(changed):
    same = changed()
    options = REAL.sets["lfw_112"].options
    assert len(same) == 64
    assert changed(entry={"title": "Other", "note": "n", "licence": "l", "prepared_bytes": 7}) == same
    assert changed(source={"title": "Other", "citation": "c", "gated": "g"}) == same
    assert changed(variant={"urls": (), "about_bytes": 1, "path": "elsewhere/x.tgz"}) == same
    assert changed(entry={"options": options | {"size": 96}}) != same
    assert changed(entry={"preparer": "faces.folders"}) != same
    assert changed(variant={"md5": "0" * 32}) != same


def test_a_data_fingerprint_does_not_hang_on_messages_and_downloads(monkeypatch):
    """The preparers' code counts; what talks to a person or fetches files does not."""
    reached = []
    real = registry.code_fingerprint

    def spy(entries, leave_out):
        from replications import fingerprint

        def parse(path, *rest):
            reached.append(Path(path).stem)
            return PARSE(path, *rest)

        monkeypatch.setattr(fingerprint, "_parse", parse)
        return real(entries, leave_out=leave_out)

    from replications import fingerprint

    PARSE = fingerprint._parse
    monkeypatch.setattr(registry, "code_fingerprint", spy)
    data_fingerprint("lfw_112")
    assert set(reached) == {"__init__", "decoding", "extract", "lfw", "lines", "litter", "rows"}


def test_every_set_has_a_fingerprint_of_its_own():
    prints = {key: data_fingerprint(key) for key in SETS}
    assert len(set(prints.values())) == len(SETS)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("faces.lwf", "did you mean 'faces.lfw'"), ("lfw", "did you mean 'faces.lfw'")],
    ids=["misspelt", "without its family"],
)
def test_an_unknown_preparer_names_the_nearest(monkeypatch, name, hint):
    entry = PreparedSetEntry(title="T", kind="procedural", preparer=name, prepared_bytes=1)
    monkeypatch.setattr(registry, "load", lambda: Registry(sets={"s": entry}))
    with pytest.raises(UserError, match=f"no preparer '{name}' .*{hint}"):
        data_fingerprint("s")
