"""The above-chance check of restoration: against donors of the same label, image by image."""

import pyarrow.parquet as pq
import pytest
import torch
from study_scripts import run, script

from clsinterp.interventions import collision_rate
from clsinterp.studies.restoration.floor import FLOOR, above_floor, back_after
from clsinterp.studies.setup import Setup


def test_a_reader_of_the_donor_is_not_above_the_floor_and_of_the_host_is():
    draws = torch.Generator().manual_seed(0)
    calls = []
    for _ in range(200):
        labels = torch.randint(3, (200,), generator=draws)
        donor = torch.randperm(200, generator=draws)
        kept = labels[donor] == labels
        assert not above_floor(kept, kept)  # reads exactly the donor's label
        chance = torch.randint(3, (200,), generator=draws) == labels
        calls.append(above_floor(chance, kept))
        assert above_floor(kept | (torch.rand(200, generator=draws) < 0.3), kept)  # and some of the host's
    assert sum(calls) < 16  # 5 expected of 200, at a one-sided 2.5%


def test_back_means_from_there_on():
    kept = torch.arange(200) % 10 == 0
    clear, chance = torch.arange(200) % 2 == 0, torch.arange(200) % 10 == 1

    def after(*probes, n=200):
        return back_after({(1, 1 + k): p[:n] for k, p in enumerate(probes)} | {(0, 9): clear}, 1, kept[:n])

    assert after(clear, chance, clear, clear) == 2
    assert after(chance, clear, clear, chance) is None
    assert after(clear, clear) == 0
    assert after(kept) is None
    assert after(clear, clear, n=99) is None  # too few images for a verdict


@pytest.fixture(scope="module")
def out(checkpoint, folder, tmp_path_factory):
    return run("restoration", tmp_path_factory.mktemp("floor") / "r", checkpoint("vit"), "--data", folder)


def test_the_floor_is_the_share_of_donors_of_the_same_label(out, checkpoint, folder):
    table = pq.read_table(out / "restoration.parquet").to_pylist()
    setup = Setup.open(str(checkpoint("vit")), str(folder), batch_size=16, workers=0, device="cpu")
    module = script("restoration")
    for layer in setup.layers:
        rates = []
        for batch in setup.batches(setup.test):
            index = module.donors(setup, len(batch), 1, batch.number, layer)
            marks = torch.arange(len(batch)).view(-1, 1, 1).repeat(1, 1 + setup.model.layout.index("cls"), 1)
            moved = module.shuffled(setup, batch, range(layer, layer + 1), 1).at[layer](marks)
            assert torch.equal(moved[:, 0, 0], index)  # the donors counted are the donors used
            rates += [collision_rate(batch.labels, index)] * len(batch)
        (row,) = [r for r in table if r["curve"] == FLOOR and r["layer"] == layer]
        assert row["value"] == pytest.approx(sum(rates) / len(rates))
        assert row["n"] == len(setup.test)


def test_too_few_images_get_no_verdict_but_the_floor(out):
    summary = pq.read_table(out / "summary.parquet").to_pylist()  # 42 test images
    assert all(0 <= r[FLOOR] < 1 for r in summary)
    assert all(r[f"{kind} probe back after"] is None for r in summary for kind in ("same", "refitted"))
    assert FLOOR in (out / "figure.json").read_text()
    assert "no verdict" in (out / "summary.md").read_text()
