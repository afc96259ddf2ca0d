"""etcd's Auth service, which is not offered: whoever reaches an endpoint may do everything there.

A client that is given a name and a password asks to be authenticated first. It is told, as by an etcd without
authentication, that there is none, and then goes on without.
"""

from isochrone.node.etcd_calls_grpc import fail, refuse
from isochrone.wire.etcd.errors import OWN_PREFIX, EtcdError, Status
from isochrone.wire.http2.calls import Call, Methods, UnaryMethod

NOT_OFFERED = Status(
    "UNIMPLEMENTED", f"{OWN_PREFIX}there are no users and roles; whoever reaches the endpoint may use it"
)
_AUTH = "/etcdserverpb.Auth/"
_OTHERS = (
    "AuthEnable",
    "AuthDisable",
    "AuthStatus",
    "UserAdd",
    "UserGet",
    "UserList",
    "UserDelete",
    "UserChangePassword",
    "UserGrantRole",
    "UserRevokeRole",
    "RoleAdd",
    "RoleGet",
    "RoleList",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
)


def auth_methods() -> Methods:
    """By path."""
    refusals = {f"{_AUTH}{name}": UnaryMethod(_refuse) for name in _OTHERS}
    return {f"{_AUTH}Authenticate": UnaryMethod(_authenticate), **refusals}


def _authenticate(call: Call, _: bytes) -> None:
    refuse(call, EtcdError.AUTH_NOT_ENABLED)


def _refuse(call: Call, _: bytes) -> None:
    fail(call, NOT_OFFERED)
