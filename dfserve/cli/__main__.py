"""Owns `python -m dfserve.cli`, for where the `dfserve` script is not on the path."""

from dfserve.cli import main

main()
