"""The commit that results name."""

import importlib.util
import shutil
import subprocess

from score_lightning.evaluation import provenance


def test_a_commit_has_changes_where_the_code_differs_from_it_and_only_there(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    module = tmp_path / "score_lightning" / "evaluation" / "provenance.py"
    (tmp_path / "docs").mkdir()
    module.parent.mkdir(parents=True)
    shutil.copyfile(provenance.__file__, module)
    (tmp_path / "docs" / "results.md").write_text("none yet")
    git("init", "--quiet")
    spec = importlib.util.spec_from_file_location("copied_provenance", module)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert copy.commit() is None
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    head = git("rev-parse", "HEAD").strip()
    assert copy.commit() == head
    (tmp_path / "docs" / "results.md").write_text("a result")
    (tmp_path / "score_lightning" / "new.txt").write_text("not tracked")
    assert copy.commit() == head
    module.write_text(module.read_text() + "\n")
    assert copy.commit() == f"{head}+changes"
