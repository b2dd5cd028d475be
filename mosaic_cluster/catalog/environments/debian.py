"""A Python out of Debian's packages, unpacked into the cache: no root, and nothing of the system is changed.

apt itself finds, checks (signatures included) and downloads the packages, with lists and caches of its own; the
proxies and certificates that the system's apt is set up with hold. Libraries that this system has are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mosaic_cluster.catalog.environments.interpreters import (
    Interpreter,
    probe_interpreter,
    unpacked_folder,
    unpacked_variables,
)
from mosaic_cluster.worker.errors import EnvironmentFailed

RELEASES = {"3.9": "bullseye", "3.11": "bookworm", "3.13": "trixie"}
"""Which release of Debian has which Python."""

MIRROR = "http://deb.debian.org/debian"
MIRROR_VARIABLE = "MOSAIC_DEBIAN_MIRROR"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_OTHERS = re.compile(r"lib(?:c6|c-bin|gcc-s1|crypt1|stdc\+\+6|perl|debian-installer|textwrap|newt|slang)[\d.]*$")
"""Libraries that must be the system's own, as the loader is, or are for Debian's installer alone."""

SECONDS = 900.0


def can_unpack() -> str | None:
    """Why this cannot be done here; ``None`` if it can."""
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            return f"{program} is not here: this is for Debian and what is made from it"
    return None if _KEYRING.exists() else f"{_KEYRING} is not here: install debian-archive-keyring"


def unpack_debian_python(minor: str, report: Callable[[str], None] | None = None) -> Interpreter:
    """Download and unpack a Python, unless that has been done.

    Args:
        minor: ``3.9``, ``3.11`` or ``3.13``.
        report: told what is done.

    Raises:
        EnvironmentFailed: there is no such one, or it cannot be had here.
    """
    if minor not in RELEASES:
        known = ", ".join(f"{each} ({release})" for each, release in RELEASES.items())
        raise EnvironmentFailed(f"no Debian release has Python {minor}; there are {known}")
    why = can_unpack()
    if why is not None:
        raise EnvironmentFailed(f"Python {minor} cannot be taken from Debian's packages: {why}")
    folder = unpacked_folder(minor)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # On the same disk, so that it can be renamed: the stdlib is found by the executable's own place.
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary:
            _unpack(minor, Path(temporary), report or (lambda text: None))
            made = Path(temporary, "root")
            _drop_known_libraries(made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was faster
                    raise
    found = probe_interpreter(
        folder / "usr" / "bin" / f"python{minor}", "unpacked from Debian", unpacked_variables(folder)
    )
    if not isinstance(found, Interpreter):
        raise EnvironmentFailed(f"the Python {minor} unpacked to {folder} {found}; remove that folder to try again")
    return found


def _unpack(minor: str, temporary: Path, report: Callable[[str], None]) -> None:
    apt = _Apt(temporary, RELEASES[minor])
    report(f"asks {apt.mirror} for the packages of {RELEASES[minor]}")
    apt.run("apt-get", "update")
    names = [f"python{minor}", f"python{minor}-minimal", f"python{minor}-dev", f"libpython{minor}"]
    names += [f"libpython{minor}-minimal", f"libpython{minor}-stdlib", f"libpython{minor}-dev"]
    names += [each for each in ("python3-distutils", "python3-lib2to3") if apt.has(each)]
    needed = apt.needs([f"libpython{minor}-stdlib", f"python{minor}-minimal"])
    names += [each for each in needed if each.startswith("lib") and not _OTHERS.match(each) and each not in names]
    report(f"downloads {len(names)} packages")
    downloads = temporary / "downloads"
    downloads.mkdir()
    apt.run("apt-get", "download", *names, cwd=downloads)
    report("unpacks them")
    root = temporary / "root"
    for package in sorted(downloads.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)], temporary)
    # What came in /lib belongs to /usr/lib, as on any system today.
    if (root / "lib").is_dir() and not (root / "lib").is_symlink():
        shutil.copytree(root / "lib", root / "usr" / "lib", symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(root / "lib")


class _Apt:
    """apt with lists, caches and sources of its own."""

    def __init__(self, folder: Path, release: str) -> None:
        self._folder = folder
        self.mirror = os.environ.get(MIRROR_VARIABLE) or MIRROR
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        sources = folder / "sources.list"
        sources.write_text(f"deb [signed-by={_KEYRING}] {self.mirror} {release} main\n")
        self._options = [
            f"Dir::State={folder / 'state'}",
            f"Dir::State::status={folder / 'status'}",
            f"Dir::Cache={folder / 'cache'}",
            f"Dir::Etc::SourceList={sources}",
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::Etc::Preferences=/dev/null",
            "Dir::Etc::PreferencesParts=/dev/null",
            "Acquire::Languages=none",
            "Acquire::Retries=3",
            # As root, apt would change to a user that cannot write here.
            "APT::Sandbox::User=",
            # What the system wants done after an update is not for us.
            "APT::Update::Post-Invoke::=true",
        ]

    def run(self, program: str, *words: str, cwd: Path | None = None) -> str:
        options = [part for each in self._options for part in ("-o", each)]
        return _run([program, "-q", *options, *words], cwd or self._folder)

    def has(self, package: str) -> bool:
        """Whether there is such a package, and not only a name for it."""
        return (
            "Package:" in self.run("apt-cache", "show", "--no-all-versions", package) if self._known(package) else False
        )

    def _known(self, package: str) -> bool:
        return package in self.run("apt-cache", "pkgnames", package).split()

    def needs(self, packages: Sequence[str]) -> list[str]:
        """All that packages depend on, on and on; no alternatives and no mere names."""
        told = self.run("apt-cache", "depends", "--recurse", "--important", *packages)
        return sorted({line for line in told.splitlines() if line and not line.startswith((" ", "<", "|"))})


def _run(command: Sequence[str], cwd: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(f"{command[0]} did not end within {SECONDS:g} s", network=True) from None
    if done.returncode != 0:
        words = "\n".join(f"  | {line}" for line in (done.stdout + done.stderr).splitlines()[-15:])
        what = f"{command[0]} {' '.join(each for each in command[1:] if each not in ('-o', '-q') and '::' not in each)}"
        raise EnvironmentFailed(f"`{what[:200]}` failed with exit code {done.returncode}:\n{words}", network=True)
    return done.stdout


def _drop_known_libraries(root: Path) -> None:
    """Leave out libraries that this system has: programs that Python starts must get the system's own."""
    root = root.resolve()
    have = {line.split()[0] for line in _run(["/sbin/ldconfig", "-p"], root).splitlines() if "=>" in line}
    found = (path for path in (root / "usr" / "lib").glob("*/lib*.so*") if path.is_file())
    libraries = [path for path in found if path.parent.resolve().is_relative_to(root)]
    known = [path for path in libraries if path.name in have]
    for path in {*known, *(path.resolve() for path in known)}:
        if path.is_relative_to(root):  # an absolute link leads to the system's own
            path.unlink(missing_ok=True)
    for path in libraries:
        if path.is_symlink() and not path.exists():
            path.unlink()
