"""What no simulated process may ask of its loop: threads, sockets, signals, processes, and running the loop itself."""

import asyncio
from typing import Any


def _refuse(name: str) -> Any:
    def refused(*_args: object, **_options: object) -> Any:
        raise RuntimeError(f"{name}: there are no threads, sockets, signals or processes in a simulation")

    return refused


class WithoutOutside(asyncio.AbstractEventLoop):
    """A loop without anything outside it. Each of these raises `RuntimeError`, which names it."""

    run_forever = _refuse("run_forever")
    run_until_complete = _refuse("run_until_complete")
    stop = _refuse("stop")
    shutdown_asyncgens = _refuse("shutdown_asyncgens")
    shutdown_default_executor = _refuse("shutdown_default_executor")
    call_soon_threadsafe = _refuse("call_soon_threadsafe")
    run_in_executor = _refuse("run_in_executor")
    set_default_executor = _refuse("set_default_executor")
    getaddrinfo = _refuse("getaddrinfo")
    getnameinfo = _refuse("getnameinfo")
    create_connection = _refuse("create_connection")
    create_server = _refuse("create_server")
    sendfile = _refuse("sendfile")
    start_tls = _refuse("start_tls")
    create_unix_connection = _refuse("create_unix_connection")
    create_unix_server = _refuse("create_unix_server")
    connect_accepted_socket = _refuse("connect_accepted_socket")
    create_datagram_endpoint = _refuse("create_datagram_endpoint")
    connect_read_pipe = _refuse("connect_read_pipe")
    connect_write_pipe = _refuse("connect_write_pipe")
    subprocess_shell = _refuse("subprocess_shell")
    subprocess_exec = _refuse("subprocess_exec")
    add_reader = _refuse("add_reader")
    remove_reader = _refuse("remove_reader")
    add_writer = _refuse("add_writer")
    remove_writer = _refuse("remove_writer")
    sock_recv = _refuse("sock_recv")
    sock_recv_into = _refuse("sock_recv_into")
    sock_recvfrom = _refuse("sock_recvfrom")
    sock_recvfrom_into = _refuse("sock_recvfrom_into")
    sock_sendall = _refuse("sock_sendall")
    sock_sendto = _refuse("sock_sendto")
    sock_connect = _refuse("sock_connect")
    sock_accept = _refuse("sock_accept")
    sock_sendfile = _refuse("sock_sendfile")
    add_signal_handler = _refuse("add_signal_handler")
    remove_signal_handler = _refuse("remove_signal_handler")
    set_task_factory = _refuse("set_task_factory")
    get_task_factory = _refuse("get_task_factory")
    get_exception_handler = _refuse("get_exception_handler")
    set_exception_handler = _refuse("set_exception_handler")
    set_debug = _refuse("set_debug")
