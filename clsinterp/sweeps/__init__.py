"""Many edits of one batch in one forward."""
