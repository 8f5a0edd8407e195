"""The package's layout: what a newcomer sees first, and how large a file and a function may be."""

import ast
from pathlib import Path

import beam_asr
from tests.project import module_tree

PACKAGE = Path(beam_asr.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 7


def functions():
    """Yields (place, node, class) of every function; the class is None outside of one."""
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        owners = {
            id(member): node
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for member in node.body
        }
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                place = f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
                yield place, node, owners.get(id(node))


def test_there_are_eight_rooms_and_six_files():
    there = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "py.typed"}
    rooms = {name for name in there if (PACKAGE / name).is_dir()}
    assert rooms == set(
        "audio cli inputs models outputs records storage transcripts transforms".split()
    )
    files = "__init__.py __main__.py _version.py errors.py process.py settings.py"
    assert there - rooms == set(files.split())


def test_the_init_file_of_a_room_is_its_docstring():
    for path in PACKAGE.rglob("*/__init__.py"):
        (node,) = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(node, ast.Expr), path


def test_no_file_is_long():
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: count for name, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_no_function_is_long():
    long = {
        place: node.end_lineno - node.lineno + 1
        for place, node, _ in functions()
        if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_no_function_has_many_parameters():
    many = {}
    for place, node, owner in functions():
        bases = [ast.unparse(base) for base in owner.bases] if owner else []
        if node.name == "__init__" and any("PTransform" in base for base in bases):
            continue  # of groups of settings
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([each for each in arguments if each.arg not in ("self", "cls")])
        if count > MAX_PARAMETERS:
            many[place] = count
    assert many == {}


def test_the_architecture_page_shows_the_modules_as_they_are():
    page = module_tree.PAGE.read_text(encoding="utf-8")
    assert page == module_tree.page(), "run make docs"
