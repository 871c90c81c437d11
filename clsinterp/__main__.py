"""``python -m clsinterp``."""

from clsinterp.cli import main

main()
