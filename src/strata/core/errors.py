"""What can go wrong, cut by what the caller does next.

StrataError                      .code (stable)  .hint (what to do)
├─ InvalidInput(ValueError)      can never be accepted as given
├─ NotFound(KeyError)            a named branch, space or stream is missing (a missing key is None)
│  └─ NotIndexed                 no index answers this; declare one, or ask for a scan
├─ HistoryTrimmed                .requested .oldest
├─ AlreadyExists                 the name is taken
├─ Conflict                      .keys .paths .ranges: a commit came first, retry
│  └─ MergeConflict              .conflicts: resolve and merge again
├─ Closed                        the handle is closed
├─ ReadOnly                      the handle or the files refuse writes
├─ Locked                        another process owns the files
├─ InvalidTransition             .from_ .to: not a step of this lifecycle
├─ RunClosed                     the run is no longer active
├─ LimitExceeded                 .limit .actual
├─ StorageError(OSError)         the disk said no; earlier commits are safe
│  └─ Corrupt                    .file .offset: a checksum failed
├─ OutcomeUnknown                .transaction: handed over, not confirmed; ask again
├─ RemoteError                   the network or the other side
└─ InternalError                 our bug
"""
