"""Publications are small: records in one file, figures in fewer bytes, and nothing of what they say is lost."""

import base64
import io
import json
import lzma
import re
import shutil
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from published import PUBLISHED
from reporting_factory import GIVEN, TASKS, describe_set, papers, write_results
from test_reporting_page import CHROMIUM, browse

from replications import catalogue
from replications.archive import ARCHIVE, pack, record_files
from replications.errors import UserError
from replications.reporting import compare, drawing, publications, publish, report, style
from replications.reporting.results import read_results
from replications.reporting.svg import smaller

PAPERS = papers()


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    results = tmp_path_factory.mktemp("results") / "mini"
    write_results(results, pairs=60)
    return results


@pytest.fixture
def packed(loose, tmp_path):
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / ARCHIVE).write_bytes(pack(loose))
    return folder


def contents(results):
    return {name: json.loads(read()) for name, read in record_files(results)}


def test_one_file_reads_like_the_folder(loose, packed):
    assert contents(packed) == contents(loose) and list(contents(packed)) == sorted(contents(packed))
    by_folder, by_file = (read_results(results, "mini", PAPERS) for results in (loose, packed))
    assert by_file == by_folder and by_file.runs and by_file.throughput and not by_file.problems
    assert pack(packed) == pack(loose), "the same records, the same bytes"
    assert (packed / ARCHIVE).stat().st_size < 0.5 * sum(p.stat().st_size for p in loose.glob("runs/*/*/*/run.json"))
    assert (
        report.derive(loose, "mini", PAPERS, tasks=TASKS)[1:] == report.derive(packed, "mini", PAPERS, tasks=TASKS)[1:]
    )
    same = compare.compare(loose, packed, PAPERS, TASKS)
    assert same.notes == [] and compare.tier_of(packed) == "mini"


def test_each_line_is_a_record_that_other_tools_read(packed):
    lines = lzma.decompress((packed / ARCHIVE).read_bytes()).splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"run", "throughput"}
    assert len(lines) == len(contents(packed))


def test_archives_of_different_runs_join_and_a_run_twice_is_refused(packed, tmp_path):
    other = tmp_path / "other"
    write_results(other, "mini", seeds=4, pairs=20)
    for seed in range(3):
        for path in other.glob(f"runs/*/*/seed{seed}"):
            shutil.rmtree(path)
    shutil.rmtree(other / "throughput")
    before, (first, second) = contents(packed), (pack(packed), pack(other))
    (packed / ARCHIVE).write_bytes(first + second)
    assert contents(packed) == before | contents(other) and len(contents(packed)) > len(before)
    (packed / ARCHIVE).write_bytes(first + first)
    with pytest.raises(UserError, match="holds a record twice"):
        contents(packed)


@pytest.mark.parametrize("spoil", [lambda b: b[:-9], lambda b: b"", lambda b: lzma.compress(b"[1]\n"), lambda b: b"{}"])
def test_a_damaged_archive_is_one_line(packed, spoil):
    path = packed / ARCHIVE
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=rf"{ARCHIVE} is damaged \("):
        read_results(packed, "mini", PAPERS)


def test_what_no_report_counts_is_not_packed(loose, tmp_path):
    results = tmp_path / "mini"
    shutil.copytree(loose, results)
    whole = contents(results)
    path = results / "runs/arcface/arcface/seed1/run.json"
    shutil.copyfile(results / "runs/arcface/arcface/seed0/run.json", path)  # of another seed than its path says
    (results / "runs/arcface/softmax/seed1/run.json").write_text("{")
    (results / ARCHIVE).write_bytes(pack(results))
    lost = {"runs/arcface/arcface/seed1/run.json", "runs/arcface/softmax/seed1/run.json"}
    assert contents(results) == {name: record for name, record in whole.items() if name not in lost}


