"""The public API: every name is there, and importing the package costs nothing."""

import subprocess
import sys

import countervid


def test_every_public_name_can_be_had():
    for name in countervid.__all__:
        assert getattr(countervid, name) is not None
    assert set(countervid.__all__) == set(countervid._HOMES)


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, countervid; print([m for m in ('torch', 'numpy', 'cv2', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_wrong_name_lists_the_right_ones():
    try:
        countervid.Klip  # noqa: B018
    except AttributeError as error:
        assert "Clip" in str(error)
    else:
        raise AssertionError("a name that does not exist was found")
