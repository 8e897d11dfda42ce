"""A rank that computes nothing: it writes a record, or fails in the way that its check's name says."""

import os
import signal
import sys
import time
from pathlib import Path

from pangu_alpha.cluster_check.records import missing_ranks, write_record
from pangu_alpha.processes.belonging import end_with_launcher

out, check, measurement, folder, device, rank = sys.argv[1:]
end_with_launcher()
if check == "dies" and rank == "1":
    print("Traceback (most recent call last):\nMemoryError: planted", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if check == "hangs" and rank == "1":
    time.sleep(600)
if check == "leaves" and rank == "1":
    write_record(Path(folder), int(rank), {"rank": int(rank), "device": device})
    while missing_ranks(Path(folder), (0,)):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGSEGV)
if check != "silent" or rank != "1":
    write_record(Path(folder), int(rank), {"rank": int(rank), "device": device})
