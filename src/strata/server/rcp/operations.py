"""The operations of RCP, by name."""

from __future__ import annotations

from typing import Final

from strata.server.rcp import backups, batches, conversation, instances, subscriptions, upkeep
from strata.server.rcp.operation import Operation

OPERATIONS: Final[dict[str, Operation]] = {
    operation.name: operation
    for module in (conversation, instances, batches, subscriptions, upkeep, backups)
    for operation in module.TABLE
}
