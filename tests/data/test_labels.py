import json
import random

import pytest

from clsinterp.data.imagenet import synsets
from clsinterp.data.label_map import read_label_map
from clsinterp.data.labels import match_labels
from clsinterp.errors import RequestError

IMAGENET = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark"]
FASHION = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
WNIDS, THOUSAND = list(synsets()), list(synsets().values())
TEN_WNIDS = sorted(random.Random(0).sample(WNIDS, 10))


def matched(data, model, head="auto", label_map=None):
    match = match_labels(data, model, head, label_map)
    return match.how, list(match.classes)


# -- names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [["Great_White-shark", "TENCH"], ["goldfish, Carassius auratus", "tench, Tinca tinca"], ["Tinca tinca"]]
)
def test_names_are_matched_whatever_their_spelling_and_order(data):
    how, classes = matched(data, IMAGENET)
    assert how == "name"
    for name, c in zip(data, classes, strict=True):
        assert name.lower().replace("_", " ").replace("-", " ").split(",")[0] in IMAGENET[c].lower()


def test_identical_lists_are_the_identity_also_with_repeats():
    assert THOUSAND.count("crane") == 2  # the bird and the machine
    assert matched(THOUSAND, THOUSAND) == ("name", list(range(1000)))
    assert matched(["b", "a", "b"], ["b", "a", "b"], "own") == ("name", [0, 1, 2])


def test_a_long_list_with_a_name_spelt_otherwise_is_still_that_list():
    hub = [name if i != 517 else "crane2" for i, name in enumerate(THOUSAND)]  # as ILSVRC/imagenet-1k has it
    match = match_labels(hub, THOUSAND, "own")
    assert (match.how, match.classes) == ("name", tuple(range(1000)))
    assert "1 of 1000 ('crane2' against 'crane')" in match.note
    first = [name.split(",")[0] for name in THOUSAND]  # maillot and maillot, crane and crane
    assert matched(first, THOUSAND) == ("name", list(range(1000)))
    with pytest.raises(RequestError, match="such as"):
        match_labels([f"other {i}" if i % 50 == 0 else name for i, name in enumerate(THOUSAND)], THOUSAND, "auto")


def test_only_the_names_that_are_wanted_must_be_unique():
    wanted = ["cardigan", "maillot", "Cardigan, Cardigan Welsh corgi", "maillot, tank suit", "missile", "tench"]
    assert matched(wanted, THOUSAND) == ("name", [474, 638, 264, 639, 657, 0])
    with pytest.raises(RequestError, match=r"'crane' is the name of several.* 134, 517.*head=\"fit\".*label_map=FILE"):
        match_labels(["tench", "crane"], THOUSAND, "auto")


def test_two_labels_of_one_class_are_refused():
    with pytest.raises(RequestError, match="'tench' and 'Tinca tinca' are both matched to the model's class 0"):
        match_labels(["tench", "Tinca tinca"], IMAGENET, "auto")


def test_other_classes_get_a_fitted_head():
    for data in (["a", "b"], ["tench", "b"], ["one image"], ["0"]):
        match = match_labels(data, IMAGENET, "auto")
        assert (match.how, match.classes) == ("fit", tuple(range(len(data))))
    assert "1 of the names, such as 'b'," in match_labels(["tench", "b"], IMAGENET, "auto").note
    assert matched(["a", "b"], None)[0] == "fit"
    assert matched(["tench"], IMAGENET, "fit")[0] == "fit"


def test_an_own_head_that_cannot_be_used_is_refused():
    with pytest.raises(RequestError, match=r"2 classes.*3"):
        match_labels(["a", "b"], IMAGENET, "own")
    with pytest.raises(RequestError, match="no classifier"):
        match_labels(["a", "b"], None, "own")


# -- names that say nothing ------------------------------------------------------------


@pytest.mark.parametrize("head", ["auto", "own"])
def test_as_many_classes_by_other_names_are_refused(head):
    with pytest.raises(RequestError, match=r"'airplane'.*'t-shirt'.*head=\"fit\".*label_map=FILE"):
        match_labels(CIFAR, FASHION, head)
    with pytest.raises(RequestError, match="label_map=FILE"):
        match_labels([*FASHION[:9], "boot"], FASHION, head)


