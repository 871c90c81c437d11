"""Labels that are not spelt as the model's, through the command line."""

import json
import logging
import shutil

import pyarrow.parquet as pq
import pytest
import tiny
import transformers as hf
from command_line import run

from clsinterp.data.imagenet import synsets
from clsinterp.runs.request import Request

pytestmark = pytest.mark.usefixtures("plain_page")


def renamed(folder, root, names):
    """The class folders of `folder` under other names."""
    for split in ("train", "test"):
        for i, name in enumerate(names):
            shutil.copytree(folder / split / f"class_{i}", root / split / name)
    return root


def ranks_by_picture(out):
    """Rank of the true label of every test image, by what the image is: its old class and its file."""
    images = pq.read_table(out / "images.parquet").to_pylist()
    return images, sorted((r["rank_intact"], r["source"].rsplit("/", 1)[1]) for r in images)


@pytest.fixture(scope="module")
def by_name(checkpoint, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("named") / "r"
    code, text = run(checkpoint("vit"), folder, out, "--layers", "0")
    assert code == 0, text
    return out


OTHER = ["one", "five", "three", "four", "two", "six", "seven"]  # by alphabet in another order than the classes


def test_a_label_map_scores_the_same_images_the_same(checkpoint, folder, by_name, tmp_path):
    data = renamed(folder, tmp_path / "data", OTHER)
    file = tmp_path / "map.csv"
    file.write_text("".join(f"{name},class {i}\n" for i, name in enumerate(OTHER)))
    code, text = run(checkpoint("vit"), data, tmp_path / "r", "--layers", "0", "--label-map", file)
    assert code == 0, text
    assert ranks_by_picture(tmp_path / "r")[1] == ranks_by_picture(by_name)[1]
    facts = json.loads((tmp_path / "r" / "run.json").read_text())
    content = {name: f"class {i}" for i, name in enumerate(OTHER)}
    assert facts["labels"]["how"] == "map"
    assert facts["identity"]["label_map"] == content
    assert [facts["class_names"][i] for i in range(7)] == sorted(OTHER)
    assert facts["labels"]["classes"] == [OTHER.index(name) for name in sorted(OTHER)]
    # The content is what counts: the file may go, but not change.
    assert Request.of_json(facts["identity"]).label_map == content
    file.write_text(file.read_text().replace("five,class 1", "five,class 2").replace("three,class 2", "three,class 1"))
    code, text = run(checkpoint("vit"), data, tmp_path / "r", "--layers", "0", "--label-map", file, "--resume")
    assert (code, "label_map" in text) == (2, True)


def test_numbers_from_one_score_the_same_images_the_same(checkpoint, folder, by_name, tmp_path, caplog):
    data = renamed(folder, tmp_path / "data", [str(i + 4) for i in range(7)])  # 4 to 10: as text, 10 comes first
    with caplog.at_level(logging.WARNING):
        code, text = run(checkpoint("vit"), data, tmp_path / "r", "--layers", "0")
    assert code == 0, text
    assert "taken in order" in caplog.text
    assert ranks_by_picture(tmp_path / "r")[1] == ranks_by_picture(by_name)[1]


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A random ViT with ImageNet's names, as transformers publishes them."""
    names = dict(enumerate(synsets().values()))
    config = hf.ViTConfig(**tiny.BASE, id2label=names, label2id={v: k for k, v in names.items()})
    out = tmp_path_factory.mktemp("imagenet")
    hf.ViTForImageClassification(config).save_pretrained(out)
    tiny.processor().save_pretrained(out)
    return out


@pytest.mark.parametrize("names", [["n02102040", "n01440764"], ["English springer", "tench"]], ids=["ids", "words"])
def test_two_unequal_classes_of_imagenet_keep_the_own_head(thousand, folder, tmp_path, names):
    data = renamed(folder, tmp_path / "data", names)
    for file in sorted((data / "test" / names[1]).iterdir())[1:]:  # one image of the second class
        file.unlink()
    code, text = run(thousand, data, tmp_path / "r", "--layers", "0")
    assert code == 0, text
    facts = json.loads((tmp_path / "r" / "run.json").read_text())
    assert facts["labels"]["how"] == "name"
    assert dict(zip(facts["class_names"], facts["labels"]["classes"], strict=True)) == dict(
        zip(names, (217, 0), strict=True)
    )
    assert max(r["rank_intact"] for r in ranks_by_picture(tmp_path / "r")[0]) > 1  # among a thousand classes
