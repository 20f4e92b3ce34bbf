"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("fewshot-nlp")
except PackageNotFoundError:  # a source tree on the path
    VERSION = "not installed"
