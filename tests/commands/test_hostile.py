"""Values that no option can mean, on every command: refused in a sentence, and nothing is written."""

import contextlib
import os
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from clsinterp.cli import app
from clsinterp.errors import RequestError
from clsinterp.models.placement import pick_device
from clsinterp.remote.server import Server
from clsinterp.runs.ranges import RANGES
from clsinterp.runs.request import Request, Resources, Scope

NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "-9223372036854775809",
    "1e400",
    "1" * 30,
    "9" * 5000,
    "",
    "abc",
    "1.5.1",
    "0x10",
]
# Strings too: each of these is refused before a model or an image is read, or right after.
STRINGS = {
    "--data": ["nowhere/at/all", "./gone", "x" * 5000, "", "zoo\n"],
    "--layers": ["", "-2", "3-1", "99", "1,", "1" * 30, "nan"],
    "--alphas": ["", "nan", "-1", "inf", "0", "1,1", "2,1", "a"],
    "--group": ["", "nobody", "patches+cls", "cls+", "++"],
    "--mode": ["", "shuffle"],
    "--head": ["", "both"],
    "--cls-only": ["", "none"],
    "--on-bad-image": ["", "ignore"],
    "--stage": ["", "test"],
    "--engine": ["", "threads"],
    "--device": ["", "meta", "cuda:99", "cuda:-1", "tpu", "9" * 30, "cpu:x"],
    "--dtype": ["", "float8", "int8"],
    "--device-map": ["", "somewhere", "{}"],
    "--shard": ["", "0/2", "3/2", "1", "1/" + "9" * 30, "-1/2", "a/b", "9" * 5000 + "/2"],
    "--config": ["", "=1", "x"],
    "--train-split": ["", "none"],
    "--test-split": ["", "none", "train"],
    "--image-column": ["", "label", "none"],
    "--label-column": ["", "image", "none"],
    "--label-map": ["", "/", "none.json", "x" * 5000],
    "--also": ["", "nobody", "erasure,"],
    "--address": ["", "nowhere:1"],  # without --engine ray
    "--host": ["", "[", "http://[", "http://a:99999", "ftp://a"],
    "--quantity": ["", "beauty"],
    "--class": ["", "nothing", "-1", "99"],
    "--classifier": ["", "/", "nowhere", "x" * 5000],
    "--only": ["nothing", ","],
    "--images": ["nowhere", "x" * 5000],
    "--swap-with": ["nowhere.png", "/", "x" * 5000],
}
# Words before the option, of the commands that take values; what they name exists.
BEFORE = {
    ("run",): ["zoo/vit", "--data", "zoo", "--limit", "4", "--out", "run"],
    ("lens",): ["zoo/vit", "shoe.png", "--out", "lens.html"],
    ("check",): ["zoo/vit"],
    ("explore",): ["zoo/vit", "--no-open"],
    ("figure",): ["nowhere"],
    ("merge",): ["nowhere"],
    ("note",): ["--data", "nowhere"],
    ("compare",): ["nowhere", "nothing"],
    ("zoo", "fetch"): ["nowhere"],
}
UNUSED = {"--revision", "--out", "--version"}  # any text may be a revision; tests/runs have --out


def options():
    """(words, option) of every option of every command that takes a value listed above."""
    found, todo = [], [((), typer.main.get_command(app))]
    while todo:
        words, one = todo.pop()
        inner = getattr(one, "commands", None)
        todo += [((*words, name), sub) for name, sub in inner.items()] if inner else []
        for option in [] if inner else one.params:
            name = max(option.opts, key=len)
            if option.param_type_name == "option" and not option.is_flag and name not in UNUSED:
                found.append((words, name))
    return sorted(found)


OPTIONS = options()


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """An empty folder with one picture."""
    import clsinterp

    here = tmp_path_factory.mktemp("room")
    clsinterp.sample_images(1)[0][0].save(here / "shoe.png")
    return here


def refused(room: Path, words, option, value) -> str:
    with contextlib.chdir(room):
        done = CliRunner().invoke(app, [*words, *BEFORE.get(words, []), option, value], env={"HF_HUB_OFFLINE": "1"})
    assert done.exit_code == 2, (words, option, value[:40], done.output[-500:], done.exception)
    assert isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    assert sorted(os.listdir(room)) == ["shoe.png"]
    return done.output


def values(option: str) -> list[str]:
    return STRINGS.get(option, NUMBERS)


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(choice=st.sampled_from(OPTIONS), number=st.integers(0, 99))
def test_no_option_takes_what_it_cannot_mean(room, choice, number):
    words, option = choice
    refused(room, words, option, values(option)[number % len(values(option))])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seed", "-1"), ("--seed", str(2**32)), ("--seed", "1" * 30), ("--batch-size", "1" * 30), ("--memory-gb", "nan"),
        ("--memory-gb", "0"), ("--wait", "nan"), ("--wait", "inf"), ("--workers", "-1"), ("--workers", "500"),
        ("--device", "meta"), ("--image-column", "label"), ("--label-column", "image"),
    ],
)  # fmt: skip
def test_the_seen_cases(room, option, value):
    said = refused(room, ("run",), option, value)
    assert value in said


@pytest.mark.parametrize("name", RANGES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_range_holds_in_python_too(name, data):
    low, high = RANGES[name]
    whole = name not in ("memory_gb", "wait")
    inside = st.integers(int(low), int(high)) if whole else st.floats(low, high)
    outside = st.one_of(
        st.integers(max_value=int(low) - 1), st.integers(min_value=int(high) + 1), st.sampled_from([float("nan"), float("inf")])
    )  # fmt: skip

    def check(value):
        if name == "jobs":
            from clsinterp.runs.engines import engine_for

            return engine_for("processes", Resources("cpu"), value, None)
        if name == "wait":
            return Scope(wait=value).check()
        if name in Resources.__dataclass_fields__:
            return Resources(**{name: value}).check()
        return Request("zoo/vit", "zoo", **{name: value}).check()

    check(data.draw(inside if name != "jobs" else st.integers(1, 8)))
    with pytest.raises(RequestError, match=r"expected|swapping"):
        check(data.draw(outside))


@pytest.mark.parametrize("host", STRINGS["--host"])
def test_what_is_no_server_is_refused_without_repeating_a_key(host):
    with pytest.raises(RequestError):
        Server(host)
    with pytest.raises(RequestError) as error:
        Server("http://me:secret@[")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("device", STRINGS["--device"])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(RequestError):
        pick_device(device)
