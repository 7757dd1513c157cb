"""A call that takes long goes in, what it returns comes out, made on a thread while the event loop goes on; the only
place that tells the interpreter how to share its time.

The interpreter runs one thread at a time, and gives way when it is asked and an interval is over: each time the event
loop has waited for a socket, it waits for that too. So the interval is shorter meanwhile. A full collection does not
give way at all: with a big directory half made it stops everything for 100 ms and more. So there is none meanwhile, and
what a long call has made is left out of all later ones (`gc.freeze`): it stays for long, and goes by its reference
count.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

SWITCH_S: Final = 0.000_5
LONG_S: Final = 0.1
"""What a shorter call has made is not worth freezing: each freeze keeps what cyclic garbage there is at that time."""
P_ = ParamSpec("P_")
T_ = TypeVar("T_")


async def beside(call: Callable[P_, T_], *args: P_.args, **kwargs: P_.kwargs) -> T_:
    """What `call` returns or raises. It must not touch what the event loop changes meanwhile."""
    began_s, collecting, switch_s = time.monotonic(), gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    finally:
        sys.setswitchinterval(switch_s)
        if collecting:
            gc.enable()
        if time.monotonic() - began_s > LONG_S:
            gc.freeze()
