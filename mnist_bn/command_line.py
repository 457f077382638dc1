"""What the commands share."""

import argparse

from mnist_bn.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Raises UsageError, one line, where argparse would print its usage and exit."""

    def error(self, message: str) -> None:
        raise UsageError(f"{message} (see --help)")
