"""etcd's v3 API as it crosses the wire: the messages, the services, and the errors with their texts."""
