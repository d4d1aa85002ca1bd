"""hepatag: labels for PubMed abstracts on interventional oncology of the liver."""

__version__ = "0.1.0"
