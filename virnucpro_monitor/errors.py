"""The one error tree.

Every error that a user can cause is a `MonitorError`: its text is one sentence that says what is
wrong, where, and what to do. `cli.main` catches it once, prints it and exits with `exit_code`.

    MonitorError                exit code 1
    ├── ConfigurationError      a setting, option or file of the user's is wrong
    ├── WeightsError            a checkpoint is missing, corrupt or not safe to load
    ├── BenchmarkError          a FASTA file or benchmark set cannot be used
    ├── DiskError               a disk of our own files is full, closed or gone
    ├── DeviceError             the device asked for is not there, or has no room
    ├── ProtocolError           a protocol is unknown, altered or tighter than the noise
    ├── FaultNotInPlaceError    the self-test could not plant one of its faults
    ├── RepositoryError         git: no repository, unknown revision, unreachable remote
    │   └── AmbiguousRevision   a short hash that fits several commits
    ├── TargetError             a target's code cannot be loaded or breaks its interface
    ├── StoreError              the database cannot be read or written
    │   ├── MissingDatabase
    │   ├── DatabaseAway        it cannot be reached just now
    │   ├── OutdatedSchema
    │   ├── NewerSchema
    │   └── ClosedMonitor       a monitor was asked after it was closed
    ├── NotFoundError           no such run, target, benchmark or commit in the database
    └── LockedError             another runner holds the lock
"""


class MonitorError(Exception):
    """Base of every error that is shown to the user as one sentence."""

    exit_code = 1


class ConfigurationError(MonitorError):
    pass


class WeightsError(MonitorError):
    pass


class BenchmarkError(MonitorError, ValueError):
    """Also a `ValueError`, which is what callers of the seed's interface expect."""


class DiskError(MonitorError):
    pass


class DeviceError(MonitorError):
    pass


class CardMemoryError(DeviceError):
    """A card has no memory left for what is to be computed there before any commit."""


class ClusterError(MonitorError):
    """A cluster cannot be reached or used, or has gone."""


class ProtocolError(MonitorError):
    pass


class FaultNotInPlaceError(MonitorError):
    pass


class RepositoryError(MonitorError):
    pass


class AmbiguousRevision(RepositoryError):
    pass


class TargetError(MonitorError):
    pass


class StoreError(MonitorError):
    pass


class MissingDatabase(StoreError):
    pass


class DatabaseAway(StoreError):
    """The database cannot be reached just now; the same may succeed a little later.

    Attributes:
        unsure: whether it was lost while a transaction was being stored, which may have succeeded.
    """

    unsure = False


class OutdatedSchema(StoreError):
    pass


class NewerSchema(StoreError):
    pass


class ClosedMonitor(StoreError):
    pass


class NotFoundError(MonitorError):
    pass


class LockedError(MonitorError):
    pass
