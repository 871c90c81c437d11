"""What tests share. Torch and all that needs it is imported in fixtures: the process that hands out the tests does without."""

import os
import sys

import browser
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if path := browser.find():
    os.environ.setdefault("BROWSER_PATH", path)  # kaleido asks there

REAL = "CLSINTERP_NDIF"


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk():
    """Processes die in these tests, the power does not fail: thousands of small files need not reach the disk one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Tests leave nothing in the user's datasets cache."""
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    os.environ["HF_DATASETS_CACHE"] = str(datasets.config.HF_DATASETS_CACHE)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """family -> folder of a tiny random checkpoint, made on first use."""
    import tiny

    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def get(family: str):
        if family not in made:
            made[family] = tiny.save(family, root / family)
        return made[family]

    return get


@pytest.fixture(scope="session")
def model(checkpoint):
    """family -> VisionModel of its tiny checkpoint."""
    from clsinterp.vision_model import VisionModel

    made = {}

    def get(family: str) -> VisionModel:
        if family not in made:
            made[family] = VisionModel(str(checkpoint(family)), device="cpu")
        return made[family]

    return get


@pytest.fixture(scope="session")
def pictures():
    """(class, number) -> a small picture whose mean colour depends on its class."""
    import numpy as np
    from PIL import Image

    def get(label: int, i: int, size: int = 30) -> Image.Image:
        rng = np.random.default_rng([label, i])
        base = np.array([37 * label % 256, 91 * label % 256, 150 - 20 * label], float)
        return Image.fromarray(np.clip(base + rng.normal(0, 40, (size, size, 3)), 0, 255).astype(np.uint8))

    return get


@pytest.fixture(scope="session")
def folder(tmp_path_factory, pictures):
    """Class folders in split folders: 7 classes named like the tiny checkpoints', 12 train and 6 test images each.

    Read once: to find out what it is, datasets looks through it for dozens of patterns, a third of a second each time.
    """
    import datasets
    import tiny

    root = tmp_path_factory.mktemp("images")
    for split, n in (("train", 12), ("test", 6)):
        for label in range(tiny.CLASSES):
            where = root / split / f"class_{label}"
            where.mkdir(parents=True)
            for i in range(n):
                pictures(label, i if split == "train" else 100 + i).save(where / f"{split}{i}.png")
    load, known = datasets.load_dataset, []

    def once(*args, **options):
        if args != (str(root),) or options:
            return load(*args, **options)
        known[:] = known or [load(str(root))]
        return known[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", once)
        yield root


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """What stands in for ``sys.executable`` where a process of its own is wanted and a fresh import is not; see `forked`."""
    import forked

    script, process = forked.start(tmp_path_factory.mktemp("forked"))
    yield str(script)
    process.stdin.close()
    process.wait()


@pytest.fixture
def quick_processes(python, monkeypatch):
    """What is started by ``sys.executable`` is forked, not started."""
    monkeypatch.setattr(sys, "executable", python)


@pytest.fixture
def plain_page(monkeypatch):
    """A run's page is its numbers as they are: to draw it takes as long as all else in a tiny run, and other tests do."""
    from clsinterp.runs import repair

    monkeypatch.setattr(repair, "study_figures", lambda runs: runs)
    monkeypatch.setattr(
        repair, "to_html", lambda runs: "".join(f"{facts} {table.to_pydict()}" for facts, table in runs)
    )


@pytest.fixture(autouse=True)
def _threads():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _double(tmp_path_factory):
    import remote_fixtures

    found, process = remote_fixtures.start(tmp_path_factory.mktemp("double"))
    yield found
    process.kill()
    process.wait()


@pytest.fixture
def _asks_a_server(monkeypatch):
    import nnsight.ndif
    import remote_fixtures

    monkeypatch.setenv("NDIF_API_KEY", remote_fixtures.KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # nnsight ships what it finds on sys.path, so this package too when the tests run from its folder; a user's is installed.
    monkeypatch.setattr(nnsight.ndif, "_PULLED_ENV", True)
    monkeypatch.setattr("cloudpickle.cloudpickle._PICKLE_BY_VALUE_MODULES", set())


@pytest.fixture
def double(_double, _asks_a_server):
    """A double of an NDIF server, without faults and with an empty log; its key is in the environment."""
    _double.fail()
    _double.log()
    return _double


@pytest.fixture(scope="session")
def _real(tmp_path_factory):
    import remote_fixtures

    found, process = remote_fixtures.start_real(tmp_path_factory.mktemp("ndif"), os.environ[REAL])
    yield found
    process.stdin.close()
    process.wait(timeout=120)


def pytest_collection_modifyitems(items):
    """Tests that a real server can take as well are chosen by -m ndif."""
    for item in items:
        if "ndif" in getattr(item, "fixturenames", ()):
            item.add_marker("ndif")


@pytest.fixture
def ndif(request, _asks_a_server):
    """The double, or a real NDIF server where a Python that has one is named by CLSINTERP_NDIF (make test-ndif)."""
    return request.getfixturevalue("_real" if REAL in os.environ else "double")
