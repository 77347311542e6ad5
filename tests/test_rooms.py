"""The shape of the house, read off the source: who imports whom, and what no file may hold."""

import ast
import importlib.util
import itertools
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pydantic
import pytest

import isogloss
from isogloss.data.recipes import all_corpora
from isogloss.data.rows import COLUMNS

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src/isogloss"
# Data flows one way: a file imports from its own room and from those above it.
ORDER = [
    *("audio", "text", "metrics", "data", "nn", "encoders", "decoding", "heads", "model", "interop", "objectives"),
    *("training", "adaptation", "evaluation", "serving", "cli"),
]
GROUND = {"errors", "sequence", "framing", "files", "config"}
COMMAND_LINE = {"cli", "__main__"}
SIDE_BY_SIDE = {("text", "audio")}
LONGEST = 400
WORDS = {"confidence", "most", "recognition", "normalisation"}
ENCODERS = {"apc", "cpc", "hubert", "mockingjay", "pase", "wav2vec2"}
"""Methods after which encoders, or families of models of others, are called."""

DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
FILES = sorted(SOURCE.rglob("*.py"))
SCRIPTS = [f for part in ("benchmarks", "docs") for f in sorted((REPOSITORY / part).rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def room(module: str) -> str:
    """The room of `isogloss.ROOM.…`; ground floor and front door have their own names."""
    first = module.split(".")[1] if "." in module else "front door"
    if first in COMMAND_LINE:
        return "cli"
    return "ground" if first in GROUND else first


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of everything imported, at the top, inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: relative import"
            inside = {alias.name for alias in node.names} - {"__version__"}
            if node.module == "isogloss":
                yield from ((node.lineno, f"isogloss.{what}") for what in inside)
            else:
                yield node.lineno, str(node.module)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_rooms_stand_in_order(path: Path) -> None:
    own = room(module_of(path))
    if own == "front door":
        return
    for line, module in imports(path):
        if module.partition(".")[0] != "isogloss":
            continue
        other = room(module)
        where = f"{name(path)}:{line}: {own} imports {module}"
        assert (own, other) not in SIDE_BY_SIDE, where
        if own == "ground":
            assert other == "ground", where
        elif other != "ground":
            assert ORDER.index(other) <= ORDER.index(own), where


def test_every_room_is_known() -> None:
    rooms = {room(module_of(path)) for path in FILES} - {"ground", "front door"}
    assert rooms <= set(ORDER), f"a new room needs its place in the order: {rooms - set(ORDER)}"


def imported_files(path: Path, modules: set[str]) -> Iterator[str]:
    """The modules of the package that a file imports: `from isogloss.cli import terminal` is the file terminal.py."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inside & modules or {str(node.module)} & modules
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & modules


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, [] if there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for other in sorted(edges.get(module, ())):
            if found := visit(other, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := visit(module, []))), [])


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {module_of(path) for path in FILES}
    edges = {module_of(path): set(imported_files(path, modules)) for path in FILES}
    # A package's own file gathers what is in it.
    edges = {module: others - {module.rpartition(".")[0]} for module, others in edges.items()}
    assert cycle(edges) == []
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_no_method_is_named_outside_the_objectives() -> None:
    """In code, that is: docstrings may say where an idea is from. Names that are English words prove nothing."""
    from isogloss.objectives import BaseConfig, FitConfig

    names: set[str] = set()
    waiting = [BaseConfig, FitConfig]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if (default := kind.model_fields["name"].default) and isinstance(default, str):
            names.add(default)
    assert {"best_rq", "maestro", "kmeans"} <= names
    for path in FILES:
        if room(module_of(path)) == "objectives":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Constant) and node.value in names - WORDS - ENCODERS
            assert not named, f"{name(path)}:{getattr(node, 'lineno', 0)} names the method {getattr(node, 'value', '')}"


def test_training_names_no_method() -> None:
    methods = {f"isogloss.objectives.{path.stem}" for path in (SOURCE / "objectives").glob("*.py")}
    methods -= {"isogloss.objectives.base", "isogloss.objectives.fit", "isogloss.objectives.__init__"}
    assert methods
    for path in (SOURCE / "training").glob("*.py"):
        assert methods.isdisjoint(module for _, module in imports(path)), name(path)


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS], ids=name)
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name(path)} has {lines} lines; part it"


FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load",
    "os.system", "os.popen", "torch.jit.load",
}  # fmt: skip


def dangers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What could run code that came with data, or hand a string to a shell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            yield from ((node.lineno, m) for m in modules if m.partition(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            if (called := ast.unparse(node.func)) in FORBIDDEN_CALLS:
                yield node.lineno, called
            for keyword in node.keywords:
                if keyword.arg in ("shell", "allow_pickle", "trust_remote_code"):
                    yield node.lineno, f"{keyword.arg}={ast.unparse(keyword.value)}"


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS], ids=name)
def test_no_file_runs_what_it_reads(path: Path) -> None:
    assert list(dangers(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "torch.load(p)",
        "yaml.load(t)",
        "run(c, shell=True)",
    ],
)
def test_dangers_are_seen(code: str) -> None:
    assert list(dangers(ast.parse(code)))


# (B, T, D), (…, T), (n, 64 + 512), (B, ceil(T/4), V); a loss is a scalar; dropout takes any shape.
SHAPE = re.compile(r"\((?:…|n|[BTSUDFVKCM])\s*,[^()]*(?:\([^()]*\)[^()]*)*\)|\bscalar\b|\b[Aa]ny shape\b")


def forwards() -> Iterator[tuple[str, str]]:
    """(where, docstrings of the class and of its forward) of every module with a forward."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "forward":
                        said = f"{ast.get_docstring(node)}\n{ast.get_docstring(method)}"
                        yield f"{name(path)}:{method.lineno} {node.name}", said


@pytest.mark.parametrize(("where", "said"), [pytest.param(*found, id=found[0]) for found in forwards()])
def test_forward_says_its_shapes(where: str, said: str) -> None:
    assert SHAPE.search(said), f"{where}: neither the class nor its forward names shapes like (B, T, D)"


def configurations() -> list[type[pydantic.BaseModel]]:
    """Every pydantic model of the package."""
    for module in pkgutil.walk_packages(isogloss.__path__, "isogloss."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: dict[str, type[pydantic.BaseModel]] = {}
    waiting = list(pydantic.BaseModel.__subclasses__())
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if model.__module__.startswith("isogloss"):
            found[f"{model.__module__}.{model.__qualname__}"] = model
    return [found[key] for key in sorted(found)]


def test_every_field_is_described() -> None:
    silent = []
    # Figures are results: their classes say what they are.
    for model in (m for m in configurations() if not m.__module__.startswith("isogloss.evaluation")):
        assert model.__doc__, f"{model.__module__}.{model.__qualname__} has no docstring"
        assert model.model_config.get("extra") == "forbid", f"{model.__qualname__} takes unknown keys"
        for key, field in model.model_fields.items():
            # A literal of one value only says which kind of configuration it is.
            is_mark = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
            if not (field.description or is_mark):
                silent.append(f"{model.__module__}.{model.__qualname__}.{key}")
    assert silent == []


def test_the_page_of_recipes_is_true() -> None:
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs/generate_recipes.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.PAGE.read_text(encoding="utf-8") == generate.page(), "run make docs"


def test_the_licence_of_every_corpus_is_listed() -> None:
    page = (REPOSITORY / "DATA-LICENCES.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    listed = {row[0].strip(): row[-1].strip() for row in rows}
    for corpus in all_corpora().values():
        assert listed.get(corpus.name) == corpus.licence


def test_the_page_of_data_names_every_column() -> None:
    page = (REPOSITORY / "docs/data.md").read_text(encoding="utf-8")
    missing = [column for columns in COLUMNS.values() for column in columns if f"`{column}`" not in page]
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in DOCS)])
def test_links_lead_somewhere(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)", text) if "://" not in t]
    assert [t for t in targets if not ((REPOSITORY / page).parent / t).exists()] == []


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in asked} - {"isogloss"}
    reasons = (REPOSITORY / "docs/decisions.md").read_text(encoding="utf-8")
    assert [n for n in sorted(names) if n not in reasons] == []
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    names.remove("triton")  # a GPU's torch brings its own version
    assert [n for n in sorted(names) if n.lower().replace("_", "-") not in pinned] == []
