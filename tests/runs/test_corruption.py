"""Every file of a run folder, broken in eight ways, before every command that reads it: a result or one message, no traceback."""

import json
import random
import shutil
from pathlib import Path

import pytest
from command_line import invoke_flat, run
from PIL import Image

from clsinterp.errors import ClsinterpError
from clsinterp.figures.facts import Facts
from clsinterp.figures.note import study_figures
from clsinterp.runs.results import read_run

pytestmark = pytest.mark.usefixtures("plain_page")
ASKED = ("--layers", "0,3", "--limit", 8, "--head", "fit", "--quiet")
FINISHED = ("run.json", "images.parquet", "curves.parquet", "probes.safetensors", "figure.html")
PARTS = {  # of which run folder below, a file
    "begun": (
        "request.json", "plan.json", "seen.parquet", "train-00000-00001.safetensors", "workers/*.json", "lock",
    ),
    "solved": ("solve-00000.safetensors", "train-00000-00001.safetensors"),
    "measured": ("test-00000.parquet", "request.json", "workers/*.json", "../probes.safetensors"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(checkpoint, folder, tmp_path_factory):
    """Run folders stopped at several places, and for each one of another run stopped there too."""
    import clsinterp.runs.worker as worker

    root = tmp_path_factory.mktemp("runs")

    def stop(*args):
        raise KeyboardInterrupt

    for kind, seed in (("", 0), ("other-", 1)):
        asked = (*ASKED, "--seed", seed)
        assert run(checkpoint("vit"), folder, root / f"{kind}finished", *asked)[0] == 0
        assert run(checkpoint("vit"), folder, root / f"{kind}begun", *asked, "--stage", "train")[0] == 0
        for name, place in (("solved", "readers"), ("measured", "assemble")):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(worker, place, stop)
                assert run(checkpoint("vit"), folder, root / f"{kind}{name}", *asked)[0] == 130
        (root / f"{kind}solved/probes.safetensors").unlink()  # as if stopped before they were put together
    return root


# -- eight ways to break a file ----------------------------------------------------


def emptied(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path: Path, other: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(500))


def flipped(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), max(1, len(data) // 7)):
        data[place] ^= 16
    path.write_bytes(data)


def foreign(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def of_another_kind(path: Path, other: Path) -> None:
    path.write_text('{"identity": [], "layers": "all"}' if path.suffix != ".json" else "[1, 2]")


def a_folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


def gone(path: Path, other: Path) -> None:
    path.unlink()


WAYS = (emptied, halved, garbled, flipped, foreign, of_another_kind, a_folder, gone)


def broken(folders: Path, tmp_path: Path, kind: str, name: str, way) -> Path:
    """A copy of the run folder `kind` in which the file `name` is broken."""
    out = shutil.copytree(folders / kind, tmp_path / "r")
    base = out if kind == "finished" else out / ".work"
    there = folders / f"other-{kind}" / base.relative_to(out)
    path, other = next(iter(base.glob(name))), next(iter(there.glob(name)))
    way(path, other)
    return out


def ends_well(code: int, text: str) -> bool:
    assert code in (0, 1, 2, 3), text
    assert "Traceback" not in text
    if code in (1, 2):
        assert text.startswith("clsinterp: ") or " clsinterp: " in text, text
    return code == 0


# -- and every command that reads it -----------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FINISHED)
def test_readers_of_a_finished_run(folders, checkpoint, tmp_path, name, way):
    out = broken(folders, tmp_path, "finished", name, way)
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    reads = {"figure": ("run.json", "curves.parquet"), "lens": ("run.json", "probes.safetensors"), "merge": FINISHED}
    words = {
        "figure": (out, "--out", tmp_path / "f.html"),
        "lens": (checkpoint("vit"), tmp_path / "a.png", "--classifier", out, "--out", tmp_path / "l.html"),
        "merge": (out,),
    }
    for command in (command for command in words if name in reads[command] or way is gone):
        code, text = invoke_flat(command, *words[command])
        fine = ends_well(code, text)
        foreign_report = (name, way) == ("run.json", foreign)  # a whole run's, whose tables are then not its own
        if name in reads[command] and command != "merge" and not foreign_report:
            assert not fine, (command, text)
            assert name in text, text


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_resumed_or_refused(folders, checkpoint, folder, tmp_path, name):
    for i, way in enumerate((halved, foreign, a_folder)):
        (tmp_path / str(i)).mkdir()
        out = broken(folders, tmp_path / str(i), "finished", name, way)
        code, text = run(checkpoint("vit"), folder, out, *ASKED, "--resume")
        assert ends_well(code, text) == (name != "run.json" and way is not a_folder), text


CASES = [(kind, name, way) for kind, names in PARTS.items() for name in names for way in WAYS]
HARMLESS = ("seen.parquet", "lock")


def check_parts(folders, checkpoint, folder, out, kind, name, way):
    for code, text in (
        invoke_flat("merge", out),
        run(checkpoint("vit"), folder, out, *ASKED, "--resume"),
    ):
        ends_well(code, text)
    whole = ("images.parquet", "curves.parquet", "probes.safetensors")
    if code == 0:  # then nothing of what was broken has reached a number
        for table in whole:
            assert (out / table).read_bytes() == (folders / "finished" / table).read_bytes(), table
    else:
        said = (Path(name).name.replace("*", ""), "holds no run", "cannot write", "was begun with other arguments")
        assert any(words in text for words in said), text


@pytest.mark.parametrize(("kind", "name", "way"), CASES[::6])
def test_parts_are_refused_by_name_or_computed_again(folders, checkpoint, folder, tmp_path, kind, name, way):
    out = broken(folders, tmp_path, kind, name, way)
    check_parts(folders, checkpoint, folder, out, kind, name, way)


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "name", "way"), CASES)
def test_all_parts_in_all_ways(folders, checkpoint, folder, tmp_path, kind, name, way):
    out = broken(folders, tmp_path, kind, name, way)
    check_parts(folders, checkpoint, folder, out, kind, name, way)


def values(value, path=()):
    """The place of every value in nested JSON."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from values(inner, (*path, key))


@pytest.mark.parametrize(("kind", "name"), [("finished", "run.json"), ("measured", ".work/request.json")])
def test_no_value_of_another_type_ends_in_a_traceback(folders, tmp_path, kind, name):
    """Every value of the JSON in turn becomes one of another type, before what needs no model."""
    out = shutil.copytree(folders / kind, tmp_path / "r")
    whole = (out / name).read_text()
    refused = 0
    if kind == "measured":
        (out / ".work/test-00000.parquet").unlink()  # merge ends early, and the folder is as before
    known = read_run(out).report.facts if kind == "finished" else None
    others = (None, {"a": []}, -(10**12))
    for i, path in enumerate(list(values(json.loads(whole)))[1:]):
        changed = json.loads(whole)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = others[i % 3]
        (out / name).write_text(json.dumps(changed))
        code, text = read(out, known) if kind == "finished" else invoke_flat("merge", out, "--quiet")
        ends_well(code, text)
        refused += code in (1, 2)
    assert refused > 50


def read(out: Path, known: Facts) -> tuple[int, str]:
    """`figure` without writing; what is `known` of the run draws well."""
    try:
        report, curves = read_run(out)
    except ClsinterpError as error:
        return error.exit_status, f"clsinterp: {error}"
    if report.facts != known:
        study_figures([(report.facts, curves)])
    return 0, ""
