"""`python -m ensemble_kit` is the command line."""

from ensemble_kit.cli import main

main()
