"""``python -m tvmext`` is the command line."""

from tvmext.cli import main

main()
