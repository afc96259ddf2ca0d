"""The commands of the scenario language, and how a file of them is run. CONTRIBUTING.md lists them for writers."""

from collections.abc import Callable
from dataclasses import replace

from scenario_args import Args
from scenario_format import Block, Command, parse_scenario
from scenario_reads import answer_reads
from scenario_site import Flight, Level, Settings, Site
from scenario_trace import KINDS, configuration_text, entries_text, kind_of, message_text
from scenario_world import World

from isochrone.ids import NodeId, ReplicaRole, StoreId
from isochrone.wire.messages import Configuration, EntryKind, InstallSnapshot, Member, QuorumSizes

ELECTION_ATTEMPTS_MAX = 3
STABILIZE_STEPS_MAX = 5_000


Handler = Callable[[World, Args], None]
COMMANDS: dict[str, Handler] = {}


def _command(handler: Handler) -> Handler:
    COMMANDS[handler.__name__.strip("_").replace("_", "-")] = handler
    return handler


def run_scenario(text: str, file: str) -> list[tuple[Block, list[str]]]:
    """Run a scenario: each block with the trace that it left.

    Raises:
        ScenarioError: the scenario is wrong.
        AssertionError: something that must always hold did not.
    """
    world = World()
    traces: list[tuple[Block, list[str]]] = []
    for block in parse_scenario(text, file):
        world.lines = []
        for command in block.commands:
            _run(world, command)
        traces.append((block, world.lines or ["(nothing)"]))
    return traces


def _run(world: World, command: Command) -> None:
    handler = COMMANDS.get(command.name)
    if handler is None:
        raise command.error(f"there is no command {command.name}; there are {', '.join(COMMANDS)}")
    if not world.sites and command.name not in ("add-nodes", "trace"):
        raise command.error("a scenario begins with add-nodes")
    args = Args(command, world)
    try:
        handler(world, args)
        args.finish()
    except AssertionError as error:
        raise AssertionError(f"{command.file}:{command.line}: {command.text}: {error}") from error


# ---- the group and its disks


