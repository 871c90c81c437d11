"""The zoo's training scripts, each on a handful of images: they end in a checkpoint, interrupted or not."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ZOO = Path(__file__).parents[2] / "experiments" / "zoo"
ZOO_SHIPPED = Path(__file__).parents[2] / "clsinterp" / "zoo"
RECIPES = {
    "vit": ["--epochs", 2],
    "vit masked": ["--recipe", "masked", "--pretrain-epochs", 2, "--epochs", 1],
    "vit both": ["--recipe", "both", "--epochs", 2],
    "deit": ["--epochs", 2, "--teacher-epochs", 1],
    "beit": ["--codebook-patches", 2000, "--pretrain-epochs", 2, "--epochs", 1],
    "dinov2": ["--epochs", 2],
    "clip": ["--epochs", 2],
    "clip_text": ["--epochs", 2],
}
STAGES = {
    "vit": ["labels", "settling"],
    "vit masked": ["pretrain", "labels", "settling"],
    "vit both": ["labels", "settling"],
    "deit": ["teacher", "distil"],
    "beit": ["pretrain", "finetune", "settling"],
    "dinov2": ["distil"],
    "clip": ["contrast", "settling"],
    "clip_text": ["text"],
}


@pytest.fixture
def train(monkeypatch):
    """Run a recipe on 64 images of noise; it trains in this process, on one thread."""
    monkeypatch.syspath_prepend(str(ZOO))
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 28, 28), generator=draw, dtype=torch.uint8)
    labels = torch.arange(64) % 10

    def run(recipe: str, out: Path) -> dict:
        script = __import__(f"train_{recipe.split()[0]}")
        monkeypatch.setattr(script.common, "load", lambda args: (images, labels, images[:20], labels[:20]))
        words = ["train", "--out", out, *RECIPES[recipe]]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        if recipe == "clip_text":  # it adds to a folder with a finished vision tower
            shutil.copytree(ZOO_SHIPPED / "clip", out, dirs_exist_ok=True)
        script.main()
        return json.loads((out.with_name(f"{out.name}.work") / "facts.json").read_text())

    return run


def interrupted_and_resumed(train, recipe, out, monkeypatch) -> dict:
    """Facts of a training that is stopped as it saves for the second time, and goes on."""
    save, saves = torch.save, []

    def save_once(*args, **options):
        saves.append(args)
        if len(saves) == 2:
            raise KeyboardInterrupt
        save(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out)
    return train(recipe, out)


def accuracy(recipe, facts) -> float:
    return facts["zero_shot_accuracy" if recipe == "clip_text" else "test_accuracy"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_goes_on_after_an_interruption_and_ends_in_a_checkpoint(train, tmp_path, monkeypatch, recipe):
    facts = interrupted_and_resumed(train, recipe, tmp_path / "out", monkeypatch)
    log = [json.loads(line) for line in (tmp_path / "out.work" / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["stage"] for line in log)) == STAGES[recipe]
    assert 0 <= accuracy(recipe, facts) <= 1
    assert all(torch.isfinite(weight).all() for weight in load_file(tmp_path / "out" / "model.safetensors").values())


@pytest.mark.nightly
@pytest.mark.parametrize("recipe", RECIPES)
def test_an_interruption_changes_nothing(train, tmp_path, monkeypatch, recipe):
    facts = train(recipe, tmp_path / "whole")
    again = interrupted_and_resumed(train, recipe, tmp_path / "resumed", monkeypatch)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert accuracy(recipe, again) == accuracy(recipe, facts)
