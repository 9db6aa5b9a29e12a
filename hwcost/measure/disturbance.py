"""What took the CPU from this process while it measured, from the counters that Linux keeps."""

from __future__ import annotations

from dataclasses import dataclass
from glob import glob

from hwcost.measure.machine import TICK, allowed_cpus, read_lines

_SLICE = 3e-3  # s that a thread is taken to wait after each involuntary switch: Linux's base time slice on 8 CPUs


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What happened to this process between two moments."""

    steal: float  # s that the hypervisor took from the CPUs that this process may use
    switches: int  # involuntary context switches
    waited: float  # s that threads were ready to run and had no CPU

    @property
    def any(self) -> bool:
        """Whether anything happened at all."""
        return bool(self.steal or self.switches or self.waited > 1e-4)


class Watch:
    """Counts disturbances from when it is made until `stop`.

    Waits are those of the thread that makes it, or with `all_threads` the sum over all threads of the process: an
    operator that several threads compute ends with the last of them, so that each one's wait delays it.
    """

    def __init__(self, *, all_threads: bool = False) -> None:
        self._tasks = "/proc/self/task/*" if all_threads else "/proc/thread-self"
        self._start = self._read()

    def stop(self) -> Disturbance:
        """The disturbance since the watch was made.

        Where the system does not count waiting times, each involuntary switch counts as a wait of one time slice.
        """
        steal, switches, waited = self._read()
        steal_before, switches_before, waited_before = self._start
        switches -= switches_before
        wait = switches * _SLICE if waited is None or waited_before is None else waited - waited_before
        return Disturbance(steal - steal_before, switches, wait)

    def _read(self) -> tuple[float, int, float | None]:
        return _steal(), _switches(), _waited(self._tasks)


def _steal() -> float:
    """Seconds since boot that the hypervisor took from the CPUs that this process may use."""
    cpus = {f"cpu{c}" for c in allowed_cpus()}
    fields = (line.split() for line in read_lines("/proc/stat"))
    return sum(int(f[8]) * TICK for f in fields if f and f[0] in cpus and len(f) > 8)


def _switches() -> int:
    """Involuntary context switches of this process since it began."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _waited(tasks: str) -> float | None:
    """Seconds that threads waited for a CPU, second field of schedstat; None where the system does not count them."""
    read = [lines for task in glob(tasks) if (lines := read_lines(f"{task}/schedstat"))]  # a thread may end meanwhile
    return sum(int(lines[0].split()[1]) * 1e-9 for lines in read) if read else None
