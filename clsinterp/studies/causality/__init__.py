"""What ``experiments/causality.py`` stands on."""
