"""The server's time limits, in one place.

What limits how long a request waits, in the order in which it meets the limits:

1. The client's time-out: ``timeout=`` of ``vlclip.Client``, which also reaches Triton as gRPC's deadline.
2. Admission. On the embedded server, the first step of a pipeline refuses a request at once if the work ahead of it
   would take longer than ``max_wait_seconds`` of serving/profiles/embedded/{decode,tokenize}.pbtxt: see
   serving/admission.py. In NVIDIA's container, Triton does this by ``max_queue_size`` of serving/profiles/ngc.
3. A model process that died, or was found to hang within HANG_SECONDS, is replaced, and its requests end with an
   error: see watch.py.
4. When the server stops, DRAIN_SECONDS: see drain.py.
"""

from __future__ import annotations

LOAD_SECONDS = 300.0
"""For loading models: one or two gigabytes, on a busy machine."""
FIRST_ANSWER_SECONDS = 60.0
"""For the first answer of each pipeline after a start. A large detector on a CPU is slow, and nothing is warm yet."""
MARGIN_SECONDS = 10.0
"""For loading a model again, or for a later answer, in addition to twice the time that the start took."""
ANSWER_SECONDS = 10.0
"""For the answer to any other call of Triton's HTTP API."""

DRAIN_SECONDS = 30
"""For requests in flight when a model or the server stops."""
LINGER_SECONDS = 2
"""For the last responses when the server stops and no model is loaded any more."""

WATCH_SECONDS = 0.2
"""Between two looks at the processes."""
STOPPED_SECONDS = 3.0
"""For a process that was stopped by a signal to continue, before it is killed."""
HANG_SECONDS = 20.0
"""For a process that has requests and does nothing, before it is killed."""
RESTART_SECONDS, LONGEST_RESTART_SECONDS = 1.0, 60.0
"""Before Triton is started again after a start that failed: at first, and at most."""
FIRST_STARTS = 3
"""How often Triton is started before it has ever answered, if it crashes each time."""
KILL_SECONDS = 10.0
"""For killed processes to end, on a busy machine."""
