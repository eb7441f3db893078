from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RolloutPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLLOUT_PHASE_UNSPECIFIED: _ClassVar[RolloutPhase]
    ROLLOUT_PHASE_IDLE: _ClassVar[RolloutPhase]
    ROLLOUT_PHASE_CHECK: _ClassVar[RolloutPhase]
    ROLLOUT_PHASE_LOAD: _ClassVar[RolloutPhase]
    ROLLOUT_PHASE_PROVE: _ClassVar[RolloutPhase]
    ROLLOUT_PHASE_SHADOW: _ClassVar[RolloutPhase]
    ROLLOUT_PHASE_CANARY: _ClassVar[RolloutPhase]
    ROLLOUT_PHASE_RETIRE: _ClassVar[RolloutPhase]
    ROLLOUT_PHASE_ROLLED_BACK: _ClassVar[RolloutPhase]
    ROLLOUT_PHASE_EXPERIMENT: _ClassVar[RolloutPhase]
ROLLOUT_PHASE_UNSPECIFIED: RolloutPhase
ROLLOUT_PHASE_IDLE: RolloutPhase
ROLLOUT_PHASE_CHECK: RolloutPhase
ROLLOUT_PHASE_LOAD: RolloutPhase
ROLLOUT_PHASE_PROVE: RolloutPhase
ROLLOUT_PHASE_SHADOW: RolloutPhase
ROLLOUT_PHASE_CANARY: RolloutPhase
ROLLOUT_PHASE_RETIRE: RolloutPhase
ROLLOUT_PHASE_ROLLED_BACK: RolloutPhase
ROLLOUT_PHASE_EXPERIMENT: RolloutPhase

class Rollout(_message.Message):
    __slots__ = ("phase", "stable", "candidate", "percent", "shadow_percent", "steps", "step", "held", "reason", "note", "history")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STABLE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_PERCENT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    phase: RolloutPhase
    stable: int
    candidate: int
    percent: float
    shadow_percent: float
    steps: _containers.RepeatedScalarFieldContainer[float]
    step: int
    held: bool
    reason: str
    note: str
    history: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    def __init__(self, phase: _Optional[_Union[RolloutPhase, str]] = ..., stable: _Optional[int] = ..., candidate: _Optional[int] = ..., percent: _Optional[float] = ..., shadow_percent: _Optional[float] = ..., steps: _Optional[_Iterable[float]] = ..., step: _Optional[int] = ..., held: _Optional[bool] = ..., reason: _Optional[str] = ..., note: _Optional[str] = ..., history: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("time", "text")
    TIME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    time: float
    text: str
    def __init__(self, time: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class RolloutsGetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RolloutsGetResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class RolloutsStartRequest(_message.Message):
    __slots__ = ("version", "steps", "step_seconds", "shadow_percent")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_PERCENT_FIELD_NUMBER: _ClassVar[int]
    version: int
    steps: _containers.RepeatedScalarFieldContainer[float]
    step_seconds: float
    shadow_percent: float
    def __init__(self, version: _Optional[int] = ..., steps: _Optional[_Iterable[float]] = ..., step_seconds: _Optional[float] = ..., shadow_percent: _Optional[float] = ...) -> None: ...

class RolloutsStartResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class SetTrafficRequest(_message.Message):
    __slots__ = ("percent", "version")
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    percent: float
    version: int
    def __init__(self, percent: _Optional[float] = ..., version: _Optional[int] = ...) -> None: ...

class SetTrafficResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class PromoteResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("reason", "version")
    REASON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    reason: str
    version: int
    def __init__(self, reason: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class RollBackResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class RolloutsWatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RolloutsWatchResponse(_message.Message):
    __slots__ = ("rollout", "versions")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    versions: _containers.RepeatedCompositeFieldContainer[VersionFigures]
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ..., versions: _Optional[_Iterable[_Union[VersionFigures, _Mapping]]] = ...) -> None: ...

class VersionFigures(_message.Message):
    __slots__ = ("version", "calls_per_second", "calls", "errors", "degraded", "p50_ms", "p99_ms", "shadow_calls", "shadow_errors", "overlap", "drift")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_CALLS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_ERRORS_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    version: int
    calls_per_second: float
    calls: int
    errors: int
    degraded: int
    p50_ms: float
    p99_ms: float
    shadow_calls: int
    shadow_errors: int
    overlap: float
    drift: float
    def __init__(self, version: _Optional[int] = ..., calls_per_second: _Optional[float] = ..., calls: _Optional[int] = ..., errors: _Optional[int] = ..., degraded: _Optional[int] = ..., p50_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ..., shadow_calls: _Optional[int] = ..., shadow_errors: _Optional[int] = ..., overlap: _Optional[float] = ..., drift: _Optional[float] = ...) -> None: ...
