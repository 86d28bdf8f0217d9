"""`python -m examples.orders`."""

import sys

from .cli import main, parser

if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
