"""A study's first figure drawn again from its tables, so that a change of the drawing needs no measurement."""

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from clsinterp.studies.ablations.figure import ablations_figure
from clsinterp.studies.causality.figure import counting_figure
from clsinterp.studies.class_space.figure import class_space_figure
from clsinterp.studies.donors.figure import gap_figure, sums
from clsinterp.studies.erasure.figure import erasure_figure
from clsinterp.studies.frequency.figure import frequency_figure
from clsinterp.studies.head_patching.figure import heads_figure
from clsinterp.studies.readouts.figure import readouts_figure
from clsinterp.studies.restoration.figure import restoration_figure
from clsinterp.studies.shown import Shown, Tables
from clsinterp.studies.subspace.figure import subspace_figure

# Study -> its first figure, from its tables and the models they are about. The note's and rereading's say more of a run than
# tables do (floors, the window), and are quick to measure again.
DRAWN: dict[str, Callable[[Tables, Sequence[Shown]], go.Figure]] = {
    "restoration": lambda tables, models: restoration_figure(tables["restoration"], *models),
    "readouts": lambda tables, models: readouts_figure(tables["readouts"], tables["agreement"], *models),
    "class_space": lambda tables, models: class_space_figure(tables["class_space"], *models),
    "causality": lambda tables, models: counting_figure(tables["causality"], *models),
    "frequency": lambda tables, models: frequency_figure(tables["frequency"], *models),
    "ablations": lambda tables, models: ablations_figure(tables["ablations"], *models),
    "donors": lambda tables, models: gap_figure(tables["donors"], [sums(tables["donors"], m) for m in models]),
    "erasure": lambda tables, models: erasure_figure(tables["erasure"], *models),
    "subspace": lambda tables, models: subspace_figure(tables["subspace"], *models),
    "head_patching": lambda tables, models: heads_figure(tables["head_patching"], *models),
}