@_command
def _add_nodes(world: World, args: Args) -> None:
    if world.sites:
        raise args.command.error("the nodes are there already")
    names = [NodeId(name) for name in args.words()]
    roles = dict.fromkeys(names, ReplicaRole.FULL)
    for key, role in (("witness", ReplicaRole.WITNESS), ("learner", ReplicaRole.LEARNER)):
        roles |= {NodeId(name): role for name in args.listed(key)}
    spare = {NodeId(name): ReplicaRole.LEARNER for name in args.listed("spare")}
    if not roles or len(set(names)) < len(names) or spare.keys() & roles.keys():
        raise args.command.error("add-nodes needs names, each once")
    election_ms = args.number("election", 1000)
    jitter = {name: min(100 * position, election_ms // 2) for position, name in enumerate(roles | spare)}
    for pair in args.listed("jitter"):
        name, _, value = pair.partition(":")
        if NodeId(name) not in jitter or args.to_number(value) > election_ms // 2:
            raise args.command.error(f"not a node and a jitter of at most {election_ms // 2} ms: {pair}")
        jitter[NodeId(name)] = args.to_number(value)
    settings = Settings(args.number("heartbeat", 100), election_ms, args.number("link", 10), args.raft_settings())
    down = args.listed("down")
    if unknown := [name for name in down if NodeId(name) not in roles]:
        raise args.command.error(f"there is no node {unknown[0]}")
    members = [[Member(node, StoreId(f"store-{node}"), role) for node, role in each.items()] for each in (roles, spare)]
    world.add_nodes(members[0], members[1], jitter, settings)
    for site in world.sites.values():
        if site.name not in (*down, *spare):
            world.start(site)


@_command
def _disk(world: World, args: Args) -> None:
    """`disk a b 1 1 2 term=3`: the logs that nodes which never ran will find, by the terms of their entries."""
    words = args.words()
    names = [word for word in words if not word.isdecimal()]
    terms = [args.to_number(word) for word in words[len(names) :]]
    vote, term, commit = args.listed("vote"), args.number("term", 0), args.number("commit", 0)
    for site in map(args.named, names):
        if site.lives:
            raise args.command.error(f"{site.name} has run already; add it with down=({site.name})")
        world.prepare_disk(site, terms, term, NodeId(vote[0]) if vote else None, commit)


@_command
def _start(world: World, args: Args) -> None:
    """The first start of nodes that were added with `down`."""
    for site in args.sites():
        if site.lives:
            raise args.command.error(f"{site.name} has run already")
        world.start(site)


@_command
def _crash(world: World, args: Args) -> None:
    site = args.live()
    keep = args.number("keep", 0)
    world.note(f"{site.name}: crashes with {sum(pending.stores for pending in site.pending)} writes under way")
    world.stop(site, keep=keep)


@_command
def _restart(world: World, args: Args) -> None:
    for site in args.sites():
        if site.core is not None or not site.lives:
            raise args.command.error(f"{site.name} is up, or never ran")
        world.note(f"{site.name}: starts as incarnation {site.store.identity.incarnation}")
        world.start(site)


@_command
def _wipe(world: World, args: Args) -> None:
    """`wipe a`: a finds an empty disk of another store id; `wipe a same-store`: one that does not even tell."""
    site, rest = args.site(), args.words()
    if site.core is not None:
        raise args.command.error(f"{site.name} is up; crash it first")
    if rest not in ([], ["same-store"]):
        raise args.command.error("wipe takes a node and perhaps same-store")
    world.wipe(site, same_store=bool(rest))
    world.note(f"{site.name}: has an empty disk of store {site.store.identity.store}")


@_command
def _pause(world: World, args: Args) -> None:
    world.paused.add(args.live().name)


@_command
def _resume(world: World, args: Args) -> None:
    world.paused.discard(args.live().name)


@_command
def _hold_disk(world: World, args: Args) -> None:
    world.held.add(args.site().name)


@_command
def _release_disk(world: World, args: Args) -> None:
    world.held.discard(args.site().name)


@_command
def _sync(world: World, args: Args) -> None:
    site = args.live()
    count = args.number("count", len(site.pending))
    if not site.pending:
        raise args.command.error(f"{site.name} has no write under way")
    while count and site.pending:
        world.sync(site)
        count -= 1


@_command
def _fail_sync(world: World, args: Args) -> None:
    site = args.live()
    if not site.pending:
        raise args.command.error(f"{site.name} has no write under way")
    site.store.fail_next()
    world.sync(site, outcome="cannot sync")


# ---- requests


@_command
def _campaign(world: World, args: Args) -> None:
    site = args.live()
    world.note(f"{site.name}: campaign")
    world.act(site, lambda core: core.campaign(world.now))


@_command
def _elect(world: World, args: Args) -> None:
    """`elect a by=(b, c)`: a campaigns until it leads; only votes between it and those named are passed on."""
    site = args.live()
    voters = [args.named(name) for name in args.listed("by")] or list(world.sites.values())
    for _ in range(ELECTION_ATTEMPTS_MAX):
        world.note(f"{site.name}: campaign")
        world.act(site, lambda core: core.campaign(world.now))
        if world.pass_votes(site, voters):
            return
    raise args.command.error(f"{site.name} is not elected")


@_command
def _propose(world: World, args: Args) -> None:
    site = args.live()
    data, count, size = args.word("a text"), args.number("count", 1), args.number("bytes", 0)
    for number in range(1, count + 1):
        text = data if count == 1 else f"{data}{number}"
        world.propose(site, text.encode().ljust(size, b"."))


@_command
def _propose_configuration(world: World, args: Args) -> None:
    """`propose-configuration a b c witness=(w) learner=(d) [explicit]`: a is asked to change who is in the group."""
    site, names = args.live(), args.words()
    auto_leave = "explicit" not in names
    roles = {name: ReplicaRole.FULL for name in names if name != "explicit"}
    for key, role in (("witness", ReplicaRole.WITNESS), ("learner", ReplicaRole.LEARNER)):
        roles |= dict.fromkeys(args.listed(key), role)
    members = [replace(args.named(name).member, role=role) for name, role in roles.items()]
    quorums = QuorumSizes(args.number("commit", 0), args.number("election", 0))
    world.note(f"{site.name}: propose {configuration_text(Configuration(tuple(members), quorums=quorums))}")
    world.ask(site, lambda core: core.propose_configuration(members, quorums, auto_leave=auto_leave, now=world.now))


@_command
def _leave_joint(world: World, args: Args) -> None:
    site = args.live()
    world.note(f"{site.name}: leave joint")
    world.ask(site, lambda core: core.leave_joint(world.now))


@_command
def _transfer_leadership(world: World, args: Args) -> None:
    """`transfer-leadership a b`: a is asked to hand over to b."""
    site, target = args.live(), args.site().name
    world.note(f"{site.name}: transfer to {target}")
    world.ask(site, lambda core: core.transfer_leadership(target, world.now))


@_command
def _read(world: World, args: Args) -> None:
    world.read(args.live())


@_command
def _hold_answers(world: World, args: Args) -> None:
    """A read that may be answered waits: as if the process was stopped before it looks at its clock again."""
    world.answers_held.add(args.live().name)


@_command
def _release_answers(world: World, args: Args) -> None:
    site = args.live()
    world.note(f"{site.name}: answers")
    assert site.core is not None
    world.answers_held.discard(site.name)
    answer_reads(world, site, site.core)


@_command
def _lease(world: World, args: Args) -> None:
    """Whether a node has a lease now, so that it may answer reads by itself."""
    site = args.live()
    assert site.core is not None
    holds = site.core.lease_holds(site.core.term, world.now)
    world.lines.append(f"{site.name}: {'a lease' if holds else 'no lease'} at {world.now_ms} ms")


# ---- messages


def _matching(world: World, args: Args) -> list[Flight]:
    sources, targets, kinds = (args.listed(key) for key in ("from", "to", "kind"))
    for name in (*sources, *targets):
        if NodeId(name) not in world.sites:
            raise args.command.error(f"there is no node {name}")
    for kind in kinds:
        if kind not in KINDS:
            raise args.command.error(f"there is no kind of message {kind}; there are {', '.join(KINDS)}")
    found = [
        flight
        for flight in world.flights
        if (not sources or flight.source in sources)
        and (not targets or flight.target in targets)
        and (not kinds or kind_of(flight.message) in kinds)
    ]
    found = found[: args.number("count", len(found))]
    if not found:
        raise args.command.error("no such message is on its way")
    return found


@_command
def _deliver(world: World, args: Args) -> None:
    for flight in _matching(world, args):
        world.deliver(flight)


@_command
def _drop(world: World, args: Args) -> None:
    for flight in _matching(world, args):
        world.flights.remove(flight)
        world.note(f"lost: {flight.source} -> {flight.target} {message_text(flight.message)}")


@_command
def _duplicate(world: World, args: Args) -> None:
    for flight in _matching(world, args):
        world.flights.append(replace(flight))
        world.note(f"twice: {flight.source} -> {flight.target} {message_text(flight.message)}")


@_command
def _reorder(world: World, args: Args) -> None:
    """The matching messages arrive in the opposite order, after everything else."""
    matching = _matching(world, args)
    for flight in reversed(matching):
        world.flights.remove(flight)
        world.flights.append(flight)
        world.note(f"late: {flight.source} -> {flight.target} {message_text(flight.message)}")


@_command
def _damage(world: World, args: Args) -> None:
    """A bit of the rows in each matching chunk of a snapshot is turned over."""
    for flight in _matching(world, args):
        if not isinstance(flight.message, InstallSnapshot) or not flight.message.chunk.data:
            raise args.command.error("only chunks with rows can be damaged")
        chunk = flight.message.chunk
        damaged = chunk.data[:-1] + bytes([chunk.data[-1] ^ 1])
        flight.message = replace(flight.message, chunk=replace(chunk, data=damaged))
        world.note(f"damaged: {flight.source} -> {flight.target} {message_text(flight.message)}")


@_command
def _lose_snapshots(world: World, args: Args) -> None:
    """From now on the store of a node cannot go on with a snapshot; `lose-snapshots a no` ends that."""
    site, rest = args.live(), args.words()
    if rest not in ([], ["no"]):
        raise args.command.error("lose-snapshots takes a node and perhaps no")
    site.loses_snapshots = not rest


@_command
def _in_flight(world: World, args: Args) -> None:
    for flight in _matching(world, args):
        world.note(f"on its way: {flight.source} -> {flight.target} {message_text(flight.message)}")


@_command
def _cut(world: World, args: Args) -> None:
    """`cut a b` loses messages both ways, `cut a b one-way` those from a to b."""
    a, b, *rest = _pair(args)
    world.cut |= {(a, b)} if rest else {(a, b), (b, a)}


@_command
def _isolate(world: World, args: Args) -> None:
    names = [args.site().name, *(site.name for site in args.sites() if len(args.command.words) > 1)]
    others = [name for name in world.sites if name not in names]
    world.cut |= {pair for a in names for b in others for pair in ((a, b), (b, a))}


@_command
def _heal(world: World, args: Args) -> None:
    if not args.command.words:
        world.cut.clear()
        return
    a, b, *rest = _pair(args)
    world.cut -= {(a, b)} if rest else {(a, b), (b, a)}


def _pair(args: Args) -> list[NodeId]:
    a, b, rest = args.site().name, args.site().name, args.words()
    if rest not in ([], ["one-way"]):
        raise args.command.error(f"{args.command.name} takes two nodes and perhaps one-way")
    return [a, b, *map(NodeId, rest)]


@_command
def _link(world: World, args: Args) -> None:
    a, b = args.site().name, args.site().name
    world.links_ms[a, b] = world.links_ms[b, a] = args.number("ms")


# ---- time


@_command
def _stabilize(world: World, args: Args) -> None:
    world.quiet_down([site.name for site in args.sites()], args.number("limit", STABILIZE_STEPS_MAX))


@_command
def _advance(world: World, args: Args) -> None:
    world.advance(args.number("ms"))


@_command
def _run_(world: World, args: Args) -> None:
    world.run(args.number("ms"))


@_command
def _load(world: World, args: Args) -> None:
    """A proposal at whoever leads, every so often; then how many of them were committed."""
    count, every_ms = args.number("count"), args.number("every")
    before, refused = len(world.claims.acknowledged), 0
    for number in range(1, count + 1):
        leader = world.leader()
        if leader is None or world.propose(leader, b"load%d" % number) is None:
            refused += 1
        world.run(every_ms)
    committed = len(world.claims.acknowledged) - before
    world.lines.append(f"{committed} of {count} committed, {refused} found no leader, until {world.now_ms} ms")


# ---- looking


@_command
def _trace(world: World, args: Args) -> None:
    level = args.word("a level")
    if level not in [known.value for known in Level]:
        raise args.command.error(f"a trace shows {', '.join(known.value for known in Level)}, not {level}")
    world.level = Level(level)


@_command
def _events(world: World, args: Args) -> None:
    """How often each kind of event has happened since the last time that this was asked."""
    counts = sorted(f"{name} {count}" for name, count in world.counts.items())
    world.lines.append(", ".join(counts) or "no event")
    world.counts.clear()


@_command
def _dump(world: World, args: Args) -> None:
    for site in args.sites():
        world.lines += _dump_lines(world, site)


def _dump_lines(world: World, site: Site) -> list[str]:
    lines = []
    if site.core is None:
        lines.append(f"{site.name}: down")
    else:
        status = site.core.status()
        leads = status.relay * " as relay" + (
            f" of {status.leader}" if status.office == "follower" and status.leader else ""
        )
        lines.append(
            f"{site.name}: {status.role} {status.office}{leads} term={status.term} vote={status.vote or 'none'} "
            f"commit={status.commit} applied={status.applied} log={status.first}..{status.last}"
        )
        if status.configuration != world.configuration:
            final = "" if status.configuration_committed else " not known to be committed"
            lines.append(f"  {configuration_text(status.configuration)}{final}")
        for node, peer in status.peers.items():
            lines.append(f"  {node}: {peer.feed} match={peer.match} next={peer.next} inflight={peer.inflight}")
    stored = world.disk(site.name)
    lines.append(
        f"  disk term={stored.hard_state.term} vote={stored.hard_state.vote or 'none'} "
        f"commit={stored.hard_state.commit} {entries_text(world.log_of(site.name))}"
    )
    if stored.staged is not None:
        lines.append(f"  staged {stored.staged.position} bytes of a snapshot up to {stored.staged.id.index}")
    lines += [f"  writing {pending.text()}" for pending in site.pending]
    return lines


@_command
def _applied(world: World, args: Args) -> None:
    """What each node has applied, no-ops left out."""
    for site in args.sites():
        applied = [entry.data.decode() for entry in site.applied if entry.kind is EntryKind.COMMANDS]
        world.lines.append(f"{site.name}: {' '.join(applied) or 'nothing'}{' (down)' * (site.core is None)}")
