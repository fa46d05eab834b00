"""Names of folders as people have them: text whatever it looks like, and nothing that a shell or Snakemake acts on."""

import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from workflow_copy import make_copy

from replications import catalogue
from replications.cli import build_parser
from replications.errors import UserError
from replications.planning.folders import FOLDERS, as_written, folder_name, name_for_snakemake
from replications.planning.knobs import Knobs, read_knobs
from replications.planning.plan import Plan

CONFIG = catalogue.read_yaml(catalogue.CONFIG / "config.yaml")
HOSTILE = (
    "a b", "$(touch X)", "`touch X`", "a&b", "a;touch X", "a|b", ">X", "<X", "it's", 'a"b', "*", "?", "[a]", "a\\b",
    "\\", "-x", "--tier", "~", "~x", "#", "!", "%s", "{", "}", "{}", "{b}", "{{b}}", "{wildcards}", "{log}", "<b>",
    "<results>", "$HOME", "a=b", "a:b", "a,b", " a", "a ", "ünïcødé", "日本", "a\u202eb",
)  # fmt: skip
NUMBERS = ("2026_11_27", "0123", "1e3", "2026-11-27", "0x10", "1_000", "true", "null", "on", "1:30", ".5", "nan", "1")


def words_of(line: str, **values) -> list[str]:
    """The words that a shell makes of a job's line, once Snakemake has filled it in."""
    from snakemake.utils import format

    filled = format(line, **values)
    answer = subprocess.run(
        ["bash", "-c", f'exec() {{ printf "%s\\0" "$@"; }}; {filled.rpartition(" > ")[0]}'],
        capture_output=True,
        text=True,
        check=True,
    )
    words = answer.stdout.split("\0")[:-1]
    assert words == shlex.split(filled.rpartition(" > ")[0])[1:]
    return words


@pytest.mark.parametrize("name", HOSTILE)
def test_a_shell_hands_every_knob_over_as_it_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change = f"options.x={name}"
    knobs = Knobs("smoke", ("x",), (0,), set=(change,), **{key: f"{key}/{name}" for key in FOLDERS})
    knobs = SimpleNamespace(**{**vars(knobs), "results": name, "tried": True})
    seen = name_for_snakemake(name)
    values = {"output": f"{seen}/o", "log": f"{seen}/l", "params": SimpleNamespace(m="a/b,c/d")}
    line = Plan(knobs).shell("throughput {params.m:q} --done={output:q}", "tier", "set", "data_root", "work", "results")
    words = words_of(line, **values)
    assert words[:4] == ["python", "-m", "replications", "throughput"]
    args = build_parser().parse_args(words[3:])
    assert args.methods == ["a/b,c/d"] and args.changes == [change] and str(args.done) == f"{seen}/o"
    assert [str(args.data_root), str(args.work), str(args.results)] == [f"data_root/{name}", f"work/{name}", name]
    assert shlex.split(line.rpartition(" > ")[2].replace("{log:q}", shlex.quote(values["log"]))) == [
        f"{seen}/l",
        "2>&1",
    ]
    assert not [path for path in tmp_path.iterdir() if path.name != ".snakemake"]


def test_every_rule_quotes_what_its_shell_line_names():
    for rules in (catalogue.PACKAGE.parent / "workflows").glob("*.smk"):
        named = re.findall(r"plan\.shell\(\s*\"([^\"]*)\"", rules.read_text())
        assert all(word.endswith(":q") or word == "threads" for line in named for word in re.findall(r"{(.*?)}", line))


@pytest.mark.parametrize("name", HOSTILE)
def test_snakemake_reads_no_pattern_in_a_folder(name, tmp_path, monkeypatch):
    from snakemake.io import IOFile, apply_wildcards
    from snakemake.pathvars import Pathvars

    monkeypatch.chdir(tmp_path)
    seen = name_for_snakemake(name)
    assert seen == name or Path(seen).readlink() == tmp_path / name
    rule = SimpleNamespace(pathvars=Pathvars.with_defaults(), name="x", lineno=1, snakefile="x")
    for path in Plan(Knobs("smoke", ("x",), (0,), results=name, data_root=name)).records_of_group("0"):
        found = apply_wildcards(str(IOFile(path, rule)), {"paper": "p", "method": "m"})
        assert found == f"{seen}/smoke/runs/p/m/seed0/run.json"


