import json
import subprocess
from pathlib import Path

from sae_toolkit.report import collect_provenance
from sae_toolkit.report.provenance import git_state


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_says_versions_seed_and_source_but_no_folder():
    found = collect_provenance({"kind": "ArraySource", "files": ["/home/anna/data/x.npy"], "n": 3}, seed=7)
    assert (found["seed"], found["source"]) == (7, {"kind": "ArraySource", "files": ["x.npy"], "n": 3})
    assert {"toolkit", "torch", "python", "platform", "threads", "commit", "started"} <= set(found)
    assert found["started"].endswith("+00:00")
    assert str(Path.home()) not in json.dumps(found)


def test_commit_only_where_the_package_is_tracked(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_state(package) == {"commit": None, "uncommitted_changes": None}
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "somebody else's repository")
    assert git_state(package)["commit"] is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    assert len(git_state(package)["commit"]) == 40
    assert git_state(package)["uncommitted_changes"] is False
    (package / "__init__.py").write_text("changed")
    assert git_state(package)["uncommitted_changes"] is True
