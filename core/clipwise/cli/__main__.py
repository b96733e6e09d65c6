"""`python -m clipwise.cli`: the same as `clipwise`."""

from clipwise.cli import main

main()
