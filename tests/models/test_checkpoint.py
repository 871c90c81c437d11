"""Where a checkpoint comes from is kept exactly."""

import hub_cache

from clsinterp.models.loading import load_checkpoint


def test_the_commit_on_the_hub_is_known(checkpoint, tmp_path, monkeypatch):
    hub_cache.add(hub_cache.use(tmp_path / "hub", monkeypatch), "org/tiny", checkpoint("vit"))
    assert load_checkpoint("org/tiny").revision == hub_cache.COMMIT
