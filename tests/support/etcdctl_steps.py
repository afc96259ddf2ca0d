"""The conversation that `etcdctl` must be able to have with a server: what is typed, and what must be printed.

Commands and outputs are templates: `<name>` stands for a word, which is kept when it is first seen and must be the same
afterwards; `...` stands for anything. All keys lie below `us/`, and no section needs what another one has left. The
words are those of etcdctl 3.4, as it prints them about a real etcd.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command to its end."""

    command: str
    prints: str = ""
    """All of its output, but the newline at the end."""
    complains: str = "..."
    """All that it writes to its standard error."""
    status: int = 0
    stdin: str = ""


@dataclass(frozen=True, slots=True)
class Begin:
    """Start a command that goes on, under a name."""

    name: str
    command: str
    stdin: str = ""
    """Typed at once; its standard input stays open."""


@dataclass(frozen=True, slots=True)
class Sees:
    """Wait until all that the command has printed is this."""

    name: str
    prints: str


@dataclass(frozen=True, slots=True)
class Ends:
    """Wait for a command's end, after interrupting it as Ctrl-C does if so told."""

    name: str
    prints: str = "..."
    interrupted: bool = False
    status: int = 0


Step = Run | Begin | Sees | Ends


def refused(command: str, error: str, stdin: str = "") -> Run:
    """A command that must fail, with this error."""
    return Run(command, complains=f"...Error: {error}", status=1, stdin=stdin)


NOW = Run("get us/nothing -w fields", '...\n"Revision" : <now>\n...')
"""Learns the revision of the store."""

KEYS = (
    Run("put us/k/a 1", "OK"),
    Run("put us/k/b 2 --prev-kv", "OK"),
    Run("put us/k/b 3 --prev-kv", "OK\nus/k/b\n2"),
    Run("get us/k/ --prefix", "us/k/a\n1\nus/k/b\n3"),
    Run("get us/k/a us/k/b", "us/k/a\n1"),
    Run("get us/k/b --from-key --limit=1", "us/k/b\n3"),
    Run("get us/k/ --prefix --keys-only", "us/k/a\n\nus/k/b\n"),
    Run("get us/k/ --prefix --print-value-only --order=DESCEND --sort-by=MODIFY --limit=1", "3"),
    Run("get us/k/b --consistency=s", "us/k/b\n3"),
    Run(
        "get us/k/b -w fields",
        '"ClusterID" : <cluster>\n"MemberID" : ...\n"Revision" : <revision>\n"RaftTerm" : ...\n"Key" : "us/k/b"\n'
        '"CreateRevision" : <created>\n"ModRevision" : <revision>\n"Version" : 2\n"Value" : "3"\n"Lease" : 0\n'
        '"More" : false\n"Count" : 1',
    ),
    Run("get us/k/b --rev=<created>", "us/k/b\n2"),
    Run("get us/k/none"),
    refused('get ""', "etcdserver: key is not provided"),
    refused('put "" x', "etcdserver: key is not provided"),
    refused("put us/k/none --ignore-value", "etcdserver: key not found"),
    refused("put us/k/none x --ignore-lease", "etcdserver: key not found"),
    Run("put us/k/a --ignore-value --prev-kv", "OK\nus/k/a\n1"),
    Run("put us/k/stdin", "OK", stdin="typed"),
    Run("get us/k/stdin --print-value-only", "typed"),
    Run("del us/k/a --prev-kv", "1\nus/k/a\n1"),
    Run("del us/k/a", "0"),
    Run("del us/k/ --prefix", "2"),
    Run("get us/k/ --prefix"),
)

HISTORY = (
    Run("put us/h/a 1", "OK"),
    NOW,
    Run("put us/h/a 2", "OK"),
    Run("get us/h/a --rev=<now>", "us/h/a\n1"),
    refused("get us/h/a --rev=9000000000", "etcdserver: mvcc: required revision is a future revision"),
    refused("compaction 9000000000", "etcdserver: mvcc: required revision is a future revision"),
    Run("compaction <now>", "compacted revision <now>"),
    Run("get us/h/a --rev=<now>", "us/h/a\n1"),
    Run("put us/h/a 3", "OK"),
    Run("get us/h/last -w fields", '...\n"Revision" : <last>\n...'),
    Run("compaction --physical <last>", "compacted revision <last>"),
    refused("get us/h/a --rev=<now>", "etcdserver: mvcc: required revision has been compacted"),
    refused("compaction <now>", "etcdserver: mvcc: required revision has been compacted"),
    Run(
        "watch us/h/a --rev=<now>",
        complains="watch was canceled (etcdserver: mvcc: required revision has been compacted)\n"
        "Error: watch is canceled by the server",
        status=5,
    ),
    Run("get us/h/a", "us/h/a\n3"),
)

