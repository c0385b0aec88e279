#!/usr/bin/python3
"""What the log relies on of the process group, checked on traces of real corosyncs and of the simulated one alike.

    group_rules.py PROGRAM [ARGS]     runs gantry-group-trace and judges what it prints

The lines of a trace are those of cpg_probe.c. Rules are what docs/log.md needs; sights are what may happen and must be borne:
they are counted, so that it is seen whether the simulated group shows them too.
"""

import collections
import itertools
import subprocess
import sys

SIGHTS = ("late", "kept_to_itself", "alone_between")


class View:
    """One view at one process, with what was delivered and sent in it."""

    def __init__(self, node, ident, members):
        self.node = node
        self.ident = ident
        self.members = members
        self.messages = []
        self.sent = []
        self.next = None


class Trace:
    """A run as all of its processes saw it. faults: lines that make no sense by themselves."""

    def __init__(self, lines):
        self.faults = []
        self.lives = collections.defaultdict(list)   # node -> its connections, each a list of views
        self.sent = set()
        for line in lines:
            node, what, *rest = line.split()
            getattr(self, f"on_{what}")(int(node), *rest)

    def on_join(self, node, life):
        self.lives[node].append([])

    def on_left(self, node):
        pass

    def on_view(self, node, ident, members):
        views = self.lives[node][-1]
        view = View(node, ident, tuple(map(int, members.split(","))))
        if views:
            views[-1].next = view
        views.append(view)

    def on_msg(self, node, sender, life, seq):
        if not self.lives[node] or not self.lives[node][-1]:
            self.faults.append(f"node {node}: message {life}/{seq} before any view")
            return
        self.lives[node][-1][-1].messages.append((int(sender), life, int(seq)))

    def on_sent(self, node, life, seq):
        self.sent.add((node, life, int(seq)))
        if self.lives[node][-1]:
            self.lives[node][-1][-1].sent.append((node, life, int(seq)))

    def on_unsent(self, node, life, seq):
        message = (node, life, int(seq))
        self.sent.remove(message)
        for view in self.views():
            view.sent = [sent for sent in view.sent if sent != message]

    def views(self):
        return [view for lives in self.lives.values() for views in lives for view in views]

    def by_view(self):
        """Each view that more than one process saw, as a list of theirs."""
        seen = collections.defaultdict(list)
        for view in self.views():
            seen[view.ident].append(view)
        return seen


# ---- rules: each yields what is wrong

def one_list_of_members(trace):
    for ident, views in trace.by_view().items():
        if len({view.members for view in views}) > 1:
            yield f"view {ident} has members {[(view.node, view.members) for view in views]}"


def a_view_is_seen_by_members_once(trace):
    for ident, views in trace.by_view().items():
        nodes = [view.node for view in views]
        if len(set(nodes)) < len(nodes):
            yield f"view {ident} came back at {nodes}"
        if not set(nodes) <= set(views[0].members):
            yield f"view {ident} of {views[0].members} was given to {nodes}"


def senders_are_members(trace):
    for view in trace.views():
        strangers = {sender for sender, _, _ in view.messages} - set(view.members)
        if strangers:
            yield f"node {view.node} is given messages of {strangers} in view {view.ident} of {view.members}"


def in_order_without_gaps(trace):
    """Of one sender within a view; and over views never back, which also means at most once."""
    for node, lives in trace.lives.items():
        for views in lives:
            last = {}
            for view in views:
                within = {}
                for sender, life, seq in view.messages:
                    if life in within and seq != within[life] + 1:
                        yield f"node {node}, view {view.ident}: {life}/{seq} follows {within[life]}"
                    if seq <= last.get(life, 0):
                        yield f"node {node}: {life}/{seq} comes after {last[life]}"
                    within[life] = last[life] = seq


def only_what_was_sent(trace):
    for view in trace.views():
        for message in view.messages:
            if message not in trace.sent:
                yield f"node {view.node}: {message} was never sent"


