"""The names of per-image columns: what is written is what is read, and their number is the number a fork gives."""

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from clsinterp.probing.head import Head
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.sweeps.columns import BESIDE, GRAMMAR, PROBED_BESIDE, Column, column, columns, parse
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers

CURVES = [(kind, curve, n) for kind, curves in GRAMMAR.items() for curve, n in curves.items()]


@given(st.sampled_from(CURVES), st.lists(st.integers(-1, 120), min_size=2, max_size=2))
def test_what_is_written_is_what_is_read(which, layers):
    kind, curve, n = which
    layers = tuple(layers[:n])
    name = column(curve, *layers, kind=kind)
    assert parse(name) == Column(kind, curve, layers)


@given(st.text("rankinteslufcoy_-0123456789", max_size=30))
def test_what_is_read_is_what_would_be_written(name):
    found = parse(name)
    assert found is None or column(found.curve, *found.layers, kind=found.kind) == name


@pytest.mark.parametrize(
    "name",
    ["index", "label", "rank", "rank_", "rank_other_03", "answer", "rank_intact_03", "rank_shuffle", "rank_shuffle_3",
     "rank_shuffle_-2", "rank_shuffle_003", "rank_shuffle_03_07", "rank_restoration_03", "rank_shuffle_03_", "Rank_intact"],
)  # fmt: skip
def test_other_names_are_no_columns(name):
    assert parse(name) is None


def test_names_that_stand_in_published_files():
    assert [column("intact"), column("shuffle", 3), column("restoration", 3, 7), column("lens_distill", 3)] == [
        "rank_intact", "rank_shuffle_03", "rank_restoration_03_07", "rank_lens_distill_03",
    ]  # fmt: skip
    assert [column("shuffle_cls_only", 3), column("shuffle", -1), column("probe", 100)] == [
        "rank_shuffle_cls_only_03", "rank_shuffle_-1", "rank_probe_100",
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2"])
def test_a_fork_gives_the_columns_that_are_counted(model, family):
    m, layers, n = model(family), (-1, 0, tiny.LAYERS - 1), 6
    x, y = tiny.pixels(n), torch.arange(n) % tiny.CLASSES
    stats = RidgeStats.zeros(len(layers), tiny.WIDTH, tiny.CLASSES)
    generator = torch.Generator().manual_seed(0)
    stats.update(torch.randn(len(layers), n, tiny.WIDTH, generator=generator), y, torch.arange(n))
    readers = Readers(Head.of(m.family, m.heads), probes=solve(stats), probed=layers)
    found = fork(m, x, y, torch.arange(n).flip(0), readers, layers=layers)
    lacks = {"vit": ("lens_distill", "intact_cls_only", "shuffle_cls_only"), "deit": (), "dinov2": ("lens_distill",)}
    kinds = [
        columns(layers, [c for c in GRAMMAR[k] if c not in (*lacks[family], *BESIDE, *PROBED_BESIDE)], k)
        for k in ("rank", "answer")
    ]
    assert sorted(found) == sorted([*kinds[0], *kinds[1]])
