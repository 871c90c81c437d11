"""What an upgrade of nnsight, torch, transformers or datasets has moved, as a list; and that only three modules need care."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import clsinterp

ROOT = Path(clsinterp.__file__).parent
PLACES = ("models/unstable.py", "remote/unstable.py", "data/unstable.py")

# module of another package -> what this package needs of it: names, methods, fields, and parameters as NAME(parameter)
SYMBOLS = {
    "nnsight": ["CONFIG.API.HOST", "CONFIG.API.APIKEY"],
    "nnsight.intervention.envoy": [
        "Envoy._module", "Envoy.__getstate__", "Envoy.interleave", "Envoy.edit", "Envoy.root", "Envoy.path", "Envoy.get",
        "Envoy.skip", "Envoy._edits",
    ],
    "nnsight.intervention.eproperty": ["eproperty(key)", "eproperty.postprocess", "eproperty.transform", "eproperty.name"],
    "nnsight.intervention.source": ["Controller", "State.original"],
    "nnsight.intervention.interleaver": ["Mediator.value(location)", "Mediator.current", "Mediator.flush"],
    "nnsight.tracing.tracer": ["_saves"],
    "nnsight.intervention.serialization": [
        "DEFAULT_PROTOCOL", "CustomCloudPickler._dynamic_function_reduce(func)", "_fill(func)", "_fill(globals)",
        "_load_function(source)", "_load_function(name)", "_load_function(defaults)", "_load_function(kwdefaults)",
        "_load_function(annotations)", "_load_function(origin_filename)", "_load_function(origin_line)",
        "reduce_block(node)", "reduce_block(globals)", "reduce_block(locals)",
    ],
    "nnsight.intervention.backends.remote": [
        "RemoteBackend(model_key)", "RemoteBackend(host)", "RemoteBackend(api_key)", "RemoteBackend(env)",
        "RemoteBackend(blocking)", "RemoteBackend(job_id)", "RemoteBackend(verbose)", "RemoteBackend._post(request)",
        "RemoteBackend._serialize(tracer)", "RemoteBackend.request(request)", "RemoteBackend.parse(message)",
        "RemoteBackend.download_result", "RemoteBackend.display", "RemoteBackend.compress", "RemoteError",
    ],
    "nnsight.modeling.huggingface": ["_ID_CACHE"],
    "nnsight.modeling.transformers": [
        "TransformersModel(task)", "TransformersModel(image_processor)", "TransformersModel._batch(invokes)",
        "TransformersModel._batch(fn)", "TransformersModel._batch_size", "TransformersModel._wrap(module)",
        "TransformersModel._remote_backend(remote)", "TransformersModel._remote_backend(blocking)",
        "TransformersModel._remote_backend(job_id)", "TransformersModel._remote_backend(verbose)",
        "TransformersModel._remoteable_class", "TransformersModel._remoteable_get_env",
        "TransformersModel._remoteable_model_key", "TransformersModel.to_model_key", "TransformersModel.__getstate__",
    ],
    "nnsight.ndif": ["EnvComparison.critical_mismatches", "get_local_env", "get_remote_env(force_refresh)", "pull_env"],
    "nnsight.schema.request": ["RequestModel.session_id"],
    "nnsight.schema.response": [
        "ResponseModel.status", "ResponseModel.description", "ResponseModel.data", "Status.ERROR", "Status.COMPLETED",
        "Status.LOG",
    ],
    "torch": ["Tensor._version"],
    "torch._guards": ["detect_fake_mode"],
    "transformers": [
        "PreTrainedModel._from_config", "PretrainedConfig._attn_implementation",
    ],
    "transformers.utils.hub": ["resolve_revision(revision)"],
    "datasets": ["IterableDataset._resolve_features"],
}  # fmt: skip


# Attributes that only instances have: found in the source of the class's module.
OF_INSTANCES = ("_edits", "_module", "path", "display", "compress", "name")


def missing(module: str, symbol: str) -> str | None:
    """What is not there of `symbol` of `module`; None if all of it is."""
    path, _, parameter = symbol.rstrip(")").partition("(")
    try:
        found = importlib.import_module(module)
        for name in path.split("."):
            if name in getattr(found, "model_fields", {}):
                return None
            if name in OF_INSTANCES and not hasattr(found, name):
                text = inspect.getsource(inspect.getmodule(found))
                return None if f"self.{name} " in text or f"self.{name}:" in text else f"{module}: {path}"
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        return f"{module}: {path} ({error})"
    if parameter:
        asked = inspect.signature(found).parameters.values()
        if parameter not in {p.name for p in asked} and not any(p.kind is p.VAR_KEYWORD for p in asked):
            return f"{module}: {symbol}"
    return None


def test_the_libraries_have_what_this_package_needs_of_them():
    assert [lost for module, names in SYMBOLS.items() for name in names if (lost := missing(module, name))] == []


def test_the_table_notices_what_is_gone():
    assert missing("nnsight.gone", "f") == "nnsight.gone: f (No module named 'nnsight.gone')"
    assert "no attribute '_fil'" in missing("nnsight.intervention.serialization", "_fil")
    assert (
        missing("nnsight.intervention.serialization", "_fill(gone)")
        == "nnsight.intervention.serialization: _fill(gone)"
    )


# -- and nothing else reaches for them -----------------------------------------------

LIBRARIES = ("nnsight", "torch", "transformers", "datasets")
# `_module` stands in nnsight's own documentation, `_exit` in Python's. The backend is nnsight's, with two of its steps replaced.
ELSEWHERE = {"": {"_module", "_exit"}, "remote/backend.py": {"_post", "_serialize"}}
PRIVATE = {
    part for names in SYMBOLS.values() for name in names for part in name.split("(")[0].split(".") if part[0] == "_"
} - {"__getstate__"} | {"_persistent_id", "_commit_hash"}  # fmt: skip


def imported(tree: ast.AST) -> list[tuple[str, str]]:
    """(module, name) of every import in `tree`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def reaches(text: str, allowed: set[str]) -> list[str]:
    """What a module with this text takes from the inside of the libraries."""
    tree = ast.parse(text)
    found = []
    for module, name in imported(tree):
        inside = module.split(".")[0] == "nnsight" and "." in module
        hidden = module.split(".")[0] in LIBRARIES and any(part[:1] == "_" for part in (*module.split("."), name))
        if inside or hidden:
            found.append(f"{module} {name}".strip())
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = node.attr
            foreign = name[0] == "_" and name[:2] != "__" and name not in own
        else:
            name = getattr(node, "name", None) if isinstance(node, ast.FunctionDef) else getattr(node, "value", None)
            foreign = False
        if isinstance(name, str) and (foreign or name in PRIVATE) and name not in allowed:
            found.append(name)
    return found


