"""An I/O manager used by itself: values under a run, a task and a result id.

Prints::

    stored as r1/orders/1.pkl
    True [30, 10, 2]
    r1/orders/1 r1/total/1
    there is no result r1/orders/2
    2 forgotten, 0 left
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from dpcore import Ref
from dpcore.errors import ResultNotFoundError
from dpcore_plugins import FilesystemIO

if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        io = FilesystemIO(path=Path(folder))
        ref = Ref("r1", "orders", "1")
        where = io.save(ref, [30, 10, 2])
        print("stored as", Path(where).relative_to(folder))
        print(io.exists(ref), io.load(ref))
        io.save(Ref("r1", "total", "1"), 42)
        print(*io.list("r1"))
        try:
            io.load(Ref("r1", "orders", "2"))
        except ResultNotFoundError as error:
            print(str(error).partition(" in ")[0])
        print(io.clear("r1"), "forgotten,", len(io.list("r1")), "left")
