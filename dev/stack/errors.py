"""The errors of the local stack, which its command line prints without a traceback."""


class StackError(RuntimeError):
    """Something of the local stack could not be started, reached or stopped; the text says what to do about it."""


class StackCancelledError(StackError):
    """Starting was given up because another part failed or the user pressed Ctrl-C."""