def test_an_older_publication_is_brought_to_the_present_form(loose, tmp_path, monkeypatch):
    """Records in a folder each, tables of an older wording, a manifest with keys that are no more, a large figure."""
    monkeypatch.setattr(drawing, "draw", lambda *args: {})
    results, published = tmp_path / "mini", tmp_path / "published"
    shutil.copytree(loose, results)
    report.build(results, "mini", PAPERS, **GIVEN)
    target = publish.publish(results, published, PAPERS, name="new", **GIVEN)
    older = published / "mini-older"
    shutil.copytree(loose, older)
    for name in ("claims.json", "claims.md", "citations.bib"):
        (older / name).write_text(f"older {name}")
    (older / "gone.csv").write_text("a table of an older form")
    (older / "plots").mkdir()
    (older / "plots" / "x.svg").write_text('<svg>\n <!-- said -->\n <path d="M 0.123456 1.000000 \nL 2 3"/>\n</svg>')
    manifest = json.loads((results / "report.json").read_text())
    asked = {key: manifest[key] for key in ("tier", "methods", "selected", "seeds")}
    files = ["claims.json", "gone.csv", "plots/x.svg"]
    (older / "report.json").write_text(json.dumps({**asked, "files": files, "publish": ["plots/x.svg"]}))
    publications.update(published, PAPERS, tasks=TASKS, describe_set=describe_set)
    (older / "report.json").unlink(), (target / "report.json").unlink()
    (older / "README.md").unlink(), (target / "README.md").unlink()
    assert (older / "plots" / "x.svg").read_text() == '<svg><path d="M0.12 1L2 3"/></svg>\n'
    shutil.rmtree(older / "plots")
    assert {p.name: p.read_bytes() for p in older.iterdir()} == {p.name: p.read_bytes() for p in target.iterdir()}


def test_a_row_of_all_publications_says_ours_the_papers_figure_device_and_budget():
    text = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    heading = "### Face verification: LFW deep-funneled, 112x112 · unrestricted, no outside data (folds 1, 2, 3 of 10)"
    section = text.partition(heading)[2].partition("###")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    told = dict(zip(rows[0], next(r for r in rows if r[:2] == ["arcface/arcface", "Accuracy (%)"]), strict=True))
    folder = PUBLISHED / "standard-lfw-3folds-cpu-small-budget"
    records = [record for name, record in contents(folder).items() if name.startswith("runs/arcface/arcface/seed")]
    accuracies = [record["metrics"]["accuracy"] for record in records]
    assert told["Ours"].startswith(f"{np.mean(accuracies):.2f} ± ")
    assert told["Seeds"] == f"{len(records)}/{len(records)}"
    assert told["Paper"] == "99.53 %" and "CASIA-WebFace" in told["The paper's figure is of"]
    steps = np.mean([record["cost"]["steps"] for record in records])
    assert told["Budget of a run"].startswith(f"{steps:,.0f} steps, ")
    assert all(record["provenance"]["cpu"] in told["Device"] for record in records)
    assert folder.name in told["Publication"]


def test_figures_of_papers_stand_beside_methods_and_metrics_that_exist():
    known = catalogue.papers()
    beside = [(p.task, figure) for p in known.values() for figure in p.reported if figure.beside]
    assert len(beside) > 60
    for task, figure in beside:
        paper, _, method = figure.beside.method.partition("/")
        assert method in known[paper].methods and known[paper].task == task, figure
        assert figure.beside.metric in catalogue_metrics(task), figure


def catalogue_metrics(task):
    from replications.tasks.base import find_task

    return find_task(task).metrics


# ------------------------------------------------------------------ figures