CREATE_OR_READ = 'version("us/t/a") = "0"\n\nput us/t/a one\nget us/t/a\n\nget us/t/a\n\n'
TRANSACTIONS = (
    Run("txn", "SUCCESS\n\nOK\n\nus/t/a\none", stdin=CREATE_OR_READ),
    Run("txn", "FAILURE\n\nus/t/a\none", stdin=CREATE_OR_READ),
    Run("txn", "SUCCESS\n\n1", stdin='value("us/t/a") > "oak"\nmod("us/t/a") > "0"\n\ndel us/t/a\n\n\n'),
    Run("txn", "SUCCESS\n\nOK\n\nOK", stdin="\nput us/t/b 1\nput us/t/c 2\n\n\n"),
    Run("txn", "SUCCESS\n\nus/t/b\n1\nus/t/c\n2", stdin='create("us/t/b") > "0"\n\nget us/t/ us/t0\n\n\n'),
    refused("txn", "etcdserver: duplicate key given in txn request", stdin="\nput us/t/d 1\nput us/t/d 2\n\n\n"),
    Run("get us/t/d"),
)

WATCHES = (
    NOW,
    Run("put us/w/a 1", "OK"),
    Begin("past", "watch us/w/ --prefix --prev-kv --rev=<now>"),
    Sees("past", "PUT\nus/w/a\n1"),
    Run("put us/w/a 2", "OK"),
    Run("put us/x/a 9", "OK"),
    Run("txn", "SUCCESS\n\nOK\n\n0", stdin="\nput us/w/b 3\ndel us/w/z\n\n\n"),
    Run("del us/w/a", "1"),
    Sees(
        "past",
        "PUT\nus/w/a\n1\nPUT\nus/w/a\n1\nus/w/a\n2\nPUT\nus/w/b\n3\nDELETE\nus/w/a\n2\nus/w/a\n",
    ),
    Ends("past", interrupted=True, status=-2),
    Begin("typed", "watch -i", stdin="watch us/w/b us/w/c --rev=<now>\nprogress\n"),
    Sees("typed", "...PUT\nus/w/b\n3..."),
    Ends("typed", "...progress notify: ...", interrupted=True, status=-2),
    Begin("command", "watch us/w/once --rev=<now> -- echo saw it"),
    Run("put us/w/once 1", "OK"),
    Sees("command", "PUT\nus/w/once\n1\nsaw it"),
    Ends("command", interrupted=True, status=-2),
)

LEASES = (
    Run("lease grant 600", "lease <lease> granted with TTL(600s)"),
    Run("put us/l/a v --lease=<lease>", "OK"),
    Run("put us/l/a w --ignore-lease", "OK"),
    Run("get us/l/a -w fields", '..."Lease" : <number>\n...'),
    Run(
        "lease timetolive <lease> --keys",
        "lease <lease> granted with TTL(600s), remaining(5<tens>s), attached keys([us/l/a])",
    ),
    Run("lease list", "found ... leases\n...<lease>..."),
    Run("lease keep-alive --once <lease>", "lease <lease> keepalived with TTL(600)"),
    Begin("renewing", "lease keep-alive <lease>"),
    Sees("renewing", "lease <lease> keepalived with TTL(600)"),
    Run("lease revoke <lease>", "lease <lease> revoked"),
    Run("get us/l/a"),
    refused("lease revoke <lease>", "failed to revoke lease (etcdserver: requested lease not found)"),
    Run("lease timetolive <lease>", "lease <lease> already expired"),
    Run("lease keep-alive --once <lease>", complains="...Error: etcdserver: requested lease not found", status=2),
    refused("put us/l/a v --lease=<lease>", "etcdserver: requested lease not found"),
    refused("lease grant 9000000001", "failed to grant lease (etcdserver: too large lease TTL)"),
    Ends("renewing", interrupted=True, status=-2),
    Run("lease grant 2", "lease <short> granted with TTL(2s)"),
    NOW,
    Begin("expiry", "watch us/l/short --rev=<now>"),
    Run("put us/l/short v --lease=<short>", "OK"),
    Sees("expiry", "PUT\nus/l/short\nv\nDELETE\nus/l/short\n"),
    Ends("expiry", interrupted=True, status=-2),
    Run("lease timetolive <short>", "lease <short> already expired"),
)

LOCKS = (
    Begin("holder", "lock us/m"),
    Sees("holder", "us/m/<holder>\n"),
    Begin("waiter", "lock us/m echo held"),
    Run("lock us/other echo held too", "held too"),
    Run("get us/m/ --prefix --keys-only --limit=1 --sort-by=CREATE", "us/m/<holder>\n"),
    Ends("holder", interrupted=True),
    Ends("waiter", "held"),
    Run("lock us/m --ttl=5 true"),
    Run("get us/m --prefix"),
)

