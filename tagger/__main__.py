"""`python -m tagger`."""

from tagger.cli.main import main

main()