def digits(*numbers):
    return [str(n) for n in numbers]


@pytest.mark.parametrize(
    ("data", "model", "expected"),
    [
        (digits(1, 10, 2, 3, 4, 5, 6, 7, 8, 9), FASHION, [0, 9, 1, 2, 3, 4, 5, 6, 7, 8]),  # as text sorts them
        (digits(*range(1, 11)), FASHION, list(range(10))),
        (digits(*range(10)), FASHION, list(range(10))),
        (digits(0, 1), ["cat", "dog"], [0, 1]),
        (digits(1, 2), ["cat", "dog"], [0, 1]),
        (["cat", "dog"], ["LABEL_0", "LABEL_1"], [0, 1]),
        (["cat", "dog"], ["LABEL_1", "LABEL_0"], [1, 0]),
        (digits(*range(1, 11)), [f"LABEL_{i}" for i in range(10)], list(range(10))),
        (digits(*range(1, 11)), digits(*range(10)), list(range(10))),  # all of them, counted from 1
        ([f"class_{i}" for i in (0, 1, 10, 2)], ["a", "b", "c", "d"], [0, 1, 3, 2]),
        (["n99999999", "n99999998"], ["cat", "dog"], [1, 0]),  # ids that are not ImageNet's say nothing either
    ],
)
def test_names_that_say_nothing_are_counted_by_number_and_said_so(data, model, expected):
    match = match_labels(data, model, "auto")
    assert (match.how, list(match.classes)) == ("count", expected)
    assert "taken in order" in match.note


@pytest.mark.parametrize(
    ("data", "model", "expected"),
    [
        (digits(0, 3, 7), digits(*range(10)), [0, 3, 7]),
        (digits(7, 3), digits(*range(10)), [7, 3]),
        (["03", "7"], digits(*range(10)), [3, 7]),
        (
            digits(1, 10, 2),
            digits(1, 10, 2, 3, 4, 5, 6, 7, 8, 9),
            [0, 1, 2],
        ),  # a model trained on folders sorted as text
        (digits(1, 2, 10), digits(1, 10, 2, 3, 4, 5, 6, 7, 8, 9), [0, 2, 1]),
    ],
)
def test_digits_that_the_model_has_as_names_are_matched_by_value(data, model, expected):
    assert matched(data, model) == ("name", expected)


def test_some_numbers_are_class_indices_only_if_hardly_anything_else():
    most = [i for i in range(1000) if i % 100 != 7]
    match = match_labels(digits(*most), THOUSAND, "auto")
    assert (match.how, list(match.classes)) == ("count", most)
    assert "indices" in match.note
    for own_numbering in (digits(0, 1, 2), digits(0, 3, 7), digits(*range(8)), digits(1, 3, 4, 5, 6, 8)):
        assert matched(own_numbering, FASHION)[0] == "fit"


# -- WordNet ids -----------------------------------------------------------------------


def test_the_list_of_wordnet_ids_is_imagenets_in_class_order():
    assert (len(WNIDS), len(set(WNIDS))) == (1000, 1000)
    assert sorted(WNIDS) == WNIDS
    known = {0: "n01440764", 134: "n02012849", 217: "n02102040", 517: "n03126707", 999: "n15075141"}
    assert {i: WNIDS[i] for i in known} == known


@pytest.mark.parametrize(
    "names",
    [
        THOUSAND,
        [name.split(",")[0] for name in THOUSAND],
        [name if i % 3 else f"nickname {i}" for i, name in enumerate(THOUSAND)],  # lists with names of their own
        WNIDS,
    ],
    ids=["lemmas", "first lemmas", "own names", "ids"],
)
def test_wordnet_ids_match_classifiers_of_imagenet(names):
    assert matched(TEN_WNIDS, names) == ("name", [WNIDS.index(w) for w in TEN_WNIDS])
    assert matched(WNIDS, names) == ("name", list(range(1000)))
    cranes = ["n03126707", "n02012849"]
    assert matched(cranes, names) == ("name", [517, 134])


