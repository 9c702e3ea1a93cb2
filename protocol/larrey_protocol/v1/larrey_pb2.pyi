from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TakeRequest(_message.Message):
    __slots__ = ("node_version", "studies_seen", "opens_at")
    NODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    STUDIES_SEEN_FIELD_NUMBER: _ClassVar[int]
    OPENS_AT_FIELD_NUMBER: _ClassVar[int]
    node_version: str
    studies_seen: int
    opens_at: float
    def __init__(self, node_version: _Optional[str] = ..., studies_seen: _Optional[int] = ..., opens_at: _Optional[float] = ...) -> None: ...

class TakeReply(_message.Message):
    __slots__ = ("messages", "objects", "studies_revision", "server_time", "witness")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    STUDIES_REVISION_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    WITNESS_FIELD_NUMBER: _ClassVar[int]
    messages: bytes
    objects: _containers.RepeatedCompositeFieldContainer[FlowerObject]
    studies_revision: int
    server_time: float
    witness: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, messages: _Optional[bytes] = ..., objects: _Optional[_Iterable[_Union[FlowerObject, _Mapping]]] = ..., studies_revision: _Optional[int] = ..., server_time: _Optional[float] = ..., witness: _Optional[_Iterable[bytes]] = ...) -> None: ...

class FlowerObject(_message.Message):
    __slots__ = ("id", "content")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    content: bytes
    def __init__(self, id: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("data", "total_bytes")
    DATA_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    total_bytes: int
    def __init__(self, data: _Optional[bytes] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class OfferRequest(_message.Message):
    __slots__ = ("digest", "total_bytes")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    total_bytes: int
    def __init__(self, digest: _Optional[str] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class OfferReply(_message.Message):
    __slots__ = ("have_bytes", "complete")
    HAVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    have_bytes: int
    complete: bool
    def __init__(self, have_bytes: _Optional[int] = ..., complete: bool = ...) -> None: ...

class StorePart(_message.Message):
    __slots__ = ("digest", "total_bytes", "offset", "data")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    digest: str
    total_bytes: int
    offset: int
    data: bytes
    def __init__(self, digest: _Optional[str] = ..., total_bytes: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class GiveRequest(_message.Message):
    __slots__ = ("message", "objects", "receipt", "anchor")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    message: bytes
    objects: _containers.RepeatedCompositeFieldContainer[FlowerObject]
    receipt: bytes
    anchor: bytes
    def __init__(self, message: _Optional[bytes] = ..., objects: _Optional[_Iterable[_Union[FlowerObject, _Mapping]]] = ..., receipt: _Optional[bytes] = ..., anchor: _Optional[bytes] = ...) -> None: ...

class GiveReply(_message.Message):
    __slots__ = ("accepted", "code")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    code: str
    def __init__(self, accepted: bool = ..., code: _Optional[str] = ...) -> None: ...

class ListStudiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStudiesReply(_message.Message):
    __slots__ = ("proposals", "revision", "ended", "permits", "rosters", "orders", "anchors")
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    PERMITS_FIELD_NUMBER: _ClassVar[int]
    ROSTERS_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    ANCHORS_FIELD_NUMBER: _ClassVar[int]
    proposals: _containers.RepeatedScalarFieldContainer[bytes]
    revision: int
    ended: _containers.RepeatedScalarFieldContainer[str]
    permits: _containers.RepeatedScalarFieldContainer[bytes]
    rosters: _containers.RepeatedScalarFieldContainer[bytes]
    orders: _containers.RepeatedScalarFieldContainer[bytes]
    anchors: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, proposals: _Optional[_Iterable[bytes]] = ..., revision: _Optional[int] = ..., ended: _Optional[_Iterable[str]] = ..., permits: _Optional[_Iterable[bytes]] = ..., rosters: _Optional[_Iterable[bytes]] = ..., orders: _Optional[_Iterable[bytes]] = ..., anchors: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AnswerRequest(_message.Message):
    __slots__ = ("answer",)
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    answer: bytes
    def __init__(self, answer: _Optional[bytes] = ...) -> None: ...

class TellRequest(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...

class AnswerReply(_message.Message):
    __slots__ = ("recorded", "code")
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    recorded: bool
    code: str
    def __init__(self, recorded: bool = ..., code: _Optional[str] = ...) -> None: ...

class ProposeRequest(_message.Message):
    __slots__ = ("proposal",)
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    proposal: bytes
    def __init__(self, proposal: _Optional[bytes] = ...) -> None: ...

class ProposeReply(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class StudyRequest(_message.Message):
    __slots__ = ("study",)
    STUDY_FIELD_NUMBER: _ClassVar[int]
    study: str
    def __init__(self, study: _Optional[str] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class StatusListReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, json: _Optional[_Iterable[str]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class ModelRequest(_message.Message):
    __slots__ = ("study", "round")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    study: str
    round: int
    def __init__(self, study: _Optional[str] = ..., round: _Optional[int] = ...) -> None: ...

class CertificateReply(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class CommandRequest(_message.Message):
    __slots__ = ("order",)
    ORDER_FIELD_NUMBER: _ClassVar[int]
    order: bytes
    def __init__(self, order: _Optional[bytes] = ...) -> None: ...

class DocumentRequest(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...

class DocumentQuery(_message.Message):
    __slots__ = ("name", "after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    after: int
    def __init__(self, name: _Optional[str] = ..., after: _Optional[int] = ...) -> None: ...

class DocumentsReply(_message.Message):
    __slots__ = ("documents",)
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, documents: _Optional[_Iterable[bytes]] = ...) -> None: ...

class MembersRequest(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class JoinCall(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    def __init__(self, request: _Optional[bytes] = ...) -> None: ...

class RenewCall(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    def __init__(self, request: _Optional[bytes] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("certificate", "authority", "code")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    authority: bytes
    code: str
    def __init__(self, certificate: _Optional[bytes] = ..., authority: _Optional[bytes] = ..., code: _Optional[str] = ...) -> None: ...
