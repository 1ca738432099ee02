"""The HTTP API: schedules that are looked at, fired, paused and resumed by requests; needs ``dpcore[api]``.

Its floors, each of which stands on those below it:

============  ==========================================================================
``server``    a FastAPI app of its own (:func:`create_app`), and uvicorn (:func:`serve`)
``router``    paths in somebody's FastAPI app (:func:`create_trigger_router`)
``bodies``    what a request may carry, described and read
``firings``   what it fires, once for each key, and how the end of a run is waited for
``answers``   what it is told
``security``  who may ask
``problems``  what is told of what went wrong
============  ==========================================================================
"""

from dpcore.errors import AdapterImportError

try:
    from dpcore_plugins.api.router import create_trigger_router
    from dpcore_plugins.api.server import create_app, serve
except ModuleNotFoundError as error:
    if error.name not in ("fastapi", "pydantic", "starlette", "uvicorn"):
        raise
    raise AdapterImportError("HTTP API", __name__, "dpcore", str(error), "dpcore[api]") from error

__all__ = ("create_app", "create_trigger_router", "serve")
