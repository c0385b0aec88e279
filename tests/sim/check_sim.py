#!/usr/bin/python3
"""Checks of the simulator itself.

    check_sim.py same SIM                    one seed gives one story, byte for byte
    check_sim.py mutants SIM FILE [SEEDS]    each planted bug is caught by its known seed, which the shipped code passes; with
                                             SEEDS, fresh ones from there for those that are caught often (a time bound each)
    check_sim.py shipped PROGRAM...          no planted bug is in these programs
"""

import re
import subprocess
import sys
import time

FRESH_SECONDS = 20      # for one bug; those that are caught often need a few


def run(*argv, timeout=300):
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout)


def same(sim):
    stories = [run(sim, "--seed", "4242", "--hosts", "3", "--domains", "8", "--minutes", "2", "--trace").stdout for _ in range(2)]
    stories = [[line for line in story.splitlines() if "simulated s/s" not in line] for story in stories]
    if len(stories[0]) < 100 or stories[0] != stories[1]:
        print(f"one seed, two stories ({len(stories[0])} and {len(stories[1])} lines)")
        return 1
    print(f"{len(stories[0])} lines, twice the same")
    return 0


def caught(done):
    return done.returncode == 1 and "VIOLATION:" in done.stdout


def rows(path):
    with open(path, encoding="utf-8") as f:
        lines = [line.split("#")[0].split() for line in f]
    return {name: (hosts, domains, minutes, seed) for name, hosts, domains, minutes, seed in filter(None, lines)}


def fresh(sim, name, row, base):
    hosts, domains, minutes, _ = row
    began = time.monotonic()
    try:
        done = run(sim, "--mutant", name, "--hosts", hosts, "--domains", domains, "--minutes", minutes, "--seeds", f"{base}-{base + 1999}",
                   "--until-violation", timeout=FRESH_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    seed = re.search(r"seed (\d+): VIOLATION: (\S+):", done.stdout)
    return (int(seed[1]) - base + 1, time.monotonic() - began, seed[2]) if caught(done) and seed else None


def mutants(sim, path, base=None):
    known, faults, n_fresh = rows(path), 0, 0
    names = [line.split()[0] for line in run(sim, "--list-mutants").stdout.splitlines()]
    for name in names:
        if name not in known:
            print(f"{name}: no seed is known to catch it ({path})")
            faults += 1
            continue
        hosts, domains, minutes, seed = known[name]
        where = ("--hosts", hosts, "--domains", domains, "--minutes", minutes, "--seed", seed)
        with_it, without = run(sim, "--mutant", name, *where), run(sim, *where)
        word = re.search(r"VIOLATION: (\S+?):", with_it.stdout)
        ok = caught(with_it) and without.returncode == 0
        faults += not ok
        text = f"{name}: seed {seed} " + (f"catches it ({word[1]})" if ok else
                                          "does not catch it" if not caught(with_it) else "fails without it too")
        if ok and base is not None:
            found = fresh(sim, name, known[name], base)
            n_fresh += bool(found)
            text += f"; fresh seeds: {found[0]} until {found[2]}, {found[1]:.1f} s" if found else f"; fresh seeds: not within {FRESH_SECONDS} s"
        print(text, flush=True)
    if base is not None:
        print(f"{n_fresh} of {len(names)} are caught by fresh seeds within {FRESH_SECONDS} s each")
        faults += n_fresh < 15
    print(f"{len(names)} planted bugs, {faults} faults")
    return 1 if faults or len(names) < 15 else 0


def shipped(programs):
    faults = 0
    for program in programs:
        symbols = run("nm", program).stdout
        if "mutant" in symbols or len(symbols) < 1000:
            print(f"{program}: holds planted bugs, or its symbols cannot be read")
            faults += 1
    print(f"{len(programs)} programs, {faults} faults")
    return 1 if faults or not programs else 0


def main():
    what, rest = sys.argv[1], sys.argv[2:]
    if what == "same":
        return same(rest[0])
    if what == "mutants":
        return mutants(rest[0], rest[1], int(rest[2]) if len(rest) > 2 else None)
    return shipped(rest)


if __name__ == "__main__":
    sys.exit(main())
