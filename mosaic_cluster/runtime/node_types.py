"""Which kinds of nodes a Ray cluster's autoscaler could start."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import psutil
import ray
import yaml
from ray._private.state import state
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.exceptions import RayError

from mosaic_cluster.inventory import node_types
from mosaic_cluster.placement import NodeType

HEAD_RESOURCE = "node:__internal_head__"
CONFIG_OPTION = "--autoscaling-config="
READ_SECONDS = 60.0
"""The autoscaler's config is read again so often: it may be changed while the cluster runs."""

WAIT_SECONDS = 20.0
UNLIMITED = 100_000
MONITOR = "/monitor.py"
DEAD, DRAINING = 2, 4
"""NodeStatus of Ray's autoscaler protocol: such nodes make room for others of their kind."""


@ray.remote(num_cpus=0, resources={HEAD_RESOURCE: 0.001}, max_retries=0)  # type: ignore[untyped-decorator]
def _config_on_head(gcs_address: str) -> Any:
    """The config that the autoscaler beside the head was started with; ``None`` if it has none."""
    return autoscaling_config(gcs_address)[1]


def autoscaling_config(gcs_address: str) -> tuple[bool, Any]:
    """The config of the autoscaler of the cluster at that address, as far as this machine tells.

    Ray tells nobody which kinds of nodes its autoscaler knows; they stand in the file that it was given.

    Returns:
        Whether the autoscaler's process is seen here: that of a cluster that does not grow runs, too. And its config;
        ``None``: it was given none that can be read.
    """
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if f"--gcs-address={gcs_address}" not in command or not any(part.endswith(MONITOR) for part in command):
            continue
        given = [part.removeprefix(CONFIG_OPTION) for part in command if part.startswith(CONFIG_OPTION)]
        return True, _read_config(given[0]) if given else None
    return False, None


def _read_config(path: str) -> Any:
    try:
        with open(path) as file:
            return yaml.safe_load(file)
    except (OSError, yaml.YAMLError):
        return None


class LaunchableTypes:
    """Kinds of nodes that the connected cluster could still start.

    Args:
        on_head: this process runs beside the cluster's head, where the autoscaler does. Another one has a look first
            and then asks a process there, which takes a second.
    """

    def __init__(self, *, on_head: bool = False) -> None:
        self._on_head = on_head
        self._config: Any = None
        self._asked: Any = None
        self._read_at = float("-inf")

    def types(self) -> tuple[NodeType, ...]:
        """Empty where no autoscaler runs, or where it does not tell. Only the first time waits for the head."""
        if self._asked is None and time.monotonic() - self._read_at >= READ_SECONDS:
            first, self._read_at = self._read_at == float("-inf"), time.monotonic()
            self._read()
            if first and self._asked is not None:
                ray.wait([self._asked], timeout=WAIT_SECONDS)
        self._collect()
        return node_types(self._config, _existing()) if self._config else ()

    def _read(self) -> None:
        reported = self._reported()
        if reported is not None:
            self._config = reported
            return
        address = ray.get_runtime_context().gcs_address
        seen, config = autoscaling_config(address)
        if seen or self._on_head:
            self._config = config
        else:
            self._asked = _config_on_head.remote(address)

    def _collect(self) -> None:
        if self._asked is None or not ray.wait([self._asked], timeout=0)[0]:
            return
        try:
            self._config = ray.get(self._asked)
        except RayError:
            pass  # what was known before is the best there is
        self._asked = None

    @staticmethod
    def _reported() -> Any:
        """What a platform that starts nodes for Ray has told it."""
        try:
            config = state.get_cluster_config()
        except (RayError, RuntimeError):
            return None
        if config is None:
            return None
        groups = {
            group.name: {
                "resources": dict(group.resources),
                "max_workers": group.max_count if group.max_count >= 0 else UNLIMITED,
            }
            for group in config.node_group_configs
        }
        return {"available_node_types": groups} if groups else None


def launchable_types() -> tuple[NodeType, ...]:
    """Kinds of nodes that the connected cluster could still start; see :class:`LaunchableTypes`."""
    return LaunchableTypes().types()


def _existing() -> dict[str, int]:
    """How many nodes of each kind there are, without the head."""
    try:
        nodes = get_cluster_resource_state(ray._private.worker.global_worker.gcs_client).node_states
    except (RayError, RuntimeError):
        return {}
    staying = [node for node in nodes if node.status not in (DEAD, DRAINING)]
    kinds = (node.ray_node_type_name for node in staying if HEAD_RESOURCE not in node.total_resources)
    return dict(Counter(kind for kind in kinds if kind))
