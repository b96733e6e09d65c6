"""To be written."""


def receive(): ...
