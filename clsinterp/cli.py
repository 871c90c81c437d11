"""The command line: every command module registers itself with the application on import."""

from clsinterp.commands import demo, run, note, merge, figure, compare, lens, check, zoo, bench, experiments  # noqa: F401, I001  (the order --help shows)
from clsinterp.console import app


def main() -> None:
    """Entry point of the ``clsinterp`` command."""
    app()


if __name__ == "__main__":
    main()
