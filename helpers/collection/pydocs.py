"""The default collection: API reference passages read from the installed scientific Python packages.

Nothing is downloaded: numpy, pandas, scipy, scikit-learn and matplotlib are installed with the course,
and each public object carries its reference page as its docstring.
"""

import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from typing import Any

# Modules whose public members become passages. Earlier ones win when two share a text.
MODULES = """
numpy numpy.linalg numpy.fft numpy.random numpy.polynomial numpy.strings numpy.lib.stride_tricks
pandas pandas.api.types pandas.api.indexers pandas.plotting pandas.tseries.offsets pandas.tseries.frequencies
scipy.cluster.hierarchy scipy.cluster.vq scipy.differentiate scipy.fft scipy.integrate scipy.interpolate scipy.io
scipy.io.wavfile scipy.linalg scipy.ndimage scipy.optimize scipy.signal scipy.signal.windows scipy.sparse
scipy.sparse.linalg scipy.sparse.csgraph scipy.spatial scipy.spatial.distance scipy.spatial.transform
scipy.special scipy.stats scipy.stats.qmc scipy.stats.contingency
sklearn.calibration sklearn.cluster sklearn.compose sklearn.covariance sklearn.cross_decomposition
sklearn.datasets sklearn.decomposition sklearn.discriminant_analysis sklearn.dummy sklearn.ensemble
sklearn.feature_extraction sklearn.feature_extraction.text sklearn.feature_extraction.image
sklearn.feature_selection sklearn.gaussian_process sklearn.gaussian_process.kernels sklearn.impute
sklearn.inspection sklearn.isotonic sklearn.kernel_approximation sklearn.kernel_ridge sklearn.linear_model
sklearn.manifold sklearn.metrics sklearn.mixture sklearn.model_selection
sklearn.multiclass sklearn.multioutput sklearn.naive_bayes sklearn.neighbors sklearn.neural_network
sklearn.pipeline sklearn.preprocessing sklearn.random_projection sklearn.semi_supervised sklearn.svm sklearn.tree
matplotlib.pyplot matplotlib matplotlib.animation matplotlib.colors matplotlib.dates matplotlib.gridspec
matplotlib.lines matplotlib.patches matplotlib.collections matplotlib.text matplotlib.ticker
matplotlib.tri matplotlib.widgets matplotlib.image matplotlib.patheffects
""".split()

# Classes whose methods and properties become passages too.
CLASSES = """
numpy.random.Generator numpy.polynomial.Polynomial
pandas.DataFrame pandas.Series pandas.Series.str pandas.Series.dt pandas.Series.cat pandas.DataFrame.plot
pandas.api.typing.DataFrameGroupBy pandas.api.typing.Rolling
matplotlib.axes.Axes matplotlib.figure.Figure
""".split()

# scipy.special has 340 functions, most of them for specialists; these are the ones people meet.
SPECIAL = set(
    "beta betaln binom comb digamma entr erf erfc erfinv expit expm1 exprel factorial factorial2 gamma gammainc "
    "gammaln hyp2f1 iv jv kl_div legendre_p log1p log_softmax logit logsumexp ndtr ndtri perm poch polygamma rel_entr "
    "sinc softmax softplus stirling2 xlog1py xlogy zeta".split()
)

# Their signatures are those of whatever backend pyplot has loaded by then.
BACKEND_FUNCTIONS = {f"matplotlib.pyplot.{name}" for name in ("draw_if_interactive", "new_figure_manager", "show")}

MAX_WORDS = 60  # of summary text in a passage: with name and signature, about 80 tokens
MAX_SIGNATURE = 160  # characters
_UNDERLINE = re.compile(r"^\s*[-=~]{3,}\s*$")
_DIRECTIVE = re.compile(r"^\s*\.\. [\w-]+:")
_SIGNATURE_LINE = re.compile(r"^[\w.]+\(.*\)(\s*->.*)?$", re.S)


def _members(owner: Any) -> Iterator[tuple[str, Any]]:
    """Public members in alphabetical order; what cannot be read without opting in is left out."""
    for name in sorted(set(getattr(owner, "__all__", None) or dir(owner))):
        if name.startswith("_"):
            continue
        try:
            yield name, getattr(owner, name)
        except (AttributeError, ImportError):
            continue


def _resolve(path: str) -> Any:
    parts = path.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            continue
        for part in parts[i:]:
            found = getattr(found, part)
        return found
    raise ImportError(f"{path} is not installed: run `make setup`.")