@pytest.mark.parametrize("text", NUMBERS)
def test_a_folder_is_text_on_the_command_line_and_in_a_file(text, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"# a comment\ntier: mini\nresults: {text}  # as it is\nwork: '{text}'\ndata_mirror: null\n")
    written = as_written([file])
    assert written == {"results": None if text == "null" else text, "work": text, "data_mirror": None}
    assert as_written([file], [f"results={text}", "tier=x"])["results"] == text
    assert read_knobs({**CONFIG, "tier": "smoke", "results": text, "work": text}).results == text


def test_the_last_word_on_a_folder_counts(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("results: 1_0\nwork: 1e3\ndata_root: {a: b}\n")
    second.write_text('{"results": 007}')
    assert as_written([first, second]) == {"results": "007", "work": "1e3", "data_mirror": None}
    assert as_written([first], ["work=", "results='2026_11_27'", 'results="0 1"'])["results"] == "0 1"
    assert as_written([tmp_path / "none.yaml"], ["data_mirror=None"]) == {"data_mirror": None}


def test_a_tilde_is_home_and_a_name_is_as_pathlib_writes_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = read_knobs({**CONFIG, "tier": "smoke", "results": "~/r", "work": "~", "data_root": ".//d/"})
    assert (found.results, found.work, found.data_root) == (f"{tmp_path}/r", str(tmp_path), "d")
    assert folder_name("work", "~nobody-of-this-name/x") == "~nobody-of-this-name/x"
    assert folder_name("work", "./~") == "~" and "--work=./~" in Plan(Knobs("mini", (), (0,), work="~")).shell(
        "", "work"
    )


@pytest.mark.parametrize("knob", FOLDERS)
@pytest.mark.parametrize("name", ["a\nb", "a\0b", "\x1b[2J", "\udcff", "x" * 300, __file__, f"{__file__}/x"])
def test_a_name_that_can_be_no_folder_is_one_line(knob, name):
    with pytest.raises(UserError) as caught:
        read_knobs({**CONFIG, "tier": "smoke", knob: name})
    assert str(caught.value).startswith(f"{knob}=") and str(caught.value).isprintable()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return make_copy(tmp_path_factory.mktemp("shell"))


@pytest.mark.end_to_end
def test_a_whole_run_with_hostile_folders(copy):
    hostile = "$(touch X)`touch X`;touch X&|<y>{b}{{c \"q' *[%s\\ü~#!"
    (copy.root / f"m{hostile}").mkdir()
    folders = {
        "results": f"-r{hostile}",
        "work": f" w{hostile}",
        "data_root": f"~d{hostile}",
        "data_mirror": f"m{hostile}",
    }
    said = copy.snakemake("alpha", config=("throughput=false", *(f"{key}={name}" for key, name in folders.items())))
    root = copy.root / folders["results"] / "smoke"
    assert (root / "index.html").exists() and (root / "runs" / "alpha" / "plain" / "seed0" / "run.json").exists()
    assert list((copy.root / folders["work"]).glob("runs/*/run.json"))
    assert list((copy.root / folders["data_root"]).glob("prepared/*/set.json"))
    assert f"{folders['results']}/smoke/index.html" in said
    assert not list(copy.root.rglob("X"))


@pytest.mark.end_to_end
def test_snakemake_takes_a_number_for_the_name_it_is(copy):
    config = copy.root / "config" / "config.yaml"
    config.write_text(re.sub(r"(?m)^data_root: .*$", "data_root: 2026-11-27", config.read_text()))
    process = copy.start("--summary", "alpha", "--config", "tier=smoke", "throughput=false", "results=2026_11_27")
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert re.search(r"^2026_11_27/smoke/index.html\t", said, re.M)
    assert re.search(r"^2026-11-27/prepared/faces_smoke-\w+/set.json\t", said, re.M)
