"""Runs inside the sandbox, with the standard library alone: a fork server, the checker, and what answers it for the program.

`sandbox.launch` starts it, under a Python that may be another one than that of this process (3.9 or newer), so it imports nothing
of `amrsd_jax`.

    server     forks one job after the other, and never reads a byte of them
    job        the checker: holds the tests, asks a program, and writes the verdict
    spawner    forked from the job before that has read the tests; starts the program's processes
    program    the process that runs the program; it is sent calls, or the standard input
    remote     the checker's side of that: stubs in place of the program's functions
    suites     the forms of tests
    plain      values on their way between the two
"""
