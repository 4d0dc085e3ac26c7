"""Everything a developer types: set up the real host once, then run the demo, the tests, ...

    python scripts/dev.py demo | test [--fast] | serve | bench NAME | lint | schema | soak

Only the standard library is used. The environment lives outside the checkout (devtools/pins.py
says where) and is made by the first command of any kind.
"""

import sys

# before anything that an older Python could not even parse
if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit(
        "[dev] Python %d.%d is too old: FlowSearch and ComfyUI need 3.10 to 3.14."  # noqa: UP031
        % sys.version_info[:2]
    )

from devtools.commands import main

if __name__ == "__main__":
    sys.exit(main())
