"""The world's own faults, on real files: killed processes, power cuts, full disks, limits of the system.

    operations   what a writing thread does: a function of the seed
    child        the process that is killed: threads that write and disturb, acknowledgements into a pipe
    life         one such process, seen from outside: it is started, listened to, and ended
    judge        the acknowledgement log, replayed into the model; the model against what was found
    private      mounts that no one else sees and that no death leaves behind
    rows         the lines of the fault matrix, what each needs, and what is skipped

`kill` and `indexed` (F6), `power` (F5), `full` (F7) and `limits` (F12) are rows. Each also runs by itself,
and says how: `cd tests && python -m crash.kill --seed 17`.
"""
