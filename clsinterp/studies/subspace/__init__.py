"""What ``experiments/subspace.py`` stands on."""