def one_order(trace):
    """What two have both delivered in a view, they have delivered in the same order."""
    for ident, views in trace.by_view().items():
        for a, b in itertools.combinations(views, 2):
            common = set(a.messages) & set(b.messages)
            if [m for m in a.messages if m in common] != [m for m in b.messages if m in common]:
                yield f"view {ident}: nodes {a.node} and {b.node} deliver the same messages in different orders"


def together_the_same(trace):
    """Who pass together from one view to the next have delivered the same in it, in the same order. The end of a trace, when
    all is still, counts as a next view."""
    for ident, views in trace.by_view().items():
        for a, b in itertools.combinations(views, 2):
            last = all(view is trace.lives[view.node][-1][-1] for view in (a, b))
            together = last or (a.next and b.next and a.next.ident == b.next.ident)
            if together and a.messages != b.messages:
                yield f"view {ident}: nodes {a.node} and {b.node} leave it together with {len(a.messages)} and {len(b.messages)} messages"


def in_the_end_all_is_heard(trace):
    """The last view is one for all, of all, and what was sent in it was delivered to all."""
    last = [lives[-1][-1] if lives[-1] else None for lives in trace.lives.values()]
    if None in last or len({view.ident for view in last}) != 1 or len(last[0].members) != len(last):
        yield f"in the end: {[view and (view.node, view.ident, view.members) for view in last]}"
        return
    for view in last:
        for other in last:
            lost = set(view.sent) - set(other.messages)
            if lost:
                yield f"{len(lost)} messages of node {view.node} in the last view never reached node {other.node}"


RULES = (one_list_of_members, a_view_is_seen_by_members_once, senders_are_members, in_order_without_gaps, only_what_was_sent, one_order,
         together_the_same, in_the_end_all_is_heard)


def violations(trace):
    found = list(trace.faults)
    for rule in RULES:
        found += [f"{rule.__name__}: {what}" for what in rule(trace)]
    return found


# ---- sights

def sights(trace):
    """late: sent in one view, delivered in a later one. kept_to_itself: delivered to its sender alone, though the view had others.
    alone_between: a view of oneself between two larger ones."""
    count = collections.Counter()
    sent_in = {message: view.ident for view in trace.views() for message in view.sent}
    heard_by = collections.defaultdict(set)
    for view in trace.views():
        for message in view.messages:
            heard_by[message].add(view.node)
            count["late"] += message[0] == view.node and sent_in.get(message) != view.ident
    for view in trace.views():
        count["kept_to_itself"] += sum(heard_by[message] == {view.node} for message in view.messages if len(view.members) > 1)
        count["alone_between"] += bool(len(view.members) > 1 and view.next and len(view.next.members) == 1
                                       and view.next.next and len(view.next.next.members) > 1)
    return count


def changes(trace):
    """How many views each node saw after the first of all."""
    return {node: sum(len(views) for views in lives) for node, lives in trace.lives.items()}


def runs(lines):
    """(scenario, seed, trace) for each that a program printed."""
    title, body = None, []
    for line in itertools.chain(lines, ["#"]):
        if not line.startswith("#"):
            body.append(line)
            continue
        if title:
            yield *title, Trace(body)
        title, body = line[1:].split(), []


def main():
    done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True)
    seen, n, bad = collections.defaultdict(collections.Counter), 0, 0
    for scenario, seed, trace in runs(done.stdout.splitlines()):
        n += 1
        seen[scenario].update(sights(trace))
        seen[scenario]["messages"] += sum(len(view.messages) for view in trace.views())
        for what in violations(trace)[:3]:
            print(f"{scenario}, seed {seed}: {what}")
            bad += 1
    for scenario, count in seen.items():
        print(f"{scenario}: " + ", ".join(f"{sight} {count[sight]}" for sight in ("messages", *SIGHTS)))
    # What real corosyncs were seen to do, the simulated one must go on showing.
    missing = [sight for sight in SIGHTS if not any(count[sight] for count in seen.values())]
    if missing:
        print(f"never seen: {', '.join(missing)}")
    print(f"{n} traces, {bad} violations")
    return 1 if bad or missing or not n else 0


if __name__ == "__main__":
    sys.exit(main())
