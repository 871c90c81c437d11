"""What travels to a server: the list is the true one, and its modules run with a Python that has no more than a server."""

import ast
import os
import subprocess
from pathlib import Path
from types import FunctionType

import pytest
import server_venv
import tiny
import torch

import clsinterp
from clsinterp import interventions as iv
from clsinterp.checks.remote import check_remote
from clsinterp.probing.head import Head
from clsinterp.probing.leace import leace
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.remote import shipping
from clsinterp.remote.travelling import TRAVELLING
from clsinterp.sweeps.answers import Answers
from clsinterp.sweeps.capture import capture
from clsinterp.sweeps.cuts import reads_nothing
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.patching import logit_difference, patch_attn_head
from clsinterp.sweeps.readers import Readers
from clsinterp.sweeps.variants import Edit, on, variants
from clsinterp.views.intervention import Intervention
from clsinterp.views.lens import lens

ROOT = Path(clsinterp.__file__).parent


def needed(module: str) -> set[str]:
    """Modules of the package that `module` imports when it runs: what stands under TYPE_CHECKING does not count."""
    tree = ast.parse((ROOT.parent / (module.replace(".", "/") + ".py")).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clsinterp"):
            found |= {node.module if (ROOT.parent / (node.module.replace(".", "/") + ".py")).exists()
                      else f"{node.module}.{alias.name}" for alias in node.names}  # fmt: skip
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("clsinterp")}
    return found


@pytest.fixture
def sent(monkeypatch):
    """Modules of the package whose functions and classes were sent by value."""
    found = set()

    class Spy(shipping.Pickler):
        def reducer_override(self, obj):
            module = getattr(obj, "__module__", None) or ""
            if isinstance(obj, (type, FunctionType)) and module.startswith("clsinterp"):
                found.add(module)
            return super().reducer_override(obj)

    monkeypatch.setattr(shipping, "Pickler", Spy)
    return found


def everything(away, x) -> None:
    """Every kind of trace that the package has, on a model on a server."""
    n, layers = len(x), (-1, 0, 1)
    labels = torch.arange(n) % tiny.CLASSES
    stats = RidgeStats.zeros(len(layers), away.d_model, 300)
    stats.update(torch.randn(len(layers), 60, away.d_model), torch.arange(60), torch.arange(60))
    readers = Readers(Head.of(away.family, away.heads), probes=solve(stats), probed=layers)
    fork(away, x, labels, iv.derange(n, seed=0), readers, layers=layers)
    few = RidgeStats.zeros(len(layers), away.d_model, tiny.CLASSES)
    few.update(torch.randn(len(layers), 60, away.d_model), torch.arange(60) % tiny.CLASSES, torch.arange(60))
    fork(
        away, x, labels, iv.mean, Readers(readers.head, probes=solve(few), probed=layers), layers=layers, micro_batch=4
    )
    capture(away, x, layers, ("cls", "patches"))
    variants(away, x, [Edit({0: on(0, iv.noise(1))})], watched=layers)
    variants(away, x, [Edit({0: on(0, leace(few, 1))})], watched=layers)
    variants(away, x, [Edit(cuts={1: reads_nothing(away.layout)})], reader=Answers(readers, labels))
    patch_attn_head(away, x[:2], x[2:4], logit_difference(labels[:2], labels[2:4]), "z", layers=[1])
    away.run_with_cache(x)
    away.run_with_hooks(x, [("blocks.1.hook_resid_post", lambda value, hook: value * hook.layer())])
    for replace in (None, "swap", "mean", "zero", "noise"):
        lens(away, x[0], Intervention(replace, layer=1, reference=x[1:3]))
    assert all(finding.holds for finding in check_remote(away))


def test_the_list_is_what_travels_and_what_that_imports(double, sent, pictures):
    everything(double.model("dinov2"), tiny.pixels(24))
    away = double.model("vit")
    packed = away.pixels([pictures(i % 7, i, size=41) for i in range(4)])
    capture(away, packed, (0,))
    variants(away, packed, [Edit({0: on(0, iv.noise(1))})], watched=(0,))
    with away.trace([pictures(0, 0)]) as tracer:  # pictures, which are prepared there
        assert tracer is not None
        away.blocks[0].patches.save()
    reached, todo = set(sent), set(sent)
    while todo := set().union(*map(needed, todo)) - reached:
        reached |= todo
    assert reached == set(TRAVELLING)


