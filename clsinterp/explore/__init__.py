"""The explorer: a page in the browser over `clsinterp.lens`, served from this machine to this machine."""
