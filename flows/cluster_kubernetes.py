"""A scheduler and workers in pods, made by the Dask operator from one ``DaskCluster`` resource.

The cluster class of dask-kubernetes talks to its scheduler in the clear, so the resource is written
and watched here; the operator does the rest. Pods find their certificates in a Secret.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

from bperp.flows.cluster_faults import nothing_started, refused
from bperp.flows.cluster_tls import Endpoint, TlsFiles
from bperp.flows.clusters import (
    SCHEDULER_SETTINGS,
    SINGLE_THREADED,
    WORKER_PRELOAD,
    WORKER_SETTINGS,
    settings_as_environment,
)
from bperp.flows.interruption import raise_if_requested

if TYPE_CHECKING:
    from bperp.flows.config_sections import KubernetesOptions

__all__ = ["KubernetesPods", "cluster_resource"]

POD_BASELINE_BYTES = 300_000_000
"""What a pod holds besides its worker: the process that starts and watches it."""
_SCHEDULER_BYTES = 2_000_000_000
_PORT, _HEALTH_PORT = 8786, 8787
_MOUNT = "/etc/bperp/tls"
_TLS_ARGUMENTS = [
    "--tls-ca-file",
    f"{_MOUNT}/ca.crt",
    "--tls-cert",
    f"{_MOUNT}/tls.crt",
    "--tls-key",
    f"{_MOUNT}/tls.key",
]
_POLL_S = 0.5


class KubernetesPods:
    """A cluster in pods, removed with all its pods at the end.

    Parameters
    ----------
    options : KubernetesOptions
        Namespace, image, Secrets, volume.
    workers : int
        Number of worker pods.
    memory_limit_bytes : int
        Memory of each worker.
    tls : TlsFiles
        Certificates of this side, signed by the same authority as those in the Secret.
    patience_s : float
        How long to wait for the pod of the scheduler.

    Raises
    ------
    StorageError
        R816 without dask-kubernetes, R817 when Kubernetes refuses or starts nothing.
    """

    def __init__(
        self,
        options: KubernetesOptions,
        workers: int,
        memory_limit_bytes: int,
        tls: TlsFiles,
        patience_s: float,
    ) -> None:
        kubernetes, name = _client_library(), f"bperp-{uuid.uuid4().hex[:10]}"
        faults: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError)
        faults += _errors_of(kubernetes)
        resource = cluster_resource(name, options, workers, memory_limit_bytes)
        with contextlib.ExitStack() as started:
            try:
                kind = kubernetes.objects.new_class(
                    "DaskCluster", "kubernetes.dask.org/v1", asyncio=False
                )
                api = kubernetes.api(namespace=options.namespace)
                cluster = kind(resource, namespace=options.namespace, api=api)
                cluster.create()
                started.callback(_delete, cluster)
                service = _wait_for_service(kubernetes, f"{name}-scheduler", api, patience_s)
                address = _reach(service, started)
            except faults as error:
                remedy = "check the Dask operator, your rights and compute.cluster.kubernetes"
                raise refused("Kubernetes", error, remedy) from error
            self._endpoint = Endpoint(address, tls)
            self._closing = started.pop_all()

    @property
    def endpoint(self) -> Endpoint:
        """Where its scheduler is."""
        return self._endpoint

    def mend(self) -> None:
        """Do nothing: Kubernetes itself starts pods again."""

    def close(self) -> None:
        """Delete the resource; the operator removes its pods."""
        self._closing.close()


def cluster_resource(
    name: str, options: KubernetesOptions, workers: int, memory_limit_bytes: int
) -> dict[str, Any]:
    """Return the ``DaskCluster`` resource.

    Parameters
    ----------
    name : str
        Name of the resource.
    options : KubernetesOptions
        Namespace, image, Secrets, volume.
    workers : int
        Number of worker pods.
    memory_limit_bytes : int
        Memory of each worker.

    Returns
    -------
    dict
        Plain JSON.
    """
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {
            "name": name,
            "namespace": options.namespace,
            "labels": {"app.kubernetes.io/managed-by": "bperp"},
        },
        "spec": {
            "worker": {
                "replicas": workers,
                "spec": _pod(options, _worker(name, options, memory_limit_bytes)),
            },
            "scheduler": {
                "spec": _pod(options, _scheduler(options)),
                "service": {
                    "type": "ClusterIP",
                    "selector": {
                        "dask.org/cluster-name": name,
                        "dask.org/component": "scheduler",
                    },
                    "ports": [_port("tcp-comm", _PORT, targetPort="tcp-comm")],
                },
            },
        },
    }


def _pod(options: KubernetesOptions, container: dict[str, Any]) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": "certificates", "secret": {"secretName": options.certificates}}
    ]
    if options.volume_claim:
        claim = {"claimName": options.volume_claim}
        volumes.append({"name": "data", "persistentVolumeClaim": claim})
    account = {"serviceAccountName": options.service_account} if options.service_account else {}
    return {
        "containers": [container],
        "volumes": volumes,
        "automountServiceAccountToken": bool(options.service_account),
        **account,
    }


def _scheduler(options: KubernetesOptions) -> dict[str, Any]:
    settings = {
        **SCHEDULER_SETTINGS,
        "distributed.comm.require-encryption": True,
        # Pods are asked over HTTP whether they live: that page, and no other.
        "distributed.scheduler.http.routes": ["distributed.http.health"],
    }
    health = {"httpGet": {"port": "http-health", "path": "/health"}, "periodSeconds": 5}
    return {
        **_container("scheduler", options, _SCHEDULER_BYTES, settings_as_environment(settings)),
        "command": ["dask", "scheduler"],
        "args": [
            "--host",
            "tls://0.0.0.0",
            "--port",
            str(_PORT),
            "--no-dashboard",
            "--dashboard-address",
            f"0.0.0.0:{_HEALTH_PORT}",
            *_TLS_ARGUMENTS,
        ],
        "ports": [
            _port("tcp-comm", containerPort=_PORT),
            _port("http-health", containerPort=_HEALTH_PORT),
        ],
        "readinessProbe": health,
        "livenessProbe": {**health, "initialDelaySeconds": 30, "failureThreshold": 12},
    }


def _worker(name: str, options: KubernetesOptions, memory: int) -> dict[str, Any]:
    settings = {**WORKER_SETTINGS, "distributed.comm.require-encryption": True}
    environment = {
        **SINGLE_THREADED,
        **settings_as_environment(settings),
        # Given here because the operator would write tcp://.
        "DASK_SCHEDULER_ADDRESS": f"tls://{name}-scheduler.{options.namespace}.svc:{_PORT}",
    }
    return {
        **_container("worker", options, memory + POD_BASELINE_BYTES, environment),
        "command": ["dask", "worker"],
        "args": [
            "--name",
            "$(DASK_WORKER_NAME)",
            "--nthreads",
            "1",
            "--memory-limit",
            str(memory),
            "--death-timeout",
            "60",
            "--preload",
            WORKER_PRELOAD,
            "--no-dashboard",
            # Workers serve HTTP even without a dashboard.
            "--dashboard-address",
            "127.0.0.1:0",
            *_TLS_ARGUMENTS,
        ],
    }


def _container(
    name: str, options: KubernetesOptions, memory: int, environment: dict[str, str]
) -> dict[str, Any]:
    mounts = [{"name": "certificates", "mountPath": _MOUNT, "readOnly": True}]
    if options.volume_claim:
        mounts.append({"name": "data", "mountPath": options.volume_path, "readOnly": False})
    needed = {"cpu": "1", "memory": str(memory)}
    secrets = [{"secretRef": {"name": options.environment}}] if options.environment else []
    return {
        "name": name,
        "image": options.image,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "envFrom": secrets,
        "resources": {"requests": needed, "limits": needed},
        "volumeMounts": mounts,
        "securityContext": {"allowPrivilegeEscalation": False},
    }


def _port(name: str, port: int | None = None, **fields: Any) -> dict[str, Any]:
    return {"name": name, "protocol": "TCP", **({"port": port} if port else {}), **fields}


def _client_library() -> Any:
    try:
        return importlib.import_module("kr8s")
    except ImportError as error:
        raise nothing_started("dask-kubernetes", "pip install 'bperp[kubernetes]'") from error


def _errors_of(kubernetes: Any) -> tuple[type[Exception], ...]:
    names = ("ServerError", "NotFoundError", "APITimeoutError", "ConnectionClosedError")
    own = tuple(getattr(kubernetes, name) for name in names)
    return (*own, importlib.import_module("httpx").HTTPError)


def _wait_for_service(kubernetes: Any, name: str, api: Any, patience_s: float) -> Any:
    """Return the service of a scheduler whose pod is ready."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        raise_if_requested()
        with contextlib.suppress(kubernetes.NotFoundError):
            service = kubernetes.objects.Service.get(
                name, namespace=api.namespace, api=api, timeout=1
            )
            if service.ready_pods():
                return service
        time.sleep(_POLL_S)
    raise TimeoutError(f"the scheduler did not start within {patience_s:.0f} s")


def _reach(service: Any, started: contextlib.ExitStack) -> str:
    """Return an address of the service: inside the cluster its own, else a port forwarded here."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return f"tls://{service.spec.clusterIP}:{service.spec.ports[0].port}"
    return f"tls://127.0.0.1:{started.enter_context(service.portforward(_PORT, 'auto'))}"


def _delete(cluster: Any) -> None:
    with contextlib.suppress(Exception):
        cluster.delete()
