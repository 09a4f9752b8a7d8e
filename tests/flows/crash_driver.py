"""Kill a run at a given file operation, in a child process; used by test_53_crash.py.

Usage: ``crash_driver.py SCENARIO ROOT FIRST STEP LIMIT``. For the numbers FIRST, FIRST + STEP, ...
a forked child runs the self-check stages and kills itself with SIGKILL just before its n-th change
of the file system below ROOT. The state it leaves is verified, the run is repeated, and the outcome
is compared with that of an undisturbed run. In the scenario ``repair`` it is the repair of a
damaged root that is killed and repeated. Prints the number of points tried.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Collection
from pathlib import Path

from bperp.flows.engine import RunSetup, SerialExecutor, StageContext, run_stages
from bperp.flows.repair import repair_store
from bperp.flows.selfcheck import PATTERN, STAGES, SUM
from bperp.stores.cube import CubeStore
from bperp.stores.locks import read_owner
from bperp.stores.receipts import Ledger
from bperp.stores.verify import verify_store

CHANGES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
SMALL = {"lines": 64, "samples": 64, "chunk": 64, "delay_s": 0.0}
BEFORE = {
    "first": None,
    "append": {**SMALL, "dates": ["2020-01-01"]},
    "insert": {**SMALL, "dates": ["2020-01-01", "2020-01-25"]},
    "rechunk": {**SMALL, "dates": ["2020-01-01", "2020-01-13"], "chunk": 32},
    "repair": {**SMALL, "dates": ["2020-01-01", "2020-01-13"]},
}
AFTER = {
    "first": {**SMALL, "dates": ["2020-01-01"]},
    "append": {**SMALL, "dates": ["2020-01-01", "2020-01-13"]},
    "insert": {**SMALL, "dates": ["2020-01-01", "2020-01-13", "2020-01-25"]},
    "rechunk": {**SMALL, "dates": ["2020-01-01", "2020-01-13"]},
    "repair": {**SMALL, "dates": ["2020-01-01", "2020-01-13"]},
}
DAMAGED = (f"{PATTERN}/number/c/1/0/0", f"{SUM}/date/c/0", f"{SUM}/sum/zarr.json")


def run(root: str, options) -> int:
    context = StageContext(options={"selfcheck": options})
    return run_stages(STAGES, context, CubeStore(root), SerialExecutor()).tasks_run


def repair(root: str, options) -> int:
    context = StageContext(options={"selfcheck": options})
    setup = RunSetup(STAGES, context, CubeStore(root))
    return repair_store(setup, SerialExecutor()).tasks_run


def damage(root: str) -> None:
    """Turn over a bit of a chunk, a coordinate and a description."""
    for name in DAMAGED:
        path = Path(root, name)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)


def in_child(function) -> int:
    """Fork before Zarr has started threads, and return the exit status."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def kill_at(number: int, root: str) -> None:
    """Have the process die before its n-th change below ``root``."""
    count = [0]

    def watch(event: str, arguments) -> None:
        changes = event in CHANGES or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_WRONLY
        )
        if changes and root in str(arguments[0]):
            count[0] += 1
            if count[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def digests(root: str) -> dict[str, bytes]:
    base = Path(root)
    found = [*base.glob("markers/*"), *base.glob("selfcheck/**/*")]
    return {str(p.relative_to(base)): p.read_bytes() for p in found if p.is_file()}


def check_wreck(root: str, clean: str, damaged: Collection[str]) -> None:
    """What is vouched for must be true, or seen not to be; the lock must be that of a corpse."""
    store = CubeStore(root)
    owner = read_owner(store.objects)
    assert owner is None or owner.is_dead(), owner
    found = verify_store(store)
    left = [name for name in damaged if read(root, name) != read(clean, name)]
    if left:
        assert not found.is_sound, left
    elif not damaged:
        assert found.faults == {}, Ledger(store.objects).markers()


def read(root: str, name: str) -> bytes:
    return Path(root, name).read_bytes()


def finish(root: str, work, options) -> None:
    """Do the work again, to the end; what repair has withdrawn a run completes."""
    work(root, options)
    run(root, options)


def main() -> None:
    scenario, base, first, step, limit = sys.argv[1:]
    clean = f"{base}/clean"
    assert in_child(lambda: run(clean, AFTER[scenario])) == 0
    expected, points = digests(clean), 0
    work, damaged = (repair, DAMAGED) if scenario == "repair" else (run, ())
    for number in range(int(first), int(limit), int(step)):
        root = f"{base}/{number}"
        if BEFORE[scenario] is not None:
            assert in_child(lambda root=root: run(root, BEFORE[scenario])) == 0
        if damaged:
            damage(root)

        def die(root=root, number=number) -> None:
            kill_at(number, root)
            work(root, AFTER[scenario])

        status = in_child(die)
        if status == 0:
            break
        assert os.WIFSIGNALED(status), f"{scenario} {number}: failed instead of dying"
        points += 1
        wreck = in_child(lambda root=root: check_wreck(root, clean, damaged))
        assert wreck == 0, f"{scenario} {number}: untrue"
        assert in_child(lambda root=root: finish(root, work, AFTER[scenario])) == 0
        found = digests(root)
        extra = {name for name in found if name not in expected and ".partial" not in name}
        assert not extra, f"{scenario} {number}: {sorted(extra)[:3]}"
        for name, data in expected.items():
            assert found.get(name) == data, f"{scenario} {number}: {name} differs"
    print(points)


if __name__ == "__main__":
    main()
