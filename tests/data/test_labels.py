import pytest

from clsinterp.data.labels import match_labels
from clsinterp.errors import RequestError

IMAGENET = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark"]


@pytest.mark.parametrize(
    "data", [["Great_White-shark", "TENCH"], ["goldfish, Carassius auratus", "tench, Tinca tinca"]]
)
def test_names_are_matched_whatever_their_spelling_and_order(data):
    match = match_labels(data, IMAGENET, "auto")
    assert match.how == "name"
    assert [IMAGENET[c].split(",")[0].lower() for c in match.classes] == [
        n.lower().replace("_", " ").replace("-", " ").split(",")[0] for n in data
    ]


def test_as_many_classes_are_taken_in_order_and_said_so():
    match = match_labels(["a", "b"], ["x", "y"], "own")
    assert (match.how, match.classes) == ("count", (0, 1))
    assert "taken in order" in match.note


def test_other_classes_get_a_fitted_head():
    assert match_labels(["a", "b"], IMAGENET, "auto").how == "fit"
    assert match_labels(["a", "b"], None, "auto").how == "fit"
    assert match_labels(["tench"], IMAGENET, "fit").how == "fit"


def test_an_own_head_that_cannot_be_used_is_refused():
    with pytest.raises(RequestError, match=r"2 classes.*3"):
        match_labels(["a", "b"], IMAGENET, "own")
    with pytest.raises(RequestError, match="no classifier"):
        match_labels(["a", "b"], None, "own")
