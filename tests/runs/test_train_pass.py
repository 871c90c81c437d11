"""Finished units wait in memory while writing costs more than computing."""

import pytest
from command_line import run

from clsinterp.runs import train_pass

ASKED = ("--train-split", "train", "--test-split", "test", "--head", "fit")


@pytest.fixture
def written(monkeypatch):
    """Names of the sums that were written, in order."""
    names, save = [], train_pass.save_tensors

    def noted(folder, path, tensors):
        names.append(path.name)
        save(folder, path, tensors)

    monkeypatch.setattr(train_pass, "save_tensors", noted)
    return names


@pytest.fixture
def by_unit(checkpoint, folder, tmp_path, monkeypatch, written):
    """The probes of a run that writes every unit, and how many sums it wrote."""
    monkeypatch.setattr(train_pass, "WORTH", 0)
    code, text = run(checkpoint("vit"), folder, tmp_path / "units", *ASKED, "--batch-size", 4)
    assert code == 0, text
    probes, n = (tmp_path / "units" / "probes.safetensors").read_bytes(), len(written)
    written.clear()
    return probes, n


@pytest.mark.parametrize(("held", "every"), [(2e9, False), (0, True)])
def test_sums_added_up_in_memory_are_those_added_up_from_files(
    held, every, by_unit, checkpoint, folder, tmp_path, monkeypatch, written
):
    monkeypatch.setattr(train_pass, "WORTH", 1e9)
    monkeypatch.setattr(train_pass, "HELD", held)
    code, text = run(checkpoint("vit"), folder, tmp_path / "run", *ASKED, "--batch-size", 4)
    assert code == 0, text
    probes, n = by_unit
    assert (tmp_path / "run" / "probes.safetensors").read_bytes() == probes
    # The first unit is written at once, as nothing is known of the disk; the others in one go, but for what does not fit.
    assert n > 8
    assert len(written) == n if every else len(written) < n / 2
