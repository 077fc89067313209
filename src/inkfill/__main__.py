"""``python -m inkfill``, which is what torchrun starts."""

from inkfill.cli import main

main()
