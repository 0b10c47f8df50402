"""Starts scripts for the tests without importing torch anew for each of them.

`import torch` takes a second or two, and the tests run a hundred scripts. So one
process imports it once and then forks: each script runs in a child of its own, as
"__main__", with its own folder, output and exit code. No thread is started before the
fork.

One line of JSON comes in for each script, its exit code goes out.
"""
import gc
import json
import os
import runpy
import sys
import traceback

import numpy  # noqa: F401
import regex  # noqa: F401
import torch._dynamo  # noqa: F401  (what every optimizer imports at its first use)
import tqdm  # noqa: F401


def become(order):
    """In the child: be the script that was ordered; never returns."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for stream, name in ((0, os.devnull), (1, order["stdout"]), (2, order["stderr"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, stream)
        os.close(file)
    # Python's own idea of the three is as old as the parent: begin anew.
    sys.stdin, sys.stdout = open(0), open(1, "w")
    sys.stderr = open(2, "w", buffering=1)
    sys.argv = [order["script"], *order["arguments"]]
    sys.path[0] = order["folder"]
    # An absolute path, because worker processes look for the script by it.
    path = os.path.join(order["folder"], order["script"])
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as stopped:  # the rest is what Python does at the end of a script
        if stopped.code is None or isinstance(stopped.code, int):
            leave(stopped.code or 0)
        print(stopped.code, file=sys.stderr)
        leave(1)
    except BaseException:
        traceback.print_exc()
        leave(1)
    leave(0)


def leave(code):
    """End the process at once: taking torch apart takes longer than a script."""
    sys.stdout.flush()
    os._exit(code)


def main():
    orders, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    gc.freeze()  # children need not search torch for garbage
    for line in iter(orders.readline, ""):
        child = os.fork()
        if child == 0:
            become(json.loads(line))
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
