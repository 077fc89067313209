"""``python -m inkfill``, which is what torchrun starts."""

from inkfill.app.cli import main

main()
