"""``python -m remime.cli`` is the program ``remime``."""

from remime.cli import main

main()