def scatter(marks: int) -> str:
    """A figure with marks of three colours, an image of few colours, text and a curve; its SVG."""
    random = np.random.default_rng(0)
    figure = Figure(figsize=(6, 2))
    axes = figure.subplots(1, 3)
    colours = np.array(["#2ca25f", "#3182bd", "#de2d26"])[random.integers(0, 3, marks)]
    axes[0].scatter(*random.random((2, marks)), s=9, c=colours, alpha=0.6, linewidths=0)
    axes[1].imshow(np.arange(100).reshape(10, 10), interpolation="nearest")
    axes[2].plot(np.linspace(0, 1, 500), np.sin(np.linspace(0, 9, 500)), "o-", ms=2)
    axes[2].set_title("−1.5 × “title”")
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    return stream.getvalue()


@pytest.fixture(scope="module")
def figure():
    return scatter(600)


def test_a_figure_is_smaller_and_stays_whole(figure):
    small = smaller(figure)
    assert len(small) < 0.4 * len(figure) and smaller(small) == small
    root = ET.fromstring(small)
    names = [element.get("id") for element in root.iter() if element.get("id")]
    used = set(re.findall(r'(?:href="|url\()#([^")]*)', small))
    assert len(names) == len(set(names)) and set(names) == used
    places = [p for element in root.iter() for p in (element.get("points") or "").split()]
    assert len(places) == 2 * 600, "every mark is a vertex"
    assert not re.search(
        r"\d\.\d{3}", re.sub(r'base64,[^"]*|scale\([^)]*\)|style="[^"]*"|(?:viewBox|width|height)="[^"]*"', "", small)
    )


def test_groups_without_attributes_go_and_styles_of_many_become_classes():
    style = 'style="fill: none; stroke: #444444"'
    marks = "".join(f'<g id="mark_{n}"><path d="M{n} 0L1 1" {style}/></g>' for n in range(3))
    text = f'<defs><style type="text/css">*{{x: y}}</style></defs><g id="patch"/><g clip-path="url(#c)">{marks}</g>'
    text = f'<svg><clipPath id="c"><rect style="x:z"/></clipPath><g id="all">{text}</g></svg>'
    assert smaller(text) == (
        '<svg><clipPath id="_0"><rect style="x:z"/></clipPath><defs><style type="text/css">*{x: y}'
        '.s1{fill:none;stroke:#444444}</style></defs><g clip-path="url(#_0)">'
        '<path d="M0 0L1 1" class="s1"/><path d="M1 0L1 1" class="s1"/><path d="M2 0L1 1" class="s1"/></g></svg>\n'
    )


def test_an_embedded_image_keeps_every_pixel(figure):
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(re.search(r'base64,([^"]*)', text)[1]))).convert("RGBA"))
        for text in (figure, smaller(figure))
    ]
    np.testing.assert_array_equal(*pictures)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_small_figure_looks_the_same(figure, tmp_path):
    seen = []
    for name, text in (("large", figure), ("small", smaller(figure))):
        (tmp_path / f"{name}.svg").write_text(text)
        page, shot = tmp_path / f"{name}.html", tmp_path / f"{name}.png"
        page.write_text(f'<body style="margin:0"><img src="{name}.svg" width="900">')
        browse(page, tmp_path / "profile", "--window-size=900,300", f"--screenshot={shot}")
        seen.append(np.asarray(Image.open(shot).convert("RGB"), dtype=int))
    difference = np.abs(seen[0] - seen[1]).max(-1)
    inked = (seen[0] < 250).any(-1)
    assert inked.mean() > 0.05
    assert (difference > 60).sum() < 0.02 * inked.sum(), "but for the order of overlapping marks"


def test_text_of_a_small_figure_is_text_in_fonts_that_every_system_has(tmp_path):
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(3, 2))
        figure.subplots().set_title("accuracy")
        figure.text(0.5, 0.5, "+1.2\nreproduced", size=7.3)
        style.save(figure, tmp_path, "one")
    text = smaller((tmp_path / "one.svg").read_text())
    assert ">accuracy</text>" in text and ">reproduced</text>" in text
    assert text.count("DejaVu Sans") == text.count("Verdana, sans-serif") == 1
    assert smaller(text) == text
