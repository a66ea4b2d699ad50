"""Where the command `dyson` begins, before anything is imported.

Importing takes seconds, most of them in jax. What may happen to the command meanwhile is answered
here, which nothing inside the package could do: an interrupt, and an environment that the imported
packages refuse.
"""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command line of this process and return its exit code."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupted)
    # Figures go to files: it does not matter which window system is asked for.
    os.environ["MPLBACKEND"] = "agg"
    try:
        from dyson.app import cli
    except ValueError as error:
        print(f"dyson: the environment is not valid: {error}", file=sys.stderr)
        return 2
    return cli.main()


def _interrupted(number: int, frame: FrameType | None) -> None:
    os.write(2, b"dyson: interrupted; nothing was started\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
