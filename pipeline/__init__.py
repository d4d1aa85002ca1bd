"""hepatag: labels for PubMed abstracts on interventional oncology of the liver.

From Python::

    import pipeline

    model = pipeline.load("hepatag-mini")
    results = model.label([{"title": "…", "abstract": "…"}], reasons=True)

See `pipeline.api` for what comes back. Nothing heavy is imported before `load` is used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.api import Labeller, Result, load

__version__ = "0.1.0"
__all__ = ["Labeller", "Result", "__version__", "load"]


def __getattr__(name: str) -> object:
    """The public names of `pipeline.api`, imported when first used (PEP 562)."""
    if name in ("Labeller", "Result", "load"):
        from pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
