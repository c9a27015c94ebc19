"""Scripts behind the data, the models, the notebooks and the measurements; run as modules."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter


def command_line(doc: str) -> ArgumentParser:
    """A parser whose help is a script's docstring, as it is written."""
    return ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
