"""Which modules' code travels to a server, and what that asks of them.

A server has nnsight, transformers, torch and what they need, but neither this package nor what else it leans on. A trace
goes there as source: its body, and by value every function and class of this package that the body reaches. So a module
whose functions or classes a body may reach stands in `TRAVELLING` and

- imports nothing but the standard library, nnsight, torch, transformers, numpy, Pillow and modules that stand here too;
- keeps its annotations text (``from __future__ import annotations``), jaxtyping and classes that do not travel under
  ``TYPE_CHECKING``; shapes are changed with ``unflatten`` and the like in the place of einops;
- sets the gradient mode in the body of its traces: what stands around a body stays here.

The traces themselves may stand anywhere. tests/remote/test_travelling.py finds out what really travels, and runs these
modules with the Python of such a server.
"""

TRAVELLING = (
    "clsinterp.errors",
    "clsinterp.interventions",
    "clsinterp.data.images",
    "clsinterp.data.packed",
    "clsinterp.models.attention_pooling",
    "clsinterp.models.block_maps",
    "clsinterp.models.checkpoint",
    "clsinterp.models.family",
    "clsinterp.models.layers",
    "clsinterp.models.norms",
    "clsinterp.models.outputs",
    "clsinterp.models.positions",
    "clsinterp.models.prefix_block",
    "clsinterp.models.readouts",
    "clsinterp.models.scores",
    "clsinterp.models.text_head",
    "clsinterp.models.token_views",
    "clsinterp.models.tokens",
    "clsinterp.models.traced",
    "clsinterp.models.unstable",
    "clsinterp.probing.head",
    "clsinterp.probing.leace",
    "clsinterp.probing.lens",
    "clsinterp.probing.metrics",
    "clsinterp.probing.ridge",
    "clsinterp.remote.facts",
    "clsinterp.hooks.points",
    "clsinterp.hooks.visits",
    "clsinterp.sweeps.answers",
    "clsinterp.sweeps.batching",
    "clsinterp.sweeps.captured",
    "clsinterp.sweeps.columns",
    "clsinterp.sweeps.cuts",
    "clsinterp.sweeps.fork",
    "clsinterp.sweeps.patched",
    "clsinterp.sweeps.plan",
    "clsinterp.sweeps.readers",
    "clsinterp.sweeps.variants",
    "clsinterp.views.intervention",
    "clsinterp.views.trace",
)
