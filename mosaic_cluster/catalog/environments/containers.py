"""A worker's process in a container image, through an engine whose containers are our own descendants."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mosaic_cluster.worker.errors import EnvironmentFailed

_HOST_ONLY = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR", "SHELL", "USER", "LOGNAME", "HOSTNAME", "PWD", "XDG_")
"""Variables that mean something on the host, and nothing or something else in an image."""


def find_engine(path: str | None = None) -> str:
    """``podman`` on this machine.

    Docker will not do: its containers belong to its daemon. A kill of our process would not reach them, no limit
    would be seen to be exceeded, and they would outlive the node's Ray.

    Raises:
        EnvironmentFailed: it is not there.
    """
    found = shutil.which("podman", path=path)
    if found is None:
        raise EnvironmentFailed(
            "image_uri needs podman on each node, and it is not on PATH here (docker will not do: its containers "
            "belong to its daemon, where no limit and no kill of ours reaches them). Install podman, or run the node "
            "itself from that image, with `interpreter` naming the Python in it"
        )
    return found


def container_command(
    engine: str,
    image: str,
    command: Sequence[str],
    *,
    name: str,
    cwd: str,
    variables: Mapping[str, str],
    read: Sequence[Path],
    write: Sequence[Path],
    gpu: bool,
) -> list[str]:
    """The command that runs another one in a container.

    Args:
        command: in the image.
        name: of the container.
        cwd: working directory, in one of the folders.
        variables: of the command; those that concern the host's own programs are left out.
        read: folders to be seen at the same place, unchangeable; write: changeable.
        gpu: whether it gets the GPUs that ``CUDA_VISIBLE_DEVICES`` names; through CDI, which podman has from 4.1 on.
    """
    # Conmon and the container are children of the process, files belong to the user, and /dev/shm is the host's:
    # data loaders need more of it than a container gets by default.
    options = ["run", "--rm", "--name", name, "--network=host", "--ipc=host"]
    options += ["--userns=keep-id"] if os.geteuid() else []
    options += ["--security-opt", "label=disable", "--workdir", cwd, "--entrypoint", ""]
    for folder in read:
        options += ["--volume", f"{folder}:{folder}:ro"]
    for folder in write:
        options += ["--volume", f"{folder}:{folder}"]
    if gpu:
        options += ["--device", "nvidia.com/gpu=all"]
    kept = {key: value for key, value in sorted(variables.items()) if not key.startswith(_HOST_ONLY)}
    for key in kept:
        # By name only: values may be secrets, and a command line is for all to see.
        options += ["--env", key]
    return [engine, *options, image, *command]
