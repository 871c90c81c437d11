"""What ``experiments/class_space.py`` stands on."""
