"""AntiPure in small pieces: protect photos, purify them, customize a model on them, judge what comes out.

Start in `core`: the paper's method in six files. The names that `antipure_lib` itself offers are listed in
`__init__.pyi`. A module is imported when one of its names is first used, so the command line starts quickly.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