def test_no_other_module_reaches_inside_the_libraries():
    found = {}
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).as_posix()
        if place not in PLACES:
            found[place] = reaches(path.read_text(), ELSEWHERE[""] | ELSEWHERE.get(place, set()))
    assert {place: names for place, names in found.items() if names} == {}


def test_what_the_places_import_is_in_the_table():
    for place in PLACES:
        for module, name in imported(ast.parse((ROOT / place).read_text())):
            if module.startswith(("nnsight", "torch._")):
                whole = SYMBOLS.get(f"{module}.{name}") or [
                    s for s in SYMBOLS[module] if re.split(r"[.(]", s)[0] == name
                ]
                assert whole, f"{place} imports {name} of {module}, which the table does not have"


def test_the_scan_sees_what_it_forbids():
    assert reaches("from nnsight.intervention.envoy import Envoy", set()) == ["nnsight.intervention.envoy Envoy"]
    assert reaches("from torch._guards import detect_fake_mode", set()) == ["torch._guards detect_fake_mode"]
    assert reaches("x = model.__dict__['_edits']", set()) == ["_edits"]
    assert reaches("y = config._hidden\nz = getattr(config, '_commit_hash')", set()) == ["_hidden", "_commit_hash"]
    assert reaches("import nnsight\nfrom torch import nn\nnnsight.save(self._own)\ndef _own(): pass", set()) == []
