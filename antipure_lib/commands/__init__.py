"""The command line: parse, check, call, print.

Help and errors must come at once, so the modules with `add_command` import what is heavy where they use it.
"""
