"""Rows of the family table, a module for each library."""
