"""The scheduler: schedules, what they fire, and when.

One heap has the next time of every schedule, and one task sleeps until the first of them.  What is due then is
fired before the next times are computed.

Several schedulers that share a run store have the same schedules.  Each time is claimed by one of them before it
fires; of one that dies, another takes over what it had claimed and not fired, and the runs that it had begun.
The ids of runs and events come from the firing, so what is done twice comes to the same.

Its floors, each of which stands on those below it:

==============  ==================================================================
``scheduler``   the heap, and what becomes of what is due (:class:`Scheduler`)
``listening``   triggers that fire when something happens
``together``    the events of many schedules that are due at one instant
``dispatch``    what firings start: events, and runs, as many as there may be
``telling``     what is told of schedules
``standings``   what is known of schedules, in the run store
``schedule``    what one can ask of a schedule (:class:`Schedule`)
``policies``    what is due, what was missed, decided without waiting
==============  ==================================================================
"""

from dpcore.scheduler.policies import Misfire as Misfire
from dpcore.scheduler.policies import Policy as Policy
from dpcore.scheduler.schedule import Fired as Fired
from dpcore.scheduler.schedule import Schedule as Schedule
from dpcore.scheduler.schedule import Starts as Starts
from dpcore.scheduler.scheduler import Scheduler as Scheduler
from dpcore.scheduler.telling import ScheduleChanged as ScheduleChanged
from dpcore.scheduler.telling import ScheduleFired as ScheduleFired

__all__ = ("Fired", "Misfire", "Policy", "Schedule", "ScheduleChanged", "ScheduleFired", "Scheduler", "Starts")
