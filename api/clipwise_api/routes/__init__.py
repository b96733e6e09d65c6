"""The routes, one file per resource; each is a few lines, every query is in `clipwise.store`."""
