"""The protocol of `cargo xtask bench`, for scripts that time one pass through a network.

For every line on stdin one pass, answered by `WALL CPU` in seconds; at the end of stdin `peak KIB`, the process's largest
resident memory. `examples/passes/mod.rs` is the other side.
"""

import sys
import time


def serve(warm_up, run):
    for _ in range(warm_up):
        run()
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
    with open("/proc/self/status") as status:
        print("peak", next(line.split()[1] for line in status if line.startswith("VmHWM")))