RUN = """
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
for lost in ("einops", "jaxtyping", "pyarrow", "datasets", "httpx", "websocket"):
    assert lost not in sys.modules, lost

import torch, transformers
from clsinterp import interventions as iv
from clsinterp.hooks.points import hook_names, walk
from clsinterp.hooks.visits import HookPoint, calling, keeping
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.families import find_family
from clsinterp.models.family import Sizes
from clsinterp.models.module_tree import renames
from clsinterp.models.token_views import Tokens
from clsinterp.models.tokens import TokenLayout
from clsinterp.models.traced import Traced
from clsinterp.probing.head import Head
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.remote.facts import describe
from clsinterp.sweeps.captured import captured
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.patched import patched
from clsinterp.sweeps.readers import Readers
from clsinterp.sweeps.variants import Edit, on, variants
from clsinterp.views.trace import lens_trace


class There(Traced):
    server = per_request = None

    def __init__(self, module):
        config = module.config
        self.family = family = find_family([type(module).__name__], config)
        self.sizes = sizes = Sizes(3, 16, 2, (8, 8), (16, 16))
        self.checkpoint = Checkpoint(module, family, sizes, None, True, None, "", None)
        self.layout = TokenLayout.of(family.name, sizes.prefix)
        super().__init__(module, task="image-classification", rename=renames(family),
                         envoys={{f"{{family.blocks}}.*": Tokens, family.embed: Tokens}})


config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, image_size=16,
                                patch_size=8, num_labels=5)
model = There(transformers.ViTForImageClassification(config).eval())
x, y, layers = torch.randn(8, 3, 16, 16), torch.arange(8) % 5, (-1, 0, 2)
tokens, readout = captured(model, x, layers, [model.layout.index(name) for name in ("cls", "patches")])
stats = RidgeStats.zeros(3, 16, 5)
stats.update(tokens[0], y, torch.arange(8))
head = Head.of(model.family, model.heads)
ranks = fork(model, x, y, iv.derange(8, seed=0), Readers(head, probes=solve(stats), probed=layers), layers=layers)
edited = variants(model, x, [Edit({{-1: on(0, iv.mean), 1: on(0, iv.zero)}})], memory_gb=1)
torch.testing.assert_close(edited.readout[0], readout)  # the last block by other kernels, of fewer tokens
kept = {{}}
with torch.no_grad(), model.trace(x):
    walk(model, hook_names(model), keeping(kept, False))
with torch.no_grad(), model.trace(x):
    facts = describe(model)
    model.blocks[0].patches[:] = 0
    model.blocks[1].cls = iv.mean(model.blocks[1].cls)
with torch.no_grad(), model.trace(x):
    walk(model, ["hook_embed"], calling({{"hook_embed": [lambda value, hook: value + 1]}}, {{}}))
    logits = model.logits.save()
source = kept["blocks.1.hook_resid_pre"]
assert patched(model, x, 1, "blocks.1.hook_resid_pre", source, [0, 2], 1).shape == (2, 8, 5)
names = [n for n in hook_names(model) if n.endswith(("hook_resid_post", "hook_readout", "hook_logits"))]
lens_trace(model, x, names, None, iv.mean, None, head, False)
print("ran")
"""


def test_the_modules_run_with_the_python_of_a_server(tmp_path):
    python = server_venv.make(tmp_path / "venv")
    version = tmp_path / "clsinterp-0.dist-info" / "METADATA"  # __init__ asks for it
    version.parent.mkdir()
    version.write_text("Metadata-Version: 2.1\nName: clsinterp\nVersion: 0\n")
    env = {**os.environ, "PYTHONPATH": f"{ROOT.parent}:{tmp_path}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = tmp_path / "run.py"  # a file: nnsight reads the source of a trace
    script.write_text(RUN.format(modules=TRAVELLING))
    done = subprocess.run([python, script], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran\n"