def test_wordnet_ids_and_words_meet_where_the_model_is_not_imagenets():
    words = ["parachute, chute", "golf ball", "tench"]
    ids = [WNIDS[THOUSAND.index(next(n for n in THOUSAND if n.startswith(w)))] for w in ("golf", "tench", "parachute")]
    assert matched(ids, words) == ("name", [1, 2, 0])
    assert matched(words, ids) == ("name", [2, 0, 1])
    assert matched(ids, [f"LABEL_{i}" for i in range(3)])[0] == "count"
    with pytest.raises(RequestError, match="label_map=FILE"):  # other classes, whose ids do say something
        match_labels(ids, ["cat", "dog", "ship"], "auto")
    assert matched(ids, CIFAR)[0] == "fit"


# -- label maps ------------------------------------------------------------------------


def test_a_label_map_names_classes_or_indices(tmp_path):
    (tmp_path / "map.json").write_text(json.dumps({"fish": "tench", "gold": 1, "unused": "nothing"}))
    (tmp_path / "map.csv").write_text('label,class\nfish, "tench, Tinca tinca"\n\ngold,1\n')
    for given in ({"fish": "tench", "gold": 1}, tmp_path / "map.json", str(tmp_path / "map.csv")):
        for head in ("auto", "own"):
            assert matched(["gold", "fish"], IMAGENET, head, given) == ("map", [1, 0])
    assert matched(["a"], digits(*range(1, 11)), label_map={"a": "10"}) == ("map", [9])  # a name before an index
    assert matched(["a"], digits(*range(1, 11)), label_map={"a": "0"}) == ("map", [0])
    assert matched(CIFAR, FASHION, label_map={c: i for i, c in enumerate(CIFAR)}) == ("map", list(range(10)))
    assert matched(["heron"], THOUSAND, label_map={"heron": "n02012849"}) == ("map", [134])


@pytest.mark.parametrize(
    ("label_map", "said"),
    [
        ({"fish": "tench"}, r"no entry for 'gold' \(1 of the data's 2"),
        ({"fish": "tench", "gold": "cod"}, "'cod' for label 'gold', which is none of the model's 3"),
        ({"fish": "tench", "gold": 3}, "3 for label 'gold'; the model's classes are 0 to 2"),
        ({"fish": "tench", "gold": -1}, "-1 for label 'gold'"),
        ({"fish": "tench", "gold": 0}, "'fish' and 'gold' are both matched"),
        ({"fish": "tench", "gold": True}, "True for label 'gold'; a class name or an index"),
    ],
)
def test_a_label_map_that_does_not_fit_says_where(label_map, said):
    with pytest.raises(RequestError, match=said):
        match_labels(["fish", "gold"], IMAGENET, "auto", label_map)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("map.json", '["a"]', "not an object"),
        ("map.json", "{", "map.json"),
        ("map.json", '{"a": 1, "a": 2}', "label 'a' twice"),
        ("map.json", '{"a": {"b": 1}}', "for label 'a'"),
        ("map.csv", "a,1\nb\n", "'b' has 1 columns"),
        ("map.csv", "a,1\na,2\n", "label 'a' twice"),
        ("none.csv", None, "cannot read label map .*none.csv"),
    ],
)
def test_a_label_map_that_cannot_be_read_says_why(tmp_path, file, text, said):
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(RequestError, match=said):
        read_label_map(tmp_path / file)


def test_a_label_map_needs_a_classifier_to_name_classes_of():
    with pytest.raises(RequestError, match=r"head=\"fit\" was given"):
        match_labels(["fish"], IMAGENET, "fit", {"fish": 0})
    with pytest.raises(RequestError, match="the checkpoint has no classifier"):
        match_labels(["fish"], None, "auto", {"fish": 0})
    with pytest.raises(RequestError, match="classes 134, 517; give the index"):
        match_labels(["bird"], THOUSAND, "auto", {"bird": "crane"})
