"""What `genai reproduce` brings into its worktree: the user's own files, which no commit holds."""

import yaml

from flows.cli.reproduce import _copy_own_files
from tasks.store.workspace import Workspace


def test_folders_patterns_and_files_of_the_user_are_copied_and_nothing_hidden(tmp_path):
    here, there = Workspace(tmp_path / "here"), Workspace(tmp_path / "there")
    for name in ("texts/deep/a.txt", "texts/.cache/b.txt", "c.txt", "rows/d.jsonl", ".genai/sources/0a/e.jsonl",
                 "off/f.txt"):
        file = here.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    paths = {"folder": ["texts"], "file": ["c.txt", "s3://bucket/a.txt", str(tmp_path)], "pattern": ["rows/**"],
             "of MLflow": [".genai/sources/0a"], "nothing": ["absent"]}
    sources = {name: {"kind": "files", "paths": given} for name, given in paths.items()}
    sources |= {"off": {"kind": "files", "paths": ["off"], "enabled": False}, "archive": {"kind": "archive"}}
    preset = tmp_path / "reproduce.yaml"
    preset.write_text(yaml.safe_dump({"collect": {"sources": sources}}))
    _copy_own_files(preset, here, there)
    copied = {file.relative_to(there.root).as_posix() for file in there.root.rglob("*") if file.is_file()}
    assert copied == {"texts/deep/a.txt", "c.txt", "rows/d.jsonl", ".genai/sources/0a/e.jsonl"}
