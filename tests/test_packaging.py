"""The Makefile, .ci/setup, the Dockerfile and the wheel.

.ci/setup is run here with an interpreter that pretends: it notes what it is asked to do and
installs nothing, so these tests need no network. The real installation is `make test` itself.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.licences import locked

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PYPROJECT["tool"]["setuptools"]["packages"]

PRETENDER = """#!/bin/sh
# Answers `-c` as version $PRETEND_VERSION, "installs" by leaving a line in $PRETEND_NOTES.
case "$*" in
*version_info*) exec {python} -c "import sys; sys.version_info = ($PRETEND_VERSION); $2" ;;
"-c import venv; from ensurepip import bootstrap") exit "${{PRETEND_NO_VENV:-0}}" ;;
"-c import pip") exit 0 ;;
"-m venv --clear "*) mkdir -p "$4/bin"; touch "$4/pyvenv.cfg"; cp "$0" "$4/bin/python" ;;
"-m pip install "*)
    echo "$*" >>"$PRETEND_NOTES"
    echo "pip's last words"
    exit "${{PRETEND_PIP:-0}}" ;;
*) echo "not foreseen: $*" >&2; exit 99 ;;
esac
"""


class SetUp:
    """A copy of .ci/setup with an interpreter that pretends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes = root / "notes"
        self.python = root / "bin" / "python3"
        (root / ".ci").mkdir()
        shutil.copy(ROOT / ".ci/setup", root / ".ci/setup")
        shutil.copy(ROOT / "pyproject.toml", root)
        self.python.parent.mkdir()
        self.python.write_text(PRETENDER.format(python=sys.executable))
        self.python.chmod(0o755)

    def run(self, *words: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": f"{self.python.parent}:/usr/bin:/bin",
            "PRETEND_NOTES": str(self.notes),
            "PRETEND_VERSION": "3, 12, 1",
            "PYTHON": str(self.python),
        }
        return subprocess.run(
            [str(self.root / ".ci/setup"), *words],
            env=environment | changes,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def installs(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@pytest.fixture
def setup(tmp_path: Path) -> SetUp:
    return SetUp(tmp_path)


def assert_one_line(said: str, *parts: str) -> None:
    lines = said.splitlines()
    assert len(lines) == 1, said
    for part in ("roomscribe: ", *parts):
        assert part in lines[0]


def test_set_up_installs_the_tree_itself_and_says_so(setup: SetUp) -> None:
    ended = setup.run()
    assert ended.returncode == 0, ended.stderr
    (install,) = setup.installs()
    assert install.endswith(" -e .")
    assert "making .venv" in ended.stdout
    assert re.search(r"installed in \d+ s, \d+ MB", ended.stdout)


def test_set_up_does_nothing_the_second_time(setup: SetUp) -> None:
    setup.run()
    again = setup.run()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(setup.installs()) == 1


def test_set_up_installs_again_when_pyproject_changed(setup: SetUp) -> None:
    setup.run()
    with (setup.root / "pyproject.toml").open("a") as pyproject:
        pyproject.write("# one more line\n")
    setup.run()
    assert len(setup.installs()) == 2


def test_set_up_for_the_tests_serves_the_server_too(setup: SetUp) -> None:
    setup.run("dev")
    setup.run()
    (install,) = setup.installs()
    assert install.endswith(" -e .[dev]")


def test_set_up_for_the_server_does_not_serve_the_tests(setup: SetUp) -> None:
    setup.run()
    setup.run("dev")
    assert len(setup.installs()) == 2


def test_set_up_makes_the_venv_anew_for_another_python(setup: SetUp) -> None:
    setup.run()
    (setup.root / ".venv/bin/python").write_text("#!/bin/sh\nexit 1\n")
    ended = setup.run()
    assert "making .venv" in ended.stdout
    assert len(setup.installs()) == 2


def test_a_copy_is_installed_without_the_tree_and_every_time(setup: SetUp) -> None:
    setup.run(EDITABLE="no")
    setup.run(EDITABLE="no")
    installs = setup.installs()
    assert len(installs) == 2
    assert all(install.endswith(" off .") for install in installs)


def test_a_python_too_old_is_one_line(setup: SetUp) -> None:
    ended = setup.run(PRETEND_VERSION="3, 10, 9")
    assert ended.returncode == 1
    assert_one_line(ended.stderr, "Python 3.11 or newer is needed", "3.10")
    assert setup.installs() == []


def test_no_python_is_one_line(setup: SetUp) -> None:
    ended = setup.run(PYTHON=str(setup.root / "nowhere"))
    assert ended.returncode == 1
    assert_one_line(ended.stderr, "Python 3.11 or newer is needed", "no Python")


def test_a_missing_venv_package_is_one_line_that_names_it(setup: SetUp) -> None:
    ended = setup.run(PRETEND_NO_VENV="1")
    assert ended.returncode == 1
    assert_one_line(ended.stderr, "python3-venv is missing: apt-get install python3-venv")


def test_a_folder_that_is_no_venv_is_left_alone(setup: SetUp) -> None:
    mine = setup.root / ".venv/mine"
    mine.parent.mkdir()
    mine.touch()
    ended = setup.run()
    assert ended.returncode == 1
    assert_one_line(ended.stderr, ".venv exists")
    assert mine.exists()


def test_a_failed_install_shows_the_log_and_is_tried_again(setup: SetUp) -> None:
    ended = setup.run(PRETEND_PIP="1")
    assert ended.returncode == 1
    shown, line = ended.stderr.splitlines()
    assert "pip's last words" in shown
    assert_one_line(line, "the installation failed")
    assert setup.run().returncode == 0
    assert len(setup.installs()) == 2


def test_the_makefile_and_the_image_install_through_set_up_alone() -> None:
    for name in ("Makefile", "Dockerfile", ".ci/run"):
        assert "pip install" not in (ROOT / name).read_text(), name
    makefile = (ROOT / "Makefile").read_text()
    assert "@.ci/setup && exec $(PY) -m server" in makefile
    assert "@.ci/setup dev" in makefile
    (run,) = re.findall(r"^RUN (.*\.ci/setup.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    given = "VENV=/opt/roomscribe EDITABLE=no LOCKED=yes PYTHON=/usr/local/bin/python3"
    assert run == f"{given} .ci/setup"


def test_the_image_runs_as_nobody_special_and_says_how_it_is() -> None:
    runtime = (ROOT / "Dockerfile").read_text().split("\nFROM ")[-1]
    assert "COPY --from=build /opt/roomscribe /opt/roomscribe\n" in runtime
    assert "\nUSER roomscribe\n" in runtime
    assert "'/healthz'" in runtime
    (entry,) = re.findall(r'^CMD \["(.*)"\]$', runtime, re.MULTILINE)
    assert entry in PYPROJECT["project"]["scripts"]


def test_the_image_is_built_from_all_that_the_wheel_needs() -> None:
    let_in = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    packages = {name.split(".")[0] for name in PACKAGES}
    assert let_in == packages | {
        ".ci/setup",
        "pyproject.toml",
        "requirements.lock",
        PYPROJECT["project"]["readme"],
    }


def test_every_target_of_the_makefile_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    helped = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT)],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    explained = set(re.findall(r"make ([a-z-]+)\t", helped))
    assert explained == set(phony.split()) - {"setup-dev"}


def test_every_module_held_to_95_percent_exists() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (pure,) = re.findall(r"^PURE = (.*)$", makefile, re.MULTILINE)
    assert [name for name in pure.split() if not (ROOT / name).is_file()] == []


def files_of(package: str) -> set[str]:
    """Every file that belongs to a package's folder, and those of a page's folders below it."""
    folder = ROOT / package.replace(".", "/")
    found = folder.rglob("*") if package == "static" else folder.glob("*")
    return {
        str(path.relative_to(ROOT))
        for path in found
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build in place would leave its folders in the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", PYPROJECT["project"]["readme"]):
        shutil.copy(ROOT / name, tree)
    for name in {package.split(".")[0] for package in PACKAGES}:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(tree), "--wheel-dir", str(built)]
    subprocess.run([*command, "--quiet", "--no-deps", "--no-build-isolation"], check=True)
    (path,) = built.glob("roomscribe-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_carries_every_file_of_every_package(wheel: Path) -> None:
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert carried == set().union(*map(files_of, PACKAGES))
    assert "static/index.html" in carried
    assert any(name.startswith("server/migrations/") for name in carried)


@pytest.mark.slow
def test_the_wheel_serves_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def python(script: str, *words: str) -> str:
        # The finder of an editable install would lend the tree's modules to what lacks them.
        alone = "import sys; sys.meta_path = [f for f in sys.meta_path if 'Editable' not in str(f)]"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site)}
        command = [sys.executable, "-c", f"{alone}; {script}", *words]
        return subprocess.check_output(command, cwd=elsewhere, env=environment, text=True)

    assert python("import server; print(server.__file__)").startswith(str(site))
    serve = "import runpy; runpy.run_module('server', run_name='__main__')"
    assert "SERVER__PORT" in python(serve, "--help")


LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_what_the_image_installs_is_locked_and_fits() -> None:
    """`make lock` after a change of pyproject.toml's dependencies."""
    pinned: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ]+)", LOCK, re.MULTILINE):
        pinned.setdefault(name, set()).add(version)
    for line in (*PYPROJECT["project"]["dependencies"], *PYPROJECT["build-system"]["requires"]):
        requirement = Requirement(line)
        versions = pinned.get(canonicalize_name(requirement.name), set())
        assert versions, requirement.name
        assert all(version in requirement.specifier for version in versions), line


def test_each_locked_package_has_its_hashes() -> None:
    entries = re.split(r"^(?=[a-z0-9._-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 40
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.partition("\n")[0]


def test_the_licence_of_each_is_told() -> None:
    told = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    for name in locked(LOCK):
        assert f"| {name} | " in told, f"{name}: run make lock"
    assert "| not told |" not in told
