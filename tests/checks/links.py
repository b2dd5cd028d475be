"""Every relative link in the repository's Markdown files leads to a file, and to a heading if it names one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors GitHub makes of a page's headings."""
    found = set()
    for heading in HEADING.findall(page.read_text(encoding="utf-8")):
        text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(text.strip().replace(" ", "-"))
    return found


def dead_links(root: Path) -> list[str]:
    """One line a dead link."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "*.md"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    dead = []
    for name in listed.stdout.split():
        page = root / name
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            goal = (page.parent / target).resolve() if target else page
            if not goal.exists():
                dead.append(f"{name}: {link}: no such file")
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal):
                dead.append(f"{name}: {link}: no such heading")
    return dead


if __name__ == "__main__":
    problems = dead_links(Path(__file__).resolve().parents[2])
    print("\n".join(problems) or "links: all alive")
    sys.exit(bool(problems))
