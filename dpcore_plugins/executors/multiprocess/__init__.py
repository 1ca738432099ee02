"""Jobs on worker processes of this machine, which may die, hang or be killed without harm to the program.

One *template* process is started per executor; it has imported dpcore and nothing of
the user's, and forks workers when it is asked.  Each worker has a channel to the
program, and a pipe of tokens: whoever reads the token of a job has it.

============  ==========================================================================
``executor``  the executor as an App has it
``pool``      who does which job, and what becomes of jobs whose worker is lost
``worker``    the program's end of one worker; ``template``: of the template
``loops``     readiness of files, on asyncio and trio
``orders``    a job as it is sent; ``wire``: frames
``forking``   the template process; ``working``: a worker process; ``line``: of its job
``machine``   what the system says of cores, memory and processes
============  ==========================================================================
"""

from dpcore_plugins.executors.multiprocess.executor import MultiprocessExecutor

__all__ = ("MultiprocessExecutor",)
