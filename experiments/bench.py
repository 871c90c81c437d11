"""How fast, against what, in one run on the machine at hand: ``clsinterp bench`` under the name users look for.

python experiments/bench.py [--quick] [--only fork,probes,..] [--out bench.parquet]
"""

import sys

from clsinterp.cli import app

if __name__ == "__main__":
    app(["bench", *sys.argv[1:]])
