"""What is read is never run: held by reading the program itself."""

import ast
import zipfile
from pathlib import Path

import pytest

import score_lightning
from score_lightning.data.files import ImageFiles
from score_lightning.data.listing import list_pictures
from score_lightning.data.pictures import Shape
from score_lightning.errors import UserError

FILES = sorted(Path(score_lightning.__file__).parent.rglob("*.py"))


def calls(path):
    """(dotted name, keyword -> value) of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_unpickled_with_code(path):
    for name, keywords in calls(path):
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", path
        if name == "np.load":
            assert keywords.get("allow_pickle") == "False", path
        assert not name.startswith(("pickle.load", "dill.", "joblib.load", "marshal.")), (path, name)
        assert name not in ("pickle.Unpickler", "eval", "exec", "os.system", "yaml.load"), (path, name)
        assert keywords.get("shell") != "True", path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_zip_files_are_read_and_never_unpacked(path):
    assert not [name for name, _ in calls(path) if name.endswith((".extractall", ".extract", "unpack_archive"))]


def test_names_in_a_zip_reach_nothing_outside(tmp_path):
    (tmp_path / "outside.png").write_bytes(b"secret")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("../outside.png", b"not a picture")
    with pytest.raises(UserError, match="holds no pictures"):  # a name that leads outside is none
        list_pictures(tmp_path / "pictures.zip")
    files = ImageFiles(tmp_path / "pictures.zip", ["../outside.png"], Shape(8, 3))
    with pytest.raises(UserError, match="not a picture"):  # what is in the zip, not what lies beside it
        files.decode([0])
    assert (tmp_path / "outside.png").read_bytes() == b"secret"


def test_the_trainer_resumes_without_code():
    source = (Path(score_lightning.__file__).parent / "experiment/train.py").read_text()
    assert "ckpt_path=checkpoint, weights_only=True" in source
