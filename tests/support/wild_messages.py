"""Messages of etcd's API with any values in any field: enums that do not exist, numbers at both ends, nested anyhow."""

import random

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

KEYS = (b"k/a", b"k/b", b"k/a/b", b"k/", b"k0", b"m/a", b"\0", b"", b"\xff", b"k/" + b"x" * 5_000)
NUMBERS = (0, 0, 0, 1, 1, 2, 3, -1, 7, 600, 1 << 31, 1 << 62, (1 << 63) - 1, -(1 << 63))
TEXTS = ("", "k/a", "g", "isochrone.g", "x" * 300, "http://127.0.0.1:1")
DEPTH_MAX = 6


def method(path: str) -> MethodDescriptor:
    """The method of a path as `/etcdserverpb.KV/Put`."""
    service, name = path.removeprefix("/").split("/")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]


def request(rng: random.Random, path: str) -> Message:
    """A request that the method might get."""
    return _filled(rng, message_factory.GetMessageClass(method(path).input_type)(), 0)


def _filled(rng: random.Random, message: Message, depth: int) -> Message:
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.25 or (depth >= DEPTH_MAX and field.message_type is not None):
            continue
        if field.message_type is not None:
            if field.is_repeated:
                for _ in range(rng.choice((0, 1, 1, 2, 3))):
                    _filled(rng, getattr(message, field.name).add(), depth + 1)
            elif rng.random() < 0.7:
                getattr(message, field.name).SetInParent()
                _filled(rng, getattr(message, field.name), depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend([_value(rng, field) for _ in range(rng.randrange(3))])
        else:
            setattr(message, field.name, _value(rng, field))
    return message


def _value(rng: random.Random, field: FieldDescriptor) -> object:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.3
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice((0, 1, 2, 3, 4, 5, 99, -1, (1 << 31) - 1, -(1 << 31)))
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return rng.choice(KEYS)
        case FieldDescriptor.CPPTYPE_STRING:
            return rng.choice(TEXTS)
        case FieldDescriptor.CPPTYPE_UINT64 | FieldDescriptor.CPPTYPE_UINT32:
            return abs(rng.choice(NUMBERS)) % (1 << 32)
        case FieldDescriptor.CPPTYPE_INT32:
            return rng.choice((0, 1, -1, (1 << 31) - 1, -(1 << 31)))
        case _:
            return rng.choice(NUMBERS)
