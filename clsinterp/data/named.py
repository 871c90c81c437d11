"""Data sets of the hub that go by a short name: where their files lie, since their loading scripts are no longer run."""

# Imagenette (fastai): ten easily told classes of ImageNet, whose terms hold: for non-commercial research. The hub keeps
# every data set that once came with a script as parquet, under the name ~parquet.
NAMED: dict[str, dict[str, str]] = {
    "imagenette": {
        "train": "hf://datasets/frgfm/imagenette@~parquet/320px/train/*.parquet",
        "validation": "hf://datasets/frgfm/imagenette@~parquet/320px/validation/*.parquet",
    }
}
