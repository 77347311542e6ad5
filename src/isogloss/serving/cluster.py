"""Work spread over the processes of a Ray cluster; the one file that knows Ray.

    items ── Ray Data: a pool of workers, each loads its model once ── results, as they are done

Ray sends functions, items and results between its processes, and does again what a killed one was at.
"""

import importlib
import logging
import os
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from isogloss.errors import IsoglossError

LOCAL, AUTO = "local", "auto"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Its remarks on standard error and, about workers, on standard output; its own logs have them.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
"""Of Ray, which reads them when it is imported."""
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
"""Of a local cluster: it keeps to the loopback interface, as on other systems, and its workers do not stand back."""
TRIES = 3
"""How often an item is begun whose worker is killed each time."""
STORE_BYTES = 256 << 20
"""Of a local cluster's shared memory, through which only names and results go."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def require_ray(address: str) -> None:
    """Raise IsoglossError where Ray is not installed, or nobody listens at the address: Ray would try for minutes."""
    for name, value in (SETTINGS | (ALONE if address == LOCAL else {})).items():
        os.environ.setdefault(name, value)
    try:
        importlib.import_module("ray.data")
    except ImportError as error:
        raise IsoglossError(f"--ray needs Ray ({error}): pip install isogloss[ray].") from None
    if address in (LOCAL, AUTO):
        return
    if address.startswith("ray://"):
        raise IsoglossError(
            f"Ray Data does not run through {address}: run the command on a machine of the cluster with --ray auto, "
            "or submit it there with `ray job submit`."
        )
    host, _, port = address.rpartition(":")
    try:
        if not host:
            raise ValueError
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError):
        raise IsoglossError(
            f"No Ray cluster answers at {address}; give --ray local, auto or the HOST:PORT that `ray start` shows."
        ) from None


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A Ray cluster while the block runs; first see `require_ray`.

    address: `local` starts one of this machine's cores, which listens to nobody else; `auto` is the one that this
    machine is part of; else HOST:PORT of one that it is part of. Raises IsoglossError where Ray does not let us in.
    """
    import ray

    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES} if address == LOCAL else {}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except Exception as error:  # of many kinds, also where the machine is too busy to start one
        raise IsoglossError(f"Ray does not let us in at {address}: {_reason(error.__cause__ or error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def spread(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], device: str
) -> Iterator[tuple[int, Result | None]]:
    """The number of each item and what was made of it, as they are done, by the cluster that is connected.

    make: called once in each worker. device: with `cpu` each worker has a core, else a GPU where the cluster has any.
    None is made of an item whose worker is killed every time; what `make` or its function raise is raised here.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    if not items:
        return
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_fallback_to_arrow_object_ext_type = True
    resources = ray.cluster_resources()
    gpus = 0 if device == "cpu" else int(resources.get("GPU", 0))
    workers = min(len(items), gpus or max(1, int(resources.get("CPU", 1))))
    parcels = [_Parcel(number, item) for number, item in enumerate(items)]
    done = ray.data.from_items(parcels, override_num_blocks=len(parcels)).map_batches(
        _Worker,
        fn_constructor_args=(make, ray.remote(num_cpus=0)(_Attempts).remote()),
        batch_size=1,
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        num_gpus=1 if gpus else None,
    )
    try:
        for row in done.iter_rows():
            parcel = row["item"]
            if isinstance(parcel.content, Exception):
                raise parcel.content
            yield parcel.number, parcel.content
    except ray.exceptions.RayError as error:
        said = f"The Ray cluster broke off: {_reason(error)}; its machines need this version of isogloss."
        raise IsoglossError(said) from error


@dataclass(frozen=True)
class _Parcel(Generic[Item]):
    """What goes through Ray's tables as it is: bare lists and numbers they would take for columns."""

    number: int
    content: Item


class _Attempts:
    """Counts how often an item was begun, in a process that outlives those of workers: Ray would try for ever."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        self._begun[number] += 1
        return self._begun[number]


class _Worker:
    """Lives in a process of its own, with what it has loaded, until there is no more to do."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], attempts: Any):
        self._make, self._attempts = make, attempts

    @cached_property
    def _work(self) -> Callable[[Any], Any]:
        return self._make()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[_Parcel[Any]]]:
        import ray

        (parcel,) = batch["item"]
        made: Any = None
        try:
            if ray.get(self._attempts.begin.remote(parcel.number)) <= TRIES:
                made = self._work(parcel.content)
        except Exception as error:
            error.add_note(traceback.format_exc())
            made = error
        return {"item": [_Parcel(parcel.number, made)]}


def _reason(error: BaseException) -> str:
    """The last line of what Ray says, which is often a whole traceback."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
