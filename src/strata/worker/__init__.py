"""What comes with time: timers of machines that fire by themselves, and webhooks.

    with strata.open("memory.strata") as db, Worker(db):
        ...

    worker.py      the worker and its threads            timers.py     what fires
    delivery.py    what one hook is told, in rounds      messages.py   what a commit has for it
    sending.py     one POST, within its time             addresses.py  where to
    signing.py     signatures, and `verify`              retries.py    when again
    leases.py      who delivers, of several

`strata serve` has one, and `strata worker` is one. Hooks are declared as `db.webhooks`: see `api/webhooks`.
"""

from strata.worker.addresses import Allowed, network_of
from strata.worker.retries import Retries
from strata.worker.sending import Answer, HttpTransport, Transport
from strata.worker.signing import verify
from strata.worker.worker import Worker

__all__ = ["Allowed", "Answer", "HttpTransport", "Retries", "Transport", "Worker", "network_of", "verify"]
