"""Where the parts of a comparison are computed: processes of this machine, or a cluster, through joblib."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from joblib import parallel_config

from fewshot_nlp.errors import FewShotError

Where = Literal["loky", "dask", "ray"]


@contextmanager
def pool(backend: Where, n_jobs: int) -> Iterator[int]:
    """Context in which `joblib.Parallel` computes on a backend; yields the number of its processes.

    Args:
        backend: "loky", processes of this machine; "dask" or "ray", the cluster that this process is connected to or
            that the environment names (``DASK_SCHEDULER_ADDRESS``, ``RAY_ADDRESS``), else a local one.
        n_jobs: processes, of this machine or of the local cluster.

    Raises:
        FewShotError: there is no such backend, or its package is not installed.
    """
    try:
        if backend == "dask":
            with _dask(n_jobs) as number, parallel_config("dask", n_jobs=-1):
                yield number
        elif backend == "ray":
            with parallel_config("ray", n_jobs=(number := _ray(n_jobs))):
                yield number
        elif backend == "loky":
            with parallel_config("loky", n_jobs=n_jobs):
                yield n_jobs
        else:
            raise FewShotError(f"There is no backend {backend!r}. Known: {', '.join(get_args(Where))}.")
    except ImportError as error:
        raise FewShotError(
            f'The backend {backend} is not installed: pip install "fewshot_nlp[{backend}]" ({error}).'
        ) from error


@contextmanager
def _dask(n_jobs: int) -> Iterator[int]:
    import dask
    from distributed import Client, get_client

    try:
        yield len(get_client().scheduler_info()["workers"]) or n_jobs
        return
    except ValueError:  # this process is connected to none
        own = (
            {}
            if dask.config.get("scheduler-address", None)
            else {"n_workers": n_jobs, "threads_per_worker": 1}
        )
    with Client(**own, dashboard_address=None) as client:
        yield len(client.scheduler_info()["workers"]) or n_jobs


def _ray(n_jobs: int) -> int:
    import ray
    from ray.util.joblib import register_ray

    if not ray.is_initialized():
        import os

        ray.init(**({} if os.environ.get("RAY_ADDRESS") else {"num_cpus": n_jobs}), include_dashboard=False)
    register_ray()
    return int(ray.cluster_resources().get("CPU", n_jobs))
