"""What each study found, in words: as the tables have it, and otherwise where they turn out otherwise."""

import ast
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from study_scripts import EXPERIMENTS, script

from clsinterp.commands.experiments import STUDIES
from clsinterp.studies.findings import SENTENCES
from clsinterp.studies.tidy import pick

README = EXPERIMENTS / "README.md"


PHOTOS = sorted(path.stem for path in (EXPERIMENTS / "tables" / "photos").glob("*.md"))
CONTROLS = sorted(script("gallery").CONTROLS)
SHOWN = [
    (name, part) for part, names in (("", STUDIES), ("photos", PHOTOS), ("control", CONTROLS)) for name in names
]  # (study, folder)


def table(name: str, part: str = "") -> pa.Table:
    return pq.read_table(EXPERIMENTS / "tables" / part / f"{name}.parquet")


def notes(name: str, part: str = "") -> list[str]:
    return script("gallery").notes((EXPERIMENTS / "tables" / part / f"{name}.md").read_text())


def altered(name: str, change) -> str:
    """The sentence of a table whose rows were changed, as one that stands on nothing but them."""
    rows = table(name).to_pylist()
    for row in rows:
        change(row)
    return SENTENCES[name](pa.Table.from_pylist(rows, schema=table(name).schema), notes(name))


@pytest.mark.parametrize(("name", "part"), SHOWN)
def test_the_readme_says_what_the_tables_beside_it_say(name, part):
    text, gallery = README.read_text(), script("gallery")
    block = f"{name}, {part}" if part else name
    assert gallery.with_finding(text, block, gallery.finding(name, table(name, part), notes(name, part))) == text
    assert f"figures/{part + '/' if part else ''}{name}.svg" in text
    assert (EXPERIMENTS / "figures" / part / f"{name}.svg").exists()


def test_every_finding_on_photos_has_its_table_and_says_how_much_it_stands_on():
    blocks = re.findall(r"<!-- finding: (\w+), photos -->\n(.*?)<!-- end -->", README.read_text(), re.DOTALL)
    assert sorted(name for name, _ in blocks) == PHOTOS
    for _, text in blocks:
        on = r"([\d,]+|\d+ pairs of [\d,]+) test images,? of 112 pixels"
        said = rf"Measured on {on}; .*(on [\d,]+ train images|no probe was fitted)\."
        assert re.search(said, " ".join(text.split()))


@pytest.mark.parametrize(("name", "part"), SHOWN)
def test_the_committed_summary_and_the_committed_table_are_of_one_run(name, part):
    shown = {
        cell for line in (EXPERIMENTS / "tables" / part / f"{name}.md").read_text().splitlines() if line.startswith("|")
        for cell in line.strip("| ").split(" | ") if re.fullmatch(r"-?\d+\.\d{3}", cell)
    }  # fmt: skip
    rows = table(name, part).to_pylist()
    measured = {f"{row[end]:.3f}" for row in rows for end in ("value", "ci_low", "ci_high") if row[end] is not None}
    assert shown
    assert shown <= measured


@pytest.mark.parametrize("name", STUDIES)
def test_no_script_carries_what_it_found_by_hand(name):
    doc = ast.get_docstring(ast.parse((EXPERIMENTS / f"{name}.py").read_text()))
    assert "FINDINGS" not in doc


def test_a_readme_without_the_block_is_not_written(tmp_path):
    with pytest.raises(SystemExit, match="finding: note"):
        script("gallery").with_finding("# Experiments\n", "note", "Nothing.")


def test_ablations_say_where_a_permutation_costs_more_and_where_less_than_zeros():
    said = SENTENCES["ablations"](table("ablations"), ())
    less, more = (
        re.search(rf"{word} (?:than zeros do )?at layers? ([^;.]+?)(?:, more|;)", said)[1] for word in ("less", "more")
    )
    rows = {(r["curve"], r["layer"]): r for r in pick(table("ablations"), group="cls")}
    for layer in range(12):
        a, b = rows["permute", layer], rows["zero", layer]
        named = [
            any(int(lo) <= layer <= int(hi or lo) for lo, hi in re.findall(r"(\d+)(?: to (\d+))?", text))
            for text in (less, more)
        ]
        assert named == [a["ci_high"] < b["ci_low"], a["ci_low"] > b["ci_high"]]

    def harmless(row):
        if row["curve"] == "permute":
            row.update(value=0.9, ci_low=0.89, ci_high=0.91)

    assert "less than zeros do at no layer" in altered("ablations", harmless)


