"""Where a process of the command line begins."""

import os
import signal
import sys


def main() -> None:
    """Run the command line; while it is being loaded, Ctrl-C ends it without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _replace_closed_streams()
    from textllm_cli.main import main as run

    run()


def _replace_closed_streams() -> None:
    """Some start us with stdin, stdout or stderr closed: nothing comes from there then, and what is said is lost.

    Python has None in their places. And the next file or socket would get the number, and be written into.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            os.set_inheritable(number, True)  # for the processes that we start
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - until the end


if __name__ == "__main__":
    main()
