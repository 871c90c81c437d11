"""``clsinterp check``."""

from clsinterp.console import (
    ALLOW_PICKLE,
    CONFIG,
    DEVICE,
    DTYPE,
    MODEL,
    command,
    fail,
    out_console,
    parse_config,
    quiet_libraries,
)


@command
def check(
    model: MODEL,
    device: DEVICE = "auto",
    dtype: DTYPE = "auto",
    config: CONFIG = None,
    allow_pickle: ALLOW_PICKLE = False,
) -> None:
    """Check against plain torch that this package reads and writes a checkpoint where it says."""
    quiet_libraries()
    from clsinterp.check import check as check_model
    from clsinterp.model import VisionModel

    failed = 0
    for finding in check_model(
        VisionModel(model, config=parse_config(config), dtype=dtype, device=device, allow_pickle=allow_pickle)
    ):
        mark = "[green]ok  [/green]" if finding.holds else "[bold red]FAIL[/bold red]"
        detail = f" ({finding.detail})" if finding.detail else ""
        out_console.print(mark, f"{finding.what}{detail}", highlight=False, soft_wrap=True)
        failed += not finding.holds
    if failed:
        fail(f"{failed} checks failed for {model}.", 1)
