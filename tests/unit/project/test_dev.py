"""scripts/dev.py when the set-up is interrupted, doubled, tampered with or refused."""

import ast
import dataclasses
import hashlib
import io
import os
import socket
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from devtools import DevError, browser, environment, pins, server, soak, tiers
from devtools.commands import default_tiers, main, parser
from devtools.lock import locked

ROOT = Path(__file__).resolve().parents[3]


def test_the_key_follows_every_pin(tmp_path):
    tools = tmp_path / "requirements.txt"
    tools.write_text("ruff==1\n")
    first, second = list(pins.HOSTS.values())[:2]
    keys = {pins.cache_key(first, tools), pins.cache_key(second, tools)}
    assert pins.cache_key(first, tools) in keys
    tools.write_text("ruff==2\n")
    keys.add(pins.cache_key(first, tools))
    (tmp_path / "main.py").touch()
    keys.add(pins.cache_key(tmp_path, tools))
    assert len(keys) == 4


def test_the_key_follows_torch(monkeypatch):
    before = pins.cache_key(pins.host_pin(pins.DEFAULT_HOST))
    monkeypatch.setattr(pins, "TORCH", ("torch==9",))
    assert pins.cache_key(pins.host_pin(pins.DEFAULT_HOST)) != before


def test_an_unknown_host_version_lists_the_known():
    with pytest.raises(DevError, match=r"no pin for ComfyUI 9\.9.*0\.30\.0.*0\.18\.2"):
        pins.host_pin("9.9")


def test_the_cache_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWSEARCH_CACHE", str(tmp_path / "here"))
    assert pins.cache_root() == tmp_path / "here"


class Installer:
    """Fills a folder in two steps; can be killed between them."""

    def __init__(self, folder: Path, dies: bool = False):
        self.folder, self.dies, self.runs = folder, dies, 0

    def __call__(self):
        self.runs += 1
        assert list(self.folder.iterdir()) == [], "started on top of a half-made folder"
        (self.folder / "first").touch()
        if self.dies:
            raise KeyboardInterrupt
        (self.folder / "second").touch()


def test_a_finished_setup_is_used_again(tmp_path):
    install = Installer(tmp_path / "env")
    assert environment.build(tmp_path / "env", install)
    assert not environment.build(tmp_path / "env", install)
    assert install.runs == 1


