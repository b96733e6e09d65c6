"""To be written."""


class Planner: ...
