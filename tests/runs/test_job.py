"""What a run says of itself on the disk: typed in memory, plain JSON in the file, the same after a round trip."""

import json
from dataclasses import fields, replace

import pytest
import tiny
from command_line import invoke

from clsinterp.errors import RequestError
from clsinterp.figures.facts import Facts
from clsinterp.runs.folder import RunFolder
from clsinterp.runs.job import Job
from clsinterp.runs.report import Report
from clsinterp.runs.request import Request, Resources
from clsinterp.runs.results import read_run
from clsinterp.runs.workload import Workload


def through_a_file(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("family", ["vit", "deit"])
@pytest.mark.parametrize("layers", [None, (-1, 3)])
def test_a_job_comes_back_from_its_file(checkpoint, folder, family, layers):
    request = Request(
        str(checkpoint(family)), str(folder), layers=layers, cls_only="zero", config={"hidden_act": "gelu"}
    )
    job = Workload.of(request, Resources("cpu", workers=0)).job()
    written = through_a_file(job.to_json())
    assert list(written) == ["identity", "facts", "layout", "manifest"]
    assert Job.of_json(written) == job
    assert through_a_file(Job.of_json(written).to_json()) == written
    remote = replace(job, manifest=replace(job.manifest, remote={"host": "there"}))
    assert Job.of_json(through_a_file(remote.to_json())) == remote
    assert "remote" not in written["manifest"]


def test_a_report_comes_back_from_its_file_to_the_byte(checkpoint, folder, tmp_path):
    out = tmp_path / "r"
    code, text = invoke("run", checkpoint("deit"), "--data", folder, "--out", out, "--layers", "0,3", "--workers", 0)
    assert code == 0, text
    report, curves = read_run(out)
    assert (out / "run.json").read_text() == json.dumps(report.to_json(), indent=1) + "\n"
    assert list(report.alpha) == [0, 3] == list(report.manifest.layers)
    assert len(curves)
    value = json.loads((out / "run.json").read_text())
    assert list(value)[: len(fields(Facts))] == [f.name for f in fields(Facts)]
    for key in ("model", "onsets", "identity", "layers", "alpha", "seconds"):
        with pytest.raises(KeyError, match=key):
            Report.of_json({k: v for k, v in value.items() if k != key})
    (out / "run.json").write_text(json.dumps({"model": "x"}))
    with pytest.raises(RequestError, match="is not a finished run folder"):
        read_run(out)


@pytest.mark.parametrize("begun", ["[]", "{}", '{"identity": {}}', "cut o", '{"identity": 3, "facts": []}'])
def test_what_is_no_job_is_refused_and_may_be_replaced(checkpoint, folder, tmp_path, begun):
    out = tmp_path / "r"
    (out / ".work").mkdir(parents=True)
    (out / ".work" / "request.json").write_text(begun)
    with pytest.raises(RequestError, match="holds no run that could be resumed"):
        RunFolder(out).job()
    arguments = ["run", checkpoint("vit"), "--data", folder, "--out", out, "--layers", "0", "--workers", 0, "--quiet"]
    code, text = invoke(*arguments, "--resume")
    assert (code, "holds no run that could be resumed" in text) == (2, True), text
    code, text = invoke(*arguments, "--overwrite")
    assert code == 0, text
    assert read_run(out).report.facts.n_labels == tiny.CLASSES
