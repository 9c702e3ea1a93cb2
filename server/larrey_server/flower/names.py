"""Every symbol of flwr 1.41.0 that is not its public interface, met here and nowhere else.

`PRIVATE_NAMES` says for each the parameters or attributes that our code relies on. A contract test
walks it, so that a new Flower fails there first, loudly and by name, and not during a study.
"""

from __future__ import annotations

from flwr.app.message import remove_content_from_message
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID, SubStatus
from flwr.common.serde import message_from_proto
from flwr.proto import fleet_pb2_grpc
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node, NodeInfo
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.error import FlowerError, rpc_error_translator
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStore, ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.run import Run
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.servicer.fleet import fleet_handlers

__all__ = [
    "FLWR_IN_MEMORY_DB_NAME",
    "FLWR_VERSION",
    "NOOP_ACCOUNT_NAME",
    "NOOP_FEDERATION_ID",
    "NOOP_FLWR_AID",
    "PRIVATE_NAMES",
    "SUPERLINK_NODE_ID",
    "ActivateNodeRequest",
    "ConfirmMessageReceivedRequest",
    "FleetServicer",
    "FlowerError",
    "LinkState",
    "LinkStateFactory",
    "Metadata",
    "NoOpFederationManager",
    "Node",
    "NodeInfo",
    "ObjectStore",
    "ObjectStoreFactory",
    "ObjectTree",
    "PullMessagesRequest",
    "PullMessagesResponse",
    "PushMessagesRequest",
    "PushMessagesResponse",
    "PushObjectRequest",
    "PushObjectResponse",
    "Run",
    "SubStatus",
    "TaskType",
    "fleet_handlers",
    "fleet_pb2_grpc",
    "get_all_nested_objects",
    "get_object_tree",
    "inflate_object_from_contents",
    "iterate_object_tree",
    "make_message",
    "message_from_proto",
    "no_object_id_recompute",
    "public_key_to_bytes",
    "remove_content_from_message",
    "rpc_error_translator",
]

FLWR_VERSION = "1.41.0"

_STATE = "flwr.server.superlink.linkstate:LinkState."
_FLEET = "flwr.server.superlink.fleet.grpc_rere.fleet_servicer:FleetServicer."
_HANDLERS = "flwr.superlink.servicer.fleet.fleet_handlers:"
_STORE = "flwr.supercore.object_store:ObjectStore."
_TREE = "flwr.supercore.inflatable.inflatable_object:"