def _objects() -> Iterator[tuple[str, Any]]:
    """(qualified name, object) pairs in the order that decides which name is the canonical one."""
    import numpy
    import pandas
    from matplotlib.artist import Artist

    # Errors, and the dozens of scalar and column types that differ in a number of bits.
    left_out = (BaseException, numpy.generic, pandas.api.extensions.ExtensionDtype)
    # All are imported before any is read: scipy rewrites the page of numpy.sinc.
    for module_name, module in [(name, importlib.import_module(name)) for name in MODULES]:
        declared = hasattr(module, "__all__")
        for name, member in _members(module):
            home = getattr(member, "__module__", None) or module_name
            if inspect.ismodule(member) or not callable(member):
                continue
            if inspect.isclass(member) and issubclass(member, left_out):
                continue
            if type(getattr(member, "__self__", None)).__name__ == "RandomState":
                continue  # numpy's legacy generator; Generator's methods take its place
            own = home.startswith(module_name.split(".")[0] if declared else module_name)
            if not own and not (module_name == "matplotlib.pyplot" and inspect.isfunction(member)):
                continue  # imported from elsewhere, not part of this module
            if module_name == "scipy.special" and name not in SPECIAL:
                continue
            yield f"{module_name}.{name}", member
    for class_name in CLASSES:
        cls = _resolve(class_name)
        for name, member in _members(cls):
            if class_name.startswith("matplotlib") and (hasattr(Artist, name) or name.startswith("get_")):
                continue  # the few hundred setters that every artist inherits, and plain getters
            if class_name == "pandas.Series" and hasattr(pandas.DataFrame, name):
                continue  # the same method, described once
            if callable(member) or isinstance(member, property) or hasattr(member, "__get__"):
                yield f"{class_name}.{name}", member


def _summary(page: str) -> str:
    """The paragraphs before the first section or directive, without signature lines and reST markup."""
    lines, kept = page.split("\n"), []
    for i, line in enumerate(lines):
        if (i + 1 < len(lines) and line.strip() and _UNDERLINE.match(lines[i + 1])) or _DIRECTIVE.match(line):
            break
        kept.append(line)
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", "\n".join(kept))]
    words: list[str] = []
    for paragraph in paragraphs:
        if (
            not paragraph
            or _SIGNATURE_LINE.match(paragraph)
            or paragraph.startswith((">>>", "Call signature", ".. [", "As an instance of the"))
        ):
            continue
        new = re.sub(r":[\w:]+:`~?\.?([^`<]*?)(?:\s*<[^`]*>)?`", r"\1", paragraph)
        new = re.sub(r"\s?\[\w+\]_|`+|\*\*?(?=\w)|(?<=\w)\*\*?(?=\W|$)|~(?=[a-z.])", "", new).replace("::", ":").split()
        if words and len(words) + len(new) > MAX_WORDS:
            break
        words += new
    return " ".join(words[: 2 * MAX_WORDS])


def _signature(name: str, member: Any, page: str) -> str:
    """The name with its parameters and defaults; annotations, which vary with Python, stay out."""
    if isinstance(member, property) or not callable(member):
        return name
    try:
        if name in BACKEND_FUNCTIONS:
            return f"{name}(*args, **kwargs)"
        found = inspect.signature(member)
        kept = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name not in ("self", "cls")]
        text = str(found.replace(parameters=kept, return_annotation=found.empty))
    except (ValueError, TypeError):  # compiled code; its docstring may open with the signature
        first = " ".join(page.strip().split("\n\n")[0].split())
        match = re.match(rf"(?:[\w.]*\.)?{re.escape(name.split('.')[-1])}(\(.*?\))(?:\s*->.*)?$", first)
        text = match.group(1) if match else "()"
    text = re.sub(r", /, out=None, \*, where=True.*$", ")", text)  # the tail that all ufuncs share
    text = re.sub(r"<[^>]*>", "...", text)
    return name + (text if len(text) <= MAX_SIGNATURE else text[: MAX_SIGNATURE - 5].rsplit(",", 1)[0] + ", ...)")


def _settled(page: str) -> str:
    """The page without what differs from process to process: drawn samples and the order of a set."""
    page = re.sub(r"(>>> X\.sample\(.*\)\n).*# may vary", r"\1array([...])  # may vary", page)
    return re.sub(r"(?<=argument\(s\) ``)\{.*?\}", lambda m: f"{{{', '.join(sorted(m[0][1:-1].split(', ')))}}}", page)


def _is_out(name: str, page: str) -> bool:
    head = page[:600].lower()
    return (
        "deprecated::" in head
        or "(deprecated" in head
        or head.startswith(("deprecated", "refer to ", "alias for", "same as "))
        or "[*deprecated*]" in head
        or "legacy" in head.split("\n\n")[0]
        or ".testing" in name
        or name.endswith(".test")
        or bool(re.search(r"(Warning|Error)$", name))
    )


def read_pydocs() -> tuple[dict[str, str], dict[str, str]]:
    """Read the reference of the installed packages.

    Returns
    -------
    passages : {qualified name: "name(signature): summary"}, about 80 tokens each, sorted by name
    pages : {qualified name: the whole docstring}, the same ids

    The same versions of the packages give the same texts, on any machine.
    """
    passages: dict[str, str] = {}
    pages: dict[str, str] = {}
    seen: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, member in _objects():
            page = inspect.getdoc(member)
            if not page or _is_out(name, page):
                continue
            summary = _summary(page)
            if len(summary.split()) < 3 or summary.lower() in seen or name in passages:
                continue
            seen.add(summary.lower())
            passages[name] = f"{_signature(name, member, page)}: {summary}"
            pages[name] = _settled(page)
    return dict(sorted(passages.items())), dict(sorted(pages.items()))
