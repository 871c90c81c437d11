"""docs/method.md names every number there is."""

from pathlib import Path

import pytest

from clsinterp.interventions import REPLACEMENTS, SWAPS
from clsinterp.probing.ridge import ALPHAS
from clsinterp.runs.request import CLS_ONLY
from clsinterp.runs.results import AGREEMENT, COST
from clsinterp.runs.verdicts import DRAWS, FEWEST
from clsinterp.sweeps.columns import GRAMMAR

METHOD = (Path(__file__).parents[1] / "docs" / "method.md").read_text()


@pytest.mark.parametrize(
    "name",
    sorted(
        {*GRAMMAR["rank"], *COST.values(), *AGREEMENT.values(), *SWAPS, *REPLACEMENTS, *CLS_ONLY} - {"lens_distill"}
    ),
)
def test_every_curve_mode_and_kind_is_defined(name):
    assert f"`{name}`" in METHOD


@pytest.mark.parametrize(
    "name",
    ["erased", "erased_at_random", "erased_cls_only", "replaced_by_mean", "missing", "misled", "probe_after_erasure",
     "intact_probe_after_erasure", "leftover", "swap_probe_subspace", "swap_complement", "swap_leace",
     "swap_random_subspace", "used_rank", "used_share"],
)  # fmt: skip
def test_every_curve_of_erasure_and_subspace_is_defined(name):
    assert f"`{name}`" in METHOD


def test_its_constants_are_the_codes():
    assert f"below {FEWEST} test images" in METHOD
    assert f"({DRAWS:,}\ndraws" in METHOD
    assert f"({ALPHAS[0]:.0e} to {ALPHAS[-1]:.0e}".replace("e-0", "e-").replace("e+0", "e") in METHOD
