"""The examples of a module's docstring, executed."""

import doctest
from types import ModuleType


def run_example(module: ModuleType) -> None:
    """Raises AssertionError where the module's docstring promises something else than what happens."""
    test = doctest.DocTestParser().get_doctest(module.__doc__, {}, module.__name__, module.__file__, 0)
    failed, tried = doctest.DocTestRunner().run(test)
    assert failed == 0 and tried > 5
