"""To be written."""


class EventStream: ...