def test_an_interrupted_setup_is_redone(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        environment.build(tmp_path / "env", Installer(tmp_path / "env", dies=True))
    assert (tmp_path / "env" / "first").exists()
    assert environment.build(tmp_path / "env", Installer(tmp_path / "env"))
    assert (tmp_path / "env" / "second").exists()
    assert "did not finish" in capsys.readouterr().out


def start(script: str, *arguments: object) -> subprocess.Popen:
    """Start a Python that can import devtools; `arguments` are its sys.argv[1:]."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")})


BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from devtools.environment import build
folder, log = map(Path, sys.argv[1:])
def install():
    with log.open("a") as file:
        file.write("x")
    time.sleep(0.3)
build(folder, install)
"""
DIE_LOCKED = """
import os, sys
from pathlib import Path
from devtools.lock import locked
with locked(Path(sys.argv[1]), "testing"):
    os._exit(3)
"""


def test_two_setups_at_once_install_once(tmp_path):
    both = [start(BUILD_SLOWLY, tmp_path / "env", tmp_path / "log") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "x"


def test_a_lock_file_of_a_dead_process_does_not_block(tmp_path):
    assert start(DIE_LOCKED, tmp_path / "lock").wait() == 3
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", "testing"):
        pass


ORPHAN = """
import os, subprocess, sys
from pathlib import Path
from devtools.lock import held_handles, locked
with locked(Path(sys.argv[1]), "testing"):
    slow = "import sys, time; time.sleep(0.5); open(sys.argv[1], 'w')"
    subprocess.Popen([sys.executable, "-c", slow, sys.argv[2]], pass_fds=held_handles())
    os._exit(3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot pass a lock on")
def test_the_orphan_of_a_killed_setup_is_waited_for(tmp_path):
    assert start(ORPHAN, tmp_path / "lock", tmp_path / "written").wait() == 3
    with locked(tmp_path / "lock", "testing", poll=0.02):
        assert (tmp_path / "written").exists()


def archive(path: Path, names: list[str]) -> str:
    with tarfile.open(path, "w:gz") as bundle:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 2
            bundle.addfile(member, io.BytesIO(b"ok"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_pinned_archive_is_unpacked(tmp_path):
    digest = archive(tmp_path / "a.tar.gz", ["a-1/vendor/ComfyUI/main.py", "a-1/setup.py"])
    environment.unpack_host(tmp_path / "a.tar.gz", digest, tmp_path / "ComfyUI")
    assert [file.name for file in (tmp_path / "ComfyUI").iterdir()] == ["main.py"]


def test_another_archive_is_refused(tmp_path):
    digest = archive(tmp_path / "a.tar.gz", ["a-1/vendor/ComfyUI/main.py"])
    with pytest.raises(DevError, match=rf"sha256 {digest}, expected {'0' * 64}"):
        environment.unpack_host(tmp_path / "a.tar.gz", "0" * 64, tmp_path / "ComfyUI")
    assert not (tmp_path / "ComfyUI").exists()


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("OSError: [Errno 28] No space left on device", "no disk space"),
        ("NewConnectionError: Failed to establish a new connection: [Errno -3]", "no network"),
        ("ERROR: No matching distribution found for torch==2.11.0", "has no build"),
        ("something else", "pip failed"),
    ],
)
def test_pip_failures_have_a_sentence(output, cause, tmp_path):
    said = environment.explain_pip(output, tmp_path / "log")
    assert said.startswith(cause) or cause in said.splitlines()[0]
    assert output in said


def test_a_full_disk_is_noticed_before_the_download(tmp_path):
    with pytest.raises(DevError, match=r"no disk space: .* has .* GB free"):
        environment.check_disk(tmp_path, 10**9)


def test_a_port_in_use_is_named():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(DevError, match=rf"port {held.getsockname()[1]} is in use.*--port"):
            server.check_port(held.getsockname()[1])
    server.check_port(server.free_port())


def test_a_host_that_fails_to_start_shows_the_end_of_its_log(tmp_path):
    (tmp_path / "main.py").write_text("raise SystemExit('the reason')")
    host = server.running_host(Path(sys.executable), tmp_path)
    with pytest.raises(DevError, match=r"ended with status 1 .*[^$]*the reason"), host:
        pass


def test_a_folder_without_a_host_is_refused(tmp_path, capsys):
    assert main(["setup", "--comfyui", str(tmp_path)]) == 1
    assert "is not a ComfyUI folder" in capsys.readouterr().out


def test_the_checkout_is_mounted_under_the_packs_name(tmp_path):
    other = tmp_path / "another checkout"
    for root in (tmp_path / "checkout", other, other):
        root.mkdir(exist_ok=True)
        (root / "__init__.py").write_text(f"# {root.name}")
        place = server.mount(tmp_path / "base", root)
        assert place == tmp_path / "base" / "custom_nodes" / "flowsearch"
        assert (place / "__init__.py").read_text() == f"# {root.name}"
    assert (tmp_path / "checkout" / "__init__.py").exists()


def test_a_copied_checkout_is_replaced(tmp_path):
    stale = tmp_path / "base" / "custom_nodes" / "flowsearch"
    stale.mkdir(parents=True)
    (stale / "old.py").touch()
    assert server.mount(tmp_path / "base", ROOT).samefile(ROOT)


def test_models_of_an_installation_are_offered(tmp_path):
    (tmp_path / "models" / "vae").mkdir(parents=True)
    option, file = server.models_config(tmp_path, tmp_path / "models")
    assert option == "--extra-model-paths-config"
    assert "    vae: vae" in Path(file).read_text()
    assert server.models_config(tmp_path, tmp_path / "none") == []


def test_a_missing_browser_comes_with_the_command(monkeypatch):
    monkeypatch.setattr(browser, "find_browser", lambda: None)
    monkeypatch.setattr(browser.shutil, "which", lambda _: None)
    with pytest.raises(DevError, match="install one: "):
        browser.need_browser()


def test_an_old_python_is_told_so():
    """dev.py must parse on an old Python as far as its check, so its own syntax is the oldest."""
    text = (ROOT / "scripts" / "dev.py").read_text().replace("(3, 10)", "(99, 0)")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 1
    assert "is too old" in done.stderr


@pytest.mark.parametrize(
    ("ci", "optional", "fails"), [("true", False, True), ("true", True, False), ("", False, False)]
)
def test_a_tier_that_cannot_run_says_why_and_fails_in_ci(monkeypatch, capsys, ci, optional, fails):
    monkeypatch.setenv("CI", ci)
    place = environment.Place(Path(sys.executable), ROOT, ROOT)
    tier = tiers.Tier("planted", "tests/no_such_folder", optional=optional)
    assert tiers.run_tier(place, tier, [])[1] == fails
    assert "there is no tests/no_such_folder" in capsys.readouterr().out


@pytest.mark.parametrize(("tree", "writes"), [("here/ComfyUI", True), ("theirs", False)])
def test_only_a_tree_of_our_own_is_written_into(monkeypatch, tmp_path, tree, writes):
    for name in ("here/ComfyUI", "theirs"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "imported.py").touch()
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    place = environment.Place(Path(sys.executable), tmp_path / tree, tmp_path / "here")
    command = [sys.executable, "-c", "import sys; sys.path[:0] = sys.argv[1:]; import imported"]
    made = tiers.child_environment(place)
    subprocess.run([*command, str(tmp_path / tree)], env=made, check=True)
    assert bool(list(tmp_path.rglob("*.pyc"))) == writes


def test_lint_runs_beside_a_tier_and_what_it_found_is_said_and_counts(monkeypatch, capfd):
    place = environment.Place(Path(sys.executable), ROOT, ROOT)
    order = []
    tier = tiers.Tier("planted", "tests/unit", need=lambda _: order.append("need") or {})
    monkeypatch.setattr(tiers, "TIERS", (tier,))
    monkeypatch.setattr(tiers, "run_tier", lambda *_: (tier.need(place), ("passed", False))[1])
    for commands, found in (([["json.tool", "--unknown"], ["this"]], 1), ([["this"]], 0)):
        monkeypatch.setattr(tiers, "_linters", lambda _, commands=commands: commands)
        assert tiers.lint(place) == found
        assert tiers.run_tests(place, ["lint", "planted"], []) == bool(found)
        said = capfd.readouterr().out
        assert ("unrecognized arguments: --unknown" in said) == bool(found)
        assert "lint: this" in said
        table = said[said.index("tier            seconds") :].splitlines()[1:]
        assert [line.split()[1] for line in table] == ["lint", "planted"]
        assert table[0].endswith("failed" if found else "passed")
        assert table[1].endswith("passed")
    assert order == ["need"] * 2


def test_what_loads_transformers_is_tested_with_the_oldest():
    """The files that import it, themselves or by a module of tests/support, when they are read."""
    support = ROOT / "tests" / "support"

    def loads(file, seen=frozenset()):
        names = {
            word
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for word in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            )
        }
        if any(name.split(".")[0] == "transformers" for name in names):
            return True
        paths = {support / f"{name.replace('.', '/')}.py" for name in names}
        return any(loads(path, seen | {path}) for path in paths - seen if path.is_file())

    folder = ROOT / "tests" / "rewards"
    found = {path.relative_to(ROOT).as_posix() for path in folder.rglob("test_*.py") if loads(path)}
    assert len(found) > 6
    assert all((ROOT / name).exists() for name in tiers.TRANSFORMERS)
    assert {name for name in found if not name.startswith(tiers.TRANSFORMERS)} == set()


def test_another_host_stands_on_the_default_ones_environment(monkeypatch):
    keys = {name: pins.cache_key(pin) for name, pin in pins.HOSTS.items()}
    assert len(set(keys.values())) == len(keys)
    other = dataclasses.replace(pins.DEFAULT_PIN, sha256="0")
    monkeypatch.setattr(pins, "DEFAULT_PIN", other)
    for name, pin in pins.HOSTS.items():
        assert pins.cache_key(pin) != keys[name] or name == pins.DEFAULT_HOST


def test_a_layer_sees_the_packages_below_and_its_own_come_first(tmp_path):
    pythons = []
    for name in ("base", "layer"):
        venv.create(tmp_path / name, with_pip=False)
        python = environment.python_of(tmp_path / name)
        packages = environment.packages_of(python)
        (packages / "both.py").write_text(f"where = {name!r}")
        (packages / f"{name}_only.py").write_text("")
        pythons.append(python)
    environment.see_packages_of(*pythons)
    code = "import both, base_only, layer_only; print(both.where)"
    told = subprocess.run([pythons[1], "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "layer"
    assert subprocess.run([pythons[0], "-c", "import layer_only"], capture_output=True).returncode


def test_the_oldest_host_is_the_one_the_pack_requires_and_its_tests_exist():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-comfyui = ">={pins.OLDEST_HOST}"' in text
    tier = next(tier for tier in tiers.TIERS if tier.name == "host_oldest")
    assert tier.host == pins.OLDEST_HOST
    for test in tier.chosen:
        file, _, name = test.partition("::")
        assert f"def {name or 'test_'}" in (ROOT / file).read_text(encoding="utf-8")


def test_a_run_with_another_host_leaves_out_the_tier_that_brings_its_own(monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)

    def tiers_of(*words):
        return default_tiers(parser().parse_args(["test", *words]))

    assert "host_oldest" in tiers_of("--host-version", pins.DEFAULT_HOST)
    assert "host_oldest" not in tiers_of("--host-version", "0.20.1")
    assert "host" in tiers_of("--host-version", "0.20.1")


def test_every_part_of_a_soak_names_tests_that_read_what_it_sets():
    tests = pins.ROOT / "tests"
    texts = {file: file.read_text(encoding="utf-8") for file in tests.rglob("*.py")}
    for name, part in soak.PARTS.items():
        files = [pins.ROOT / file for tier in part.tests.values() for file in tier]
        assert all(file.is_file() for file in files), name
        for variable in part.more:
            readers = [file for file, text in texts.items() if f'"{variable}"' in text]
            modules = {file.stem for file in readers}
            assert any(
                file in readers or any(f"import {m}" in texts[file] for m in modules)
                for file in files
            ), f"{name}: nothing reads {variable}"
