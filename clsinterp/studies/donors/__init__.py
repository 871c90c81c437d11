"""What ``experiments/donors.py`` stands on."""
