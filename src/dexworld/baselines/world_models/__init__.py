"""The world models that DexWM is compared with, one file each: every file here is imported and registers its kind."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
