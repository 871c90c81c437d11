"""The door: the public names, lazily, each the thing it is called after."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import clsinterp

PUBLIC = {
    "VisionModel": "clsinterp.vision_model",
    "lens": "clsinterp.views.lens",
    "fork": "clsinterp.sweeps.fork",
    "capture": "clsinterp.sweeps.capture",
    "variants": "clsinterp.sweeps.variants",
    "run": "clsinterp.runs.run",
    "read_run": "clsinterp.runs.results",
    "load_data": "clsinterp.data.load",
    "fit_probes": "clsinterp.probing.probes",
    "sample_images": "clsinterp.data.sample",
    "sample_photos": "clsinterp.data.photos",
    "ActivationCache": "clsinterp.hooks.cache",
    "ClsinterpError": "clsinterp.errors",
    "RequestError": "clsinterp.errors",
    "RunError": "clsinterp.errors",
    "TooEarly": "clsinterp.errors",
}
ROOT = Path(clsinterp.__file__).parent


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_stays_itself_whatever_was_imported_before(name):
    module = importlib.import_module(PUBLIC[name])
    assert callable(getattr(clsinterp, name))
    assert getattr(clsinterp, name) is getattr(module, name)


def test_no_module_at_the_root_takes_a_public_name():
    assert not {path.stem for path in ROOT.iterdir()} & set(PUBLIC)


def test_all_says_exactly_what_is_public():
    assert set(clsinterp.__all__) == {*PUBLIC, "__version__"}
    assert set(clsinterp.__all__) <= set(dir(clsinterp))
    with pytest.raises(AttributeError, match="no attribute 'Fork'"):
        _ = clsinterp.Fork


def test_type_checkers_are_told_the_same_as_the_interpreter():
    (block,) = (node for node in ast.parse((ROOT / "__init__.py").read_text()).body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body for alias in node.names}
    assert told == PUBLIC
    assert (ROOT / "py.typed").is_file()


def test_the_errors_come_without_torch():
    found = run("-c", "import sys; from clsinterp import RequestError, RunError; print('torch' in sys.modules)")
    assert found.strip() == "False"


def test_the_package_is_a_command():
    assert "experiments" in run("-m", "clsinterp", "--help")