def test_causality_says_in_which_order_the_cls_token_acts_and_tells():
    turns = {
        r["layer"]: r["value"]
        for r in pick(table("causality"), curve="turns to the donor's count", group="CLS", direction="both")
    }
    reads = {r["layer"]: r["value"] for r in pick(table("causality"), curve="probe reads the count", group="CLS")}
    acts, tells = (min(i for i in found if found[i] >= bar) for found, bar in ((turns, 0.5), (reads, 0.6)))
    assert acts < tells
    assert "the reverse of the paper's order" in SENTENCES["causality"](table("causality"), ())

    def earlier(row):
        if row["group"] == "CLS" and row["curve"] == "probe reads the count":
            row["value"] = 0.9

    said = altered("causality", earlier)
    assert "the paper's order, in which" in said
    assert "reverse" not in said

    def never(row):
        if row["group"] == "CLS":
            row["value"] = 0.1

    assert "acts on half of the outputs and tells the count at no block" in altered("causality", never)


def test_readouts_place_the_generator_and_say_whether_its_loss_still_falls():
    assert "below both at block 0" in SENTENCES["readouts"](table("readouts"), notes("readouts"))
    assert "still falls" in SENTENCES["readouts"](table("readouts"), notes("readouts"))
    assert "still falls" not in SENTENCES["readouts"](table("readouts"), ["loss by epoch, generator: 1.00, 1.00"])

    def best(row):
        if row["curve"] == "generator":
            row["value"] = 0.95

    assert "lie above both at blocks 0 to 11" in altered("readouts", best)


def test_rereading_says_what_is_no_information_and_how_sure_the_halves_are():
    """Of a table from before these were measured nothing is said; here they are what they should be read as."""
    known = table("rereading")
    old = [r for r in known.to_pylist() if not r["curve"].startswith(("mean_kv", "sink", "half"))]
    point = {"model": "zoo/vit", "family": "vit", "n": 100}
    costs = {"mean_kv_until": 0.25, "sink_until": 0.5, "mean_kv_patches_until": 0.0, "sink_patches_until": 0.375}
    new = [{**point, "curve": curve, "metric": "cost", "layer": 11, "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1}
           for curve, v in costs.items()]  # fmt: skip
    for curve, ends in (("half_read_until", (3, 2, 7)), ("half_read_from", (5, 5, 5))):
        layers = dict(zip(("value", "ci_low", "ci_high"), map(float, ends), strict=True))
        new.append({**point, "curve": curve, "metric": "layer", "layer": None, **layers})
    said, before = (
        SENTENCES["rereading"](pa.Table.from_pylist(rows, schema=known.schema), ()) for rows in (old + new, old)
    )
    assert "0.25 [0.15, 0.35] where the mean over images is read in its place (difference 0.50 [0.40, 0.60])" in said
    assert "0.00 [-0.10, 0.10] where the mean over images is read in its place (difference 0.38 [0.28, 0.47])" in said
    assert "lost without blocks 0 to 3 [2, 7] (" in said
    assert "without those from 5 on (" in said
    assert "difference" not in before
    assert "Half" not in before


def test_the_other_sentences_follow_their_tables_too():
    def setting(value, **where):
        def change(row):
            if all(row[name] == wanted for name, wanted in where.items()):
                row.update(value=value, ci_low=value - 0.01, ci_high=value + 0.01)

        return change

    said = altered("frequency", setting(0.99, embedding="random", kind="blurred"))
    assert "the random one serves blurred images better" in said
    assert "does not serve" in SENTENCES["frequency"](table("frequency"), ())
    assert "more often than the donor's" in altered("note", setting(0.0, curve="donor"))
    assert "as in the paper" in altered("class_space", setting(0.1, curve="most relevant kept", order="chance"))
    assert "another basis" not in altered("class_space", setting(0.9, curve="lens at the same tokens"))
    assert "come back" not in altered("restoration", setting(0.2, curve="refitted probe"))

    def few(row):
        if row["curve"] == "used_rank" and row["inner"] == "whitened" and row["value"] is not None:
            row["value"] = 3.0

    assert "at layer 5" in SENTENCES["erasure"](table("erasure"), ())
    assert "costs more than that at no layer" in altered("erasure", setting(0.0, curve="misled"))
    assert "again from erased tokens at layers 0 to 11" in altered("erasure", setting(0.5, curve="leftover"))
    assert "LEACE's component 0.25" in altered("subspace", setting(0.25, curve="swap_leace", measure="donor"))
    assert "the first 3 directions" in altered("subspace", few)
    assert "surely less than 95%" in altered("subspace", setting(0.5, curve="used_share", inner="plain"))
    assert "`zoo/clip` 0.01" in altered("donors", setting(0.01, curve="gap", model="zoo/clip"))
    assert "recovers more than 0.50 anywhere" in altered(
        "head_patching", setting(0.5, curve="tokens", place="7", layer=0)
    )
