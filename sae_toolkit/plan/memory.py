"""How much memory this process has, had at most, and could still get."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of containers."""


def resident_bytes() -> int:
    """Main memory of this process now; where the system does not tell, the most it ever had."""
    status = linux_status()
    return status["VmRSS"] if status else highest_ever()


def peak_bytes() -> int:
    """The most main memory this process had since `reset_peaks` (since it began, where that is not permitted)."""
    status = linux_status()
    return status["VmHWM"] if status else highest_ever()


def highest_ever() -> int:
    """The largest resident size of this process; macOS counts in bytes, others in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def linux_status() -> dict[str, int]:
    """VmRSS and VmHWM in bytes; nothing on other systems."""
    path = Path("/proc/self/status")
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text(encoding="ascii", errors="replace").splitlines())
    return {name: int(value.split()[0]) * 1024 for name, _, value in lines if name in ("VmRSS", "VmHWM")}


def reset_peaks() -> None:
    """From here on the peaks count anew."""
    with suppress(OSError):  # no Linux, or not permitted: the peak then is that since the process began
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if cuda_in_use():
        torch.cuda.reset_peak_memory_stats()


def peaks() -> dict[str, int]:
    """Peak bytes by device since `reset_peaks`: "cpu" and, where CUDA is in use, "cuda"."""
    found = {"cpu": peak_bytes()}
    if cuda_in_use():
        found["cuda"] = torch.cuda.max_memory_allocated()
    return found


def cuda_in_use() -> bool:
    """Whether this process has begun to use a GPU."""
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def available_bytes(device: str) -> int:
    """What this process may have in all on a device: what it has already, and what is free."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) + torch.cuda.memory_reserved()
    free = [free_main_memory(), *container_room(Path("/proc/self/cgroup"), CGROUPS)]
    return resident_bytes() + min(free)


def free_main_memory() -> int:
    """Memory that can be had without swapping (Linux); elsewhere all there is."""
    path = Path("/proc/meminfo")
    if path.exists():
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def container_room(membership: Path, root: Path) -> list[int]:
    """What the limits of this process's control groups (of Linux, versions 1 and 2) leave; empty without limits."""
    if not membership.exists():
        return []
    room = []
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, kinds, inside = line.split(":", 2)
        if kinds == "":
            names, base = ("memory.max", "memory.current", "inactive_file"), root
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base = root / "memory"
        else:
            continue
        own = base / inside.strip("/")
        for folder in (own, *own.parents):
            if (folder / names[0]).exists():
                room += room_in(folder, *names)
            if folder == base:
                break
    return room


def room_in(folder: Path, limit_name: str, usage_name: str, reclaimable_name: str) -> list[int]:
    """Limit minus usage of one control group, of which unused file cache does not count; empty without a limit."""
    limit = (folder / limit_name).read_text(encoding="ascii").strip()
    if limit == "max":
        return []
    statistics = [line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()]
    reclaimable = sum(int(value) for name, value in statistics if name == reclaimable_name)
    return [int(limit) - int((folder / usage_name).read_text(encoding="ascii")) + reclaimable]
