"""Stand-in."""


class OtherKind(ValueError):
    def __init__(self, message, loader=""):
        super().__init__(message)
        self.loader = loader
