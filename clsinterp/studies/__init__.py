"""What the scripts of ``experiments/`` stand on: one idea per module, no study in any of them."""
