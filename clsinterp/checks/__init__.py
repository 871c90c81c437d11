"""Slow twins in plain torch, and what `clsinterp check` does with them."""
