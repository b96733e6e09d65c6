"""The optimizer: a learning rate and a chain of plug-ins."""
