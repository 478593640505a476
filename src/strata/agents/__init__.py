"""Agents side by side: fork many, let each plan work on a fork of its own, measure, merge the best.

    runs = agents.fork_many(db, 40)                         forty runs, forked off the same version
    outcomes = agents.run_plans(runs, plan, timeout=5)      plan(run) on each, at the same time
    print(outcomes)                                         what became of them, as a table
    outcomes.merge_winner(by="score")                       one commit on the branch they came from

    forks.py      fork_many, run_plans: who runs, when, and what becomes of those that do not come back
    outcomes.py   evaluate: measures, the table, the best, the merge
    child.py      plans in processes of their own, which can be killed

What a plan does wrong is recorded as the failure of its run, and of no other: see `run_plans`.
"""

from strata.agents.forks import fork_many, run_plans
from strata.agents.outcomes import Outcome, Outcomes, evaluate

__all__ = ["Outcome", "Outcomes", "evaluate", "fork_many", "run_plans"]
