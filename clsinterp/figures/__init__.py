"""Plotly, from tables only."""