# "module:attribute" -> the parameter names we pass, in order; None for a constant or a message.
PRIVATE_NAMES: dict[str, tuple[str, ...] | None] = {
    "flwr.app.message:remove_content_from_message": ("message",),
    "flwr.app.message.message:make_message": ("metadata", "content", "error"),
    "flwr.app.metadata:Metadata": (
        "run_id",
        "message_id",
        "src_node_id",
        "dst_node_id",
        "reply_to_message_id",
        "group_id",
        "created_at",
        "ttl",
        "message_type",
    ),
    "flwr.common.constant:NOOP_ACCOUNT_NAME": None,
    "flwr.common.constant:NOOP_FLWR_AID": None,
    "flwr.common.constant:SUPERLINK_NODE_ID": None,
    "flwr.common.constant:SubStatus.COMPLETED": None,
    "flwr.common.constant:SubStatus.FAILED": None,
    "flwr.common.serde:message_from_proto": ("message_proto",),
    "flwr.proto.fleet_pb2:ActivateNodeRequest": None,
    "flwr.proto.fleet_pb2:PullMessagesRequest": None,
    "flwr.proto.fleet_pb2:PullMessagesResponse": None,
    "flwr.proto.fleet_pb2:PushMessagesRequest": None,
    "flwr.proto.fleet_pb2:PushMessagesResponse": None,
    "flwr.proto.fleet_pb2_grpc:FleetServicer": (),
    "flwr.proto.fleet_pb2_grpc:add_FleetServicer_to_server": ("servicer", "server"),
    "flwr.proto.message_pb2:ConfirmMessageReceivedRequest": None,
    "flwr.proto.message_pb2:ObjectTree": None,
    "flwr.proto.message_pb2:PushObjectRequest": None,
    "flwr.proto.message_pb2:PushObjectResponse": None,
    "flwr.proto.node_pb2:Node": None,
    "flwr.proto.node_pb2:NodeInfo": None,
    _FLEET + "__init__": ("state_factory", "objectstore_factory", "enable_supernode_auth"),
    _FLEET + "ActivateNode": ("request", "context"),
    _FLEET + "ConfirmMessageReceived": ("request", "context"),
    _FLEET + "DeactivateNode": ("request", "context"),
    _FLEET + "GetFab": ("request", "context"),
    _FLEET + "GetRun": ("request", "context"),
    _FLEET + "PullMessages": ("request", "context"),
    _FLEET + "PullObject": ("request", "context"),
    _FLEET + "PushMessages": ("request", "context"),
    _FLEET + "PushObject": ("request", "context"),
    _FLEET + "RegisterNode": ("request", "context"),
    _FLEET + "SendNodeHeartbeat": ("request", "context"),
    _FLEET + "UnregisterNode": ("request", "context"),
    "flwr.server.superlink.linkstate:LinkStateFactory": (
        "database",
        "federation_manager",
        "objectstore_factory",
    ),
    "flwr.server.superlink.linkstate:LinkStateFactory.state": (),
    _STATE + "acknowledge_node_heartbeat": ("node_id", "heartbeat_interval"),
    _STATE + "acknowledge_task_heartbeat": ("task_id",),
    _STATE + "activate_node": ("node_id", "heartbeat_interval"),
    _STATE + "activate_task": ("task_id",),
    _STATE + "claim_task": ("task_id",),
    _STATE + "cleanup_run": ("run_id",),
    _STATE + "create_node": ("owner_aid", "owner_name", "public_key", "heartbeat_interval"),
    _STATE + "create_run": (
        "fab_id",
        "fab_version",
        "fab_hash",
        "override_config",
        "federation_id",
        "federation_config",
        "flwr_aid",
        "primary_task_type",
    ),
    _STATE + "deactivate_node": ("node_id",),
    _STATE + "delete_messages": ("message_ins_ids",),
    _STATE + "finish_task": ("task_id", "sub_status", "details"),
    _STATE + "get_message_res": ("message_ids", "run_id"),
    _STATE + "get_node_info": ("node_ids",),
    _STATE + "get_nodes": ("run_id",),
    _STATE + "get_object": ("run_id", "object_id"),
    _STATE + "get_run_info": ("run_ids",),
    _STATE + "start_session": ("run_id",),
    _STATE + "store_message_and_object_tree": ("message", "object_tree", "session_id"),
    _STATE + "store_object": ("run_id", "session_id", "object_id", "object_content"),
    _STORE + "delete": ("object_id",),
    _STORE + "get": ("object_id",),
    _STORE + "get_object_tree": ("object_id",),
    "flwr.supercore.object_store:ObjectStoreFactory": ("database",),
    "flwr.supercore.object_store:ObjectStoreFactory.store": (),
    "flwr.supercore.constant:FLWR_IN_MEMORY_DB_NAME": None,
    "flwr.supercore.constant:NOOP_FEDERATION_ID": None,
    "flwr.supercore.constant:TaskType.SERVER_APP": None,
    "flwr.supercore.error:FlowerError": (),
    "flwr.supercore.error:rpc_error_translator": ("context", "rpc_name"),
    _TREE + "get_all_nested_objects": ("obj",),
    _TREE + "get_object_tree": ("obj",),
    _TREE + "iterate_object_tree": ("tree",),
    _TREE + "no_object_id_recompute": (),
    "flwr.supercore.inflatable.inflatable_utils:inflate_object_from_contents": (
        "object_id",
        "object_contents",
    ),
    "flwr.supercore.primitives.asymmetric:public_key_to_bytes": ("public_key",),
    "flwr.supercore.run:Run": ("run_id", "primary_task_id"),
    _HANDLERS + "confirm_message_received": ("request", "state", "store"),
    _HANDLERS + "pull_messages": ("request", "state", "store"),
    _HANDLERS + "push_messages": ("request", "state"),
    _HANDLERS + "push_object": ("request", "state"),
    "flwr.superlink.federation:NoOpFederationManager": (),
}
