"""Plans of parts of a pipeline: what runs, in what order, and what side by side.

Prints::

    everything         load prices > total > report > sent
    total              load prices > total
    report+            load prices > total > report > sent
    tag:slow           load
    all but sent       load prices > total > report
    from report on     report > sent
    edges of total: load -> rows, prices -> prices
    a plan with the same edges has the same id: True
"""

from dpcore import Registry, plan

tasks = Registry()
tasks.task(name="load", tags=["slow"])(lambda: [3, 2])
tasks.task(name="prices")(lambda: {"tea": 14, "jam": 0})
tasks.task(name="total", inputs={"rows": "load"})(lambda rows, prices: sum(rows) * prices["tea"])
tasks.task(name="report")(lambda total: f"{total} earned")
tasks.task(name="sent", dependencies=["report"])(lambda: None)  # takes nothing, so it only waits


def shown(*selection: str, **arguments: object) -> str:
    """Write the levels of a plan; what is on one level may run side by side."""
    found = plan(*selection, registry=tasks, **arguments)  # type: ignore[arg-type]
    return " > ".join(" ".join(level) for level in found.levels)


if __name__ == "__main__":
    print(f"everything         {shown()}")
    print(f"total              {shown('total')}")
    print(f"report+            {shown('report+')}")
    print(f"tag:slow           {shown('tag:slow')}")
    print(f"all but sent       {shown(exclude=['sent'])}")
    print(f"from report on     {shown(root_tasks=['report'], params=['total'])}")  # given, so nothing makes it
    edges = [edge for edge in plan("total", registry=tasks).edges if edge.task == "total"]
    print(f"edges of total: {', '.join(f'{edge.upstream} -> {edge.parameter}' for edge in edges)}")
    print("a plan with the same edges has the same id:", plan(registry=tasks).id == plan("+sent", registry=tasks).id)
