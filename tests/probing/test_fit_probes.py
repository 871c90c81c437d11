"""From data to probes in three lines, pandas in and out."""

import io

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from sklearn.linear_model import Ridge

from clsinterp import capture, fit_probes, load_data
from clsinterp.errors import RequestError


def tokens(n=40, layers=3, d=6, seed=0):
    labels = torch.arange(n) % 4
    noise = torch.randn(layers, n, d, generator=torch.Generator().manual_seed(seed))
    return noise + 2 * torch.nn.functional.one_hot(labels, d), labels


def test_they_are_scikit_learns_ridge_at_the_penalty_they_chose():
    x, y = tokens()
    probes = fit_probes(x, y)
    for i in range(3):
        naive = Ridge(alpha=float(probes.ridge.alpha[i])).fit(x[i].numpy(), np.where(np.eye(4)[y], 1, -1))
        assert torch.allclose(probes.scores(x)[i], torch.tensor(naive.predict(x[i].numpy())).double(), atol=1e-5)
        right = naive.predict(x[i].numpy()).argmax(1) == y.numpy()
        assert probes.accuracy(x, y)[i] == pytest.approx(right.mean())


@pytest.mark.parametrize(
    "shape",
    [lambda y: y, lambda y: y.tolist(), lambda y: y.numpy(), lambda y: pd.Series(y.numpy(), index=range(7, 47))],
)
def test_labels_of_any_kind(shape):
    x, y = tokens()
    assert fit_probes(x, shape(y)).predict(x) == fit_probes(x, y).predict(x)
    assert fit_probes(x, shape(y)).classes == [0, 1, 2, 3]


def test_names_and_a_data_frame_of_features():
    x, y = tokens()
    names = pd.Series([f"class {i}" for i in y]).astype("category")
    probes = fit_probes(pd.DataFrame(x[0].numpy()), names)
    assert probes.classes == [f"class {i}" for i in range(4)]
    found = probes.table(x[0], names).to_pandas()
    assert found.accuracy[0] == float(probes.accuracy(x[0], names)[0]) > 0.5
    assert found.ci_low[0] < found.accuracy[0] <= found.ci_high[0]
    assert float(probes.accuracy(x[0], ["new"] * 40)[0]) == 0


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.zeros(2, 4, 3), [0, 1], "2 labels were given for 4 images"),
        (torch.zeros(4), [0] * 4, "shape (4,)"),
        (torch.full((4, 3), torch.nan), [0, 1] * 2, "NaN"),
        (torch.zeros(4, 3), [0, 1, None, 1], "label 2 is None"),
        (torch.zeros(4, 3), [0, 1, float("nan"), 1], "label 2 is nan"),
        (torch.zeros(4, 3), [0, "a", 1, "b"], "mix names and numbers"),
        ([["a", "b"]], ["a"], "list was given"),
        (torch.zeros(1, 3), [0], "at least 2"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, y, said):
    with pytest.raises(RequestError) as error:
        fit_probes(x, y)
    assert said in str(error.value)


def test_capture_takes_splits_pictures_and_pixels_alike(model, folder):
    m = model("vit")
    _, test = load_data(folder, test_per_class=3)
    pictures = [test.image(i) for i in range(len(test))]
    whole = capture(m, m.pixels(pictures))
    assert whole.tokens.shape == (tiny.LAYERS, len(test), tiny.WIDTH)
    for given in (test, pictures, tuple(pictures)):
        found = capture(m, given, batch_size=8)
        assert torch.allclose(found.tokens, whole.tokens, atol=1e-5)
        assert torch.allclose(found.readout, whole.readout, atol=1e-5)
    with pytest.raises(RequestError, match="no images"):
        capture(m, [])


def test_a_data_frame_is_data_and_data_are_a_data_frame(folder, pictures, tmp_path):
    train, _ = load_data(folder)
    known = train.table().to_pandas()
    assert list(known.columns) == ["source", "label", "class"]
    buffer = io.BytesIO()
    pictures(0, 0).save(buffer, "PNG")
    cells = {
        "path": [str(folder / source) for source in known.source],
        "image": [train.image(i) for i in range(len(train))],
        "img": [buffer.getvalue()] * len(train),
    }
    for column, values in cells.items():
        one, other = load_data(pd.DataFrame({column: values, "label": known["class"], "x": 1}))
        assert (len(one) + len(other), one.class_names) == (len(train), train.class_names)
        assert {*one.labels} == {*train.labels}
        assert one.image(0).size == train.image(0).size
    one, other = load_data(pd.DataFrame({"path": cells["path"], "label": known["class"]}), seed=3)
    assert all(name in source for name, source in zip(one.names, one.sources, strict=True))


@pytest.mark.parametrize(
    ("frame", "options", "said"),
    [
        (pd.DataFrame({"a": [1], "label": [1]}), {}, "no column is called image"),
        (pd.DataFrame({"path": ["x"], "b": [1]}), {}, "no column is called label"),
        (pd.DataFrame({"path": ["x"], "b": [1]}), {"label_column": "c"}, "label_column='c' was given"),
        (pd.DataFrame({"path": ["x"], "b": [1]}), {"label_column": "path"}, "name two"),
        (pd.DataFrame({"path": [{1, 2}], "label": [1]}), {}, "cannot read the data frame"),
        (3, {}, "int was given as data"),
    ],
)
def test_a_table_without_images_or_labels_is_refused(frame, options, said):
    with pytest.raises(RequestError) as error:
        load_data(frame, **options)
    assert said in str(error.value)
