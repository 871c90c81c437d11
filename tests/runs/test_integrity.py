"""A run is of the images it read, removes nothing that is not its own, and keeps what it wrote."""

import json
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pytest
from command_line import invoke_flat, run
from PIL import Image

from clsinterp.data import content
from clsinterp.data.content import Memory
from clsinterp.data.sources import open_data
from clsinterp.data.splits import choose
from clsinterp.errors import RequestError
from clsinterp.runs.folder import RunFolder
from clsinterp.runs.results import read_run

TABLES = ("images.parquet", "curves.parquet", "probes.safetensors", "figure.html")
FEW = ("--layers", "0,3", "--limit", 20)


@pytest.fixture
def data(folder, tmp_path):
    """A copy of the images that a test may change, written an hour ago."""
    copy = shutil.copytree(folder, tmp_path / "data")
    before = time.time() - 3600
    for path in copy.rglob("*.png"):
        os.utime(path, (before, before))
    return copy


@pytest.fixture(scope="module")
def finished(checkpoint, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "r"
    code, text = run(checkpoint("vit"), folder, out, *FEW, "--quiet")
    assert code == 0, text
    return out


@pytest.fixture
def done(finished, tmp_path):
    """A finished run that a test may change."""
    return shutil.copytree(finished, tmp_path / "done")


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


# -- images are part of what a run is ----------------------------------------------


def overwrite(path: Path, colour: int) -> None:
    Image.new("RGB", (30, 30), (colour, 0, 255 - colour)).save(path)


def test_images_overwritten_between_two_shards_are_refused_by_name(checkpoint, data, tmp_path):
    out = tmp_path / "r"
    assert run(checkpoint("vit"), data, out, "--shard", "1/2", "--stage", "train")[0] == 0
    overwrite(data / "train/class_2/train3.png", 7)
    code, text = run(checkpoint("vit"), data, out, "--shard", "2/2")
    assert code == 2, text
    assert "other train images" in text
    assert "test images" not in text
    assert "1 changed since, train/class_2/train3.png" in text
    shutil.rmtree(out)
    code, text = run(checkpoint("vit"), data, out, "--quiet")
    assert code == 0, text
    overwrite(data / "test/class_2/test3.png", 7)
    code, text = run(checkpoint("vit"), data, out, "--resume")
    assert (code, "other test images" in text) == (2, True), text


def test_images_overwritten_while_a_run_goes_on_make_no_tables(checkpoint, data, tmp_path, monkeypatch):
    import clsinterp.runs.worker as worker

    real = worker.solve_all
    path = data / "train/class_2/train3.png"
    monkeypatch.setattr(worker, "solve_all", lambda folder, job: (overwrite(path, 7), real(folder, job)))
    code, text = run(checkpoint("vit"), data, tmp_path / "r")
    assert (code, "train images" in text, "changed while the run went on" in text) == (1, True, True), text
    assert not (tmp_path / "r/run.json").exists()


def test_contents_are_hashed_once_for_all_shards(checkpoint, data, tmp_path, monkeypatch):
    read: list[str] = []
    real = content._update
    monkeypatch.setattr(content, "_update", lambda digest, path: (read.append(path), real(digest, path)))
    monkeypatch.setattr(content, "FRESH", -1)  # the copy changed a moment ago
    out = tmp_path / "r"
    assert run(checkpoint("vit"), data, out, "--shard", "1/2", "--stage", "train")[0] == 0
    assert len(read) == len(set(read)) == 84 + 42
    assert run(checkpoint("vit"), data, out, "--shard", "2/2", "--stage", "train")[0] == 0
    assert len(read) == 84 + 42
    (out / ".work/seen.parquet").write_bytes(b"PAR1")  # it only saves time
    code, text = run(checkpoint("vit"), data, out, "--resume")
    assert (code, len(read)) == (0, 2 * (84 + 42)), text


def test_times_of_what_was_written_a_moment_ago_vouch_for_nothing(data):
    train, _ = open_data(str(data))
    memory = Memory()
    overwrite(data / train.sources[0], 7)
    train.fingerprint(memory)
    assert memory.get(train.sources[0], content.stamp(data / train.sources[0])) is None
    again = Memory(memory.table())
    assert again.table().equals(memory.table())
    train.fingerprint(again)
    assert not again.changed
    overwrite(data / train.sources[0], 8)
    train.fingerprint(again)
    assert again.changed == [train.sources[0]]


def test_a_changed_image_of_any_storage_changes_the_fingerprint(folder, tmp_path, pictures):
    """Files; bytes in parquet; streamed rows, by size and sample. Names and labels stay."""
    import datasets

    def of(value: int, streamed: bool):
        cells = [pictures(0, i + value) for i in range(8)]
        kind = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        rows = datasets.Dataset.from_dict({"image": cells, "label": [0, 1] * 4}, features=kind)
        path = tmp_path / f"{value}{streamed}" / "train.parquet"
        path.parent.mkdir()
        rows.to_parquet(path)
        (split, _) = open_data(str(path.parent))
        if streamed:
            return choose(
                type(split)(split.rows.to_iterable_dataset(), "image", split.places, split.sources, split.labels, ["a", "b"]),
                0, None, None, "train",
            )  # fmt: skip
        return split

    for streamed in (False, True):
        one, other = of(0, streamed), of(100, streamed)
        assert one.fingerprint() == of_again(one)
        assert one.fingerprint() != other.fingerprint()
        assert one.hashed == (content.SIZES if streamed else "contents")


def of_again(split) -> str:
    """The fingerprint, said naively."""
    import hashlib

    whole = hashlib.blake2b(digest_size=16)
    for i, (source, label) in enumerate(zip(split.sources, split.labels, strict=True)):
        whole.update(f"{source}\0{label}\0".encode())
        whole.update(hashlib.blake2b(split.encoded(i), digest_size=16).digest())
    return whole.hexdigest()


def test_streamed_data_beyond_the_sample_is_known_by_size(monkeypatch):
    monkeypatch.setattr(content, "SAMPLED", 2)

    def of(*images: bytes) -> list[bytes]:
        cells = pa.array([{"bytes": data, "path": None} for data in images])
        names = [str(i) for i in range(len(images))]
        return content.digests(names, lambda i: cells[i], [], Memory(), streamed=True)

    before = of(b"aa", b"bb", b"cc", b"dd")
    assert of(b"aa", b"xx", b"cc", b"xx") == before  # 1 and 3 are not of the sample
    assert of(b"aa", b"bbb", b"cc", b"dd") != before
    assert of(b"aa", b"bb", b"xx", b"dd") != before


def test_the_manifest_says_what_was_hashed(done):
    assert read_run(done).report.manifest.images == {"train": "contents", "test": "contents"}


# -- only a run is replaced --------------------------------------------------------


def snapshot(path: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


def foreign_json(out):
    (out / "run.json").write_text('{"run": 7}')
    (out / "src").mkdir()
    (out / "src/thesis.tex").write_text("x")
    return "src"


def beside_a_run(out):
    (out / "notes").mkdir()
    (out / "notes/a.md").write_text("x")
    return "notes"


def among_the_parts(out):
    (out / ".work/mine").mkdir(parents=True)
    (out / ".work/mine/a").write_text("x")
    return ".work/mine"


def a_folder_called_like_a_table(out):
    (out / "curves.parquet").unlink()
    (out / "curves.parquet").mkdir()
    (out / "curves.parquet/part-0").write_text("x")
    return "curves.parquet"


def json_of_another_tool(out):
    for name in TABLES:
        (out / name).unlink()
    (out / "run.json").write_text('{"identity": {"name": "x"}}')
    return "not a run folder"


@pytest.mark.parametrize(
    "intrude", [foreign_json, beside_a_run, among_the_parts, a_folder_called_like_a_table, json_of_another_tool]
)
def test_overwrite_refuses_what_no_run_wrote(done, checkpoint, folder, intrude):
    named = intrude(done)
    before = snapshot(done)
    code, text = run(checkpoint("vit"), folder, done, *FEW, "--overwrite")
    assert (code, named in text) == (2, True), text
    assert snapshot(done) == before


def test_overwrite_leaves_siblings_and_links_alone(done, checkpoint, folder, tmp_path):
    """The folder is emptied where it is: a link to it stays one, and no folder beside it is touched."""
    sibling, link, parts = tmp_path / ".link.replaced", tmp_path / "link", tmp_path / "parts"
    for mine in (sibling, tmp_path / ".done.replaced", parts):
        mine.mkdir()
        (mine / "a").write_text("x")
    link.symlink_to(done)
    (done / ".work").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()  # parts on a faster disk
    code, text = run(checkpoint("vit"), folder, link, *FEW, "--seed", 1, "--overwrite")
    assert code == 0, text
    assert link.is_symlink()
    assert read_run(done).report.facts.seed == 1
    assert all((mine / "a").read_text() == "x" for mine in (sibling, tmp_path / ".done.replaced", parts))


def test_a_study_lists_its_tables_and_only_they_go(tmp_path):
    job = {"identity": {"study": "x"}, "files": ["mine.parquet", "../thesis.tex"]}
    (tmp_path / "thesis.tex").write_text("x")
    folder = RunFolder(tmp_path / "r")
    assert not folder.begin(job, resume=False, overwrite=False)
    for name in ("mine.parquet", "summary.md"):
        (folder.path / name).write_text("x")
    folder.begin(job, resume=False, overwrite=True)
    assert [p.name for p in folder.path.iterdir()] == [".work"]
    (folder.path / "other.parquet").write_text("x")
    with pytest.raises(RequestError, match=r"other\.parquet"):
        folder.begin(job, resume=False, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_here_is_a_folder_too(done, checkpoint, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(done)
    code, text = run(checkpoint("vit"), folder, ".", *FEW, "--seed", 1, "--overwrite")
    assert code == 0, text
    assert read_run(done).report.facts.seed == 1
    monkeypatch.chdir(tmp_path)
    code, text = run(checkpoint("vit"), folder, ".", *FEW, "--overwrite")
    assert (code, "it holds done" in text, done.exists()) == (2, True, True), text


@pytest.mark.parametrize("place", ["n" * 300, "ü" * 150, "dangling", "file", "file/r", "a/" * 2200 + "r"])
@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_impossible_places_are_refused_before_anything_is_written(checkpoint, folder, tmp_path, place, how):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    before = snapshot(tmp_path)
    code, text = run(checkpoint("vit"), folder, tmp_path / place, *FEW, how)
    assert code in (1, 2), text
    assert any(words in text for words in ("too long", "link to nothing", "is a file", "Not a directory"))
    assert snapshot(tmp_path) == before


# -- a refused run leaves nothing behind -------------------------------------------


@pytest.mark.parametrize("engine", [(), pytest.param(("--engine", "processes", "-j", 1), marks=pytest.mark.nightly)])
def test_an_unreadable_image_leaves_nothing_and_the_mended_command_runs(checkpoint, data, tmp_path, engine):
    (data / "test/class_1/test1.png").write_bytes(b"x")
    out = tmp_path / "runs" / "a" / "r"
    code, text = run(checkpoint("vit"), data, out, *engine)
    assert (code, "cannot read image" in text) == (2, True), text
    assert not (tmp_path / "runs").exists()
    code, text = run(checkpoint("vit"), data, out, "--on-bad-image", "skip")
    assert code == 0, text


def test_too_few_images_leave_nothing_and_the_mended_command_runs(checkpoint, folder, tmp_path):
    out = tmp_path / "r"
    out.mkdir()
    code, text = run(checkpoint("vit"), folder, out, "--limit", 1)
    assert code == 2, text
    assert list(out.iterdir()) == []
    assert run(checkpoint("vit"), folder, out, *FEW)[0] == 0


# -- several people ----------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o002, 0o022])
def test_files_follow_the_umask(checkpoint, folder, tmp_path, umask):
    before = os.umask(umask)
    try:
        assert run(checkpoint("vit"), folder, tmp_path / "r", *FEW, "--shard", "1/2", "--stage", "train")[0] == 0
        parts = [p for p in (tmp_path / "r").rglob("*") if p.is_file()]
        assert run(checkpoint("vit"), folder, tmp_path / "r", *FEW, "--resume")[0] == 0
        wrong = [p for p in (*parts, *(tmp_path / "r").iterdir()) if p.exists() and _mode(p) != 0o666 & ~umask]
    finally:
        os.umask(before)
    assert any("train" in p.name for p in parts)
    assert wrong == []


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_nobody(*args) -> tuple[int, str]:
    """The command line in a process of another user, who cannot even import from this one's folders."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        status, text = 99, ""
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            status, text = invoke_flat(*args)
        except BaseException as error:
            text = repr(error)
        finally:
            os.write(writer, text.encode()[:60_000])
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_second_person_merges_where_the_group_may_write_and_is_told_why_where_not(
    done, checkpoint, folder, monkeypatch
):
    """Nobody (65534) merges what root has computed; `done` has imported all there is to import."""
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o777)
        out = Path(root) / "r"
        monkeypatch.setattr("clsinterp.runs.worker.assemble", lambda folder, job: None)
        assert run(checkpoint("vit"), folder, out, *FEW)[0] == 0
        code, text = as_nobody("merge", out, "--quiet")
        assert (code, "belongs to user 0" in text, "umask 002" in text) == (1, True, True), text
        (out / "probes.safetensors").chmod(0o600)  # as it was, whatever the umask
        for path in (out, *out.rglob("*")):
            if path.name != "probes.safetensors":
                path.chmod(0o777 if path.is_dir() else 0o666)
        code, text = as_nobody("merge", out, "--quiet")
        assert (code, "probes.safetensors cannot be read: Permission denied" in text) == (1, True), text
        (out / "probes.safetensors").chmod(0o644)
        code, text = as_nobody("merge", out, "--quiet")
        assert code == 0, text
        assert read_run(out)


# -- what a finished run has lost --------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "harm"), [*((name, Path.unlink) for name in TABLES), (TABLES[0], cut), (TABLES[2], flip)]
)
def test_resume_makes_again_what_is_lost(done, checkpoint, folder, name, harm, caplog):
    before = contents(done)
    harm(done / name)
    code, text = run(checkpoint("vit"), folder, done, *FEW, "--resume", "--quiet")
    assert code == 0, text
    assert f"{name} missing or changed" in caplog.text
    assert contents(done) == before
    assert not (done / ".work").exists()


@pytest.mark.parametrize("name", TABLES)
def test_merge_draws_again_what_it_can_and_names_the_rest(done, name):
    before = contents(done)
    (done / name).unlink()
    code, text = invoke_flat("merge", done)
    if name in ("curves.parquet", "figure.html"):
        assert (code, contents(done)) == (0, before), text
    else:
        assert (code, name in text, "--resume" in text) == (2, True, True), text


def test_nothing_is_loaded_twice_for_a_run_that_is_whole(done, checkpoint, folder):
    times = {p: p.stat().st_mtime_ns for p in done.rglob("*")}
    assert run(checkpoint("vit"), folder, done, *FEW, "--resume")[0] == 0
    assert {p: p.stat().st_mtime_ns for p in done.rglob("*")} == times
    assert json.loads((done / "run.json").read_text())["files"].keys() == set(TABLES)
