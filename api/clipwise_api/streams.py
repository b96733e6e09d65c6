"""To be written."""


class Streams: ...
