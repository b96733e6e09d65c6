"""An example of a package that adds a model kind to Clipwise."""
