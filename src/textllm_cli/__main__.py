"""Where a process of the command line begins."""

import signal


def main() -> None:
    """Run the command line; while it is being loaded, Ctrl-C ends it without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from textllm_cli.main import main as run

    run()


if __name__ == "__main__":
    main()
