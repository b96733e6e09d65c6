"""The command line: an HTTP client like any other, and the command that starts the service.

Exit codes: 0 it worked; 1 the job or the request failed; 2 the command line or its file is wrong;
130 interrupted by Ctrl-C, 143 by SIGTERM.
"""


def main() -> None:
    """Run `clipwise` with the process's arguments, and exit with its code."""
    import sys

    from clipwise.cli.program import run

    sys.exit(run(sys.argv[1:]))
