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
DEAD = 2
"""NodeStatus of Ray's autoscaler protocol."""


@ray.remote(num_cpus=0, resources={HEAD_RESOURCE: 0.001}, max_retries=0)  # type: ignore[untyped-decorator]
def _config_on_head(gcs_address: str) -> Any:
    """The config that the autoscaler beside the head was started with; ``None`` if it has none."""
    return autoscaling_config(gcs_address)


def autoscaling_config(gcs_address: str) -> Any:
    """The config of the autoscaler of the cluster at that address, if it runs on this machine.

    Ray tells nobody which kinds of nodes its autoscaler knows; they stand in the file that it was given.
    """
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        given = [part.removeprefix(CONFIG_OPTION) for part in command if part.startswith(CONFIG_OPTION)]
        if given and f"--gcs-address={gcs_address}" in command:
            try:
                with open(given[0]) as file:
                    return yaml.safe_load(file)
            except (OSError, yaml.YAMLError):
                return None
    return None


class LaunchableTypes:
    """Kinds of nodes that the connected cluster could still start."""

    def __init__(self) -> None:
        self._config: Any = None
        self._asked: Any = None
        self._read_at = float("-inf")

    def types(self) -> tuple[NodeType, ...]:
        """Empty where no autoscaler runs, or where it does not tell. Only the first time waits for the head."""
        if self._asked is None and time.monotonic() - self._read_at >= READ_SECONDS:
            reported = self._reported()
            if reported is None:
                self._asked = _config_on_head.remote(ray.get_runtime_context().gcs_address)
            first = self._read_at == float("-inf")
            self._config, self._read_at = reported or self._config, time.monotonic()
            if first and self._asked is not None:
                ray.wait([self._asked], timeout=WAIT_SECONDS)
        self._collect()
        return node_types(self._config, _existing()) if self._config else ()

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
    alive = [node for node in nodes if node.status != DEAD and HEAD_RESOURCE not in node.total_resources]
    return dict(Counter(node.ray_node_type_name for node in alive if node.ray_node_type_name))