ELECTIONS = (
    Begin("first", "elect us/e one"),
    Sees("first", "us/e/<first>\none"),
    Begin("second", "elect us/e two"),
    Begin("observer", "elect -l us/e"),
    Sees("observer", "us/e/<first>\none"),
    Ends("first", interrupted=True),
    Sees("second", "us/e/<second>\ntwo"),
    Sees("observer", "us/e/<first>\none\nus/e/<second>\ntwo"),
    Ends("second", interrupted=True),
    Ends("observer", interrupted=True),
)

MEMBERS = (
    Run("member list", "<member>, started, ..., http://..., http://..., false..."),
    refused("member promote <member>", "etcdserver: can only promote a learner member"),
    refused("member remove 1234", "etcdserver: member not found"),
    refused("member promote 1234", "etcdserver: member not found"),
)

MEMBER_CHANGES = (
    Run(
        "member add extra --peer-urls=http://127.0.0.1:1 --learner",
        "Member <extra> added to cluster <cluster>\n\nETCD_NAME=...",
    ),
    Run("member list", "...<extra>, unstarted, , http://127.0.0.1:1, , true..."),
    refused("member promote <extra>", "etcdserver: can only promote a learner member which is in sync with leader"),
    Run("member remove <extra>", "Member <extra> removed from cluster <cluster>"),
)

OUTSIDE = (
    refused("put foo bar", "...key 'foo' lies outside group us-east-1.zone, for which this endpoint speaks; ..."),
    refused("get foo --prefix", "...all from 'foo' to 'fop' lies outside group us-east-1.zone, ..."),
    refused("txn", "...key 'foo' lies outside ...", stdin="\nput us/o/a 1\nput foo 2\n\n\n"),
    Run("watch foo", complains="...key 'foo' lies outside ...", status=5),
    Run("lock foo", complains="...key 'foo/... lies outside ...", status=1),
    refused("get fool", "...key 'fool' lies outside ..."),
    Run("get us/o --prefix"),
    Run("get '' --prefix --keys-only --limit=1", "..."),
)
"""What an endpoint of ours does not serve; a store of etcd's serves all keys."""

MIRRORS = (
    NOW,
    Run("put us/from/a 1", "OK"),
    Begin("mirror", "make-mirror --prefix=us/from/ --dest-prefix=us/to/ <one>"),
    Begin("mirrored", "watch us/to/ --prefix --rev=<now>"),
    Sees("mirrored", "PUT\nus/to/a\n1"),
    Run("put us/from/b 2", "OK"),
    Sees("mirrored", "PUT\nus/to/a\n1\nPUT\nus/to/b\n2"),
    Ends("mirrored", interrupted=True, status=-2),
    Ends("mirror", interrupted=True, status=-2),
)
"""Needs `<one>`."""

MAINTENANCE = (
    Run("endpoint health", complains="... is healthy: successfully committed proposal: took = ..."),
    Run("endpoint status", "<endpoint>, <member>, <version>, ..., ..., false, ..., ..., ..., ..."),
    Run("endpoint status -w fields", '..."DBSize" : <size>\n...'),
    Run("endpoint hashkv --endpoints=<one>", "<one>, <hash>"),
    Run("endpoint hashkv", "...<hash>\n...<hash>\n...<hash>"),
    refused("endpoint hashkv --endpoints=<one> --rev=9000000000", "...required revision is a future revision"),
    Run("alarm list"),
    Run("defrag --endpoints=<one>", "Finished defragmenting etcd member[<one>]"),
    Run("move-leader <follower>", "Leadership transferred from <leader> to <follower>"),
    Run("move-leader <leader>", "Leadership transferred from <follower> to <leader>"),
    refused("move-leader 1234", "etcdserver: bad leader transferee"),
    Run("put us/s/a 2", "OK"),
)
"""Needs `<one>` (an endpoint), `<leader>` and `<follower>` (ids of members)."""

SNAPSHOT = (
    Run("put us/s/a 1", "OK"),
    Run("snapshot save <directory>/snapshot --endpoints=<one>", "Snapshot saved at <directory>/snapshot"),
    Run("snapshot status <directory>/snapshot -w fields", '"Hash" : ...\n"Revision" : ...\n"Keys" : ...\n"Size" : ...'),
)
"""Needs `<one>` and `<directory>`."""

SECTIONS: dict[str, tuple[Step, ...]] = {
    "keys": KEYS,
    "history": HISTORY,
    "transactions": TRANSACTIONS,
    "watches": WATCHES,
    "leases": LEASES,
    "locks": LOCKS,
    "elections": ELECTIONS,
    "members": MEMBERS,
    "member changes": MEMBER_CHANGES,
    "outside": OUTSIDE,
    "mirrors": MIRRORS,
    "maintenance": MAINTENANCE,
    "snapshot": SNAPSHOT,
}
