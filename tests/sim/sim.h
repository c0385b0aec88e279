/* The simulated world: a clock, hosts that lose power, freeze and thaw, cables, corosync's group, disks that forget what was
 * not synced, agents with their QEMUs, one shared pool with its leases, fence devices, users; and checkers that look on at
 * every step. All of it follows from one seed. What runs in it is the shipped code of both cores: clusterd/core (the
 * whole member: log, model, manager) and agent/core; simulated is only what stands behind their actions.
 *
 *   sim_clock.c    clock, events, chance, trace
 *   sim_world.c    the run
 *   sim_group.c    corosync: rings, configurations, total order, cables
 *   sim_disk.c     the disk under a log
 *   sim_host.c     a host and its clusterd: events in, actions out
 *   sim_agent.c    a host's agent: goals in, reports out; agent/core decides
 *   sim_qemu.c     QEMU processes and their guests
 *   sim_migrate.c  the two sides of a migration
 *   sim_store.c    the shared pool and its leases (the shipped storage/lease.c over a pool in memory, mem_pool.c)
 *   sim_fence.c    power controllers
 *   sim_user.c     users and operators
 *   sim_faults.c   faults, by profile
 *   sim_check.c    the checkers: docs/proof.md says what each one proves */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/agent.pb-c.h"

#define SIM_HOSTS_MAX 32

struct sim;
struct sim_host;
struct sim_agent;    /* sim_agent.c: the agent process, the QEMUs and taps of its host */
struct sim_member;   /* sim_host.c: the clusterd process */
struct sim_store;    /* sim_store.c: the pool and the records on it */

/* Things of a host that end: an event that belongs to one is void once it has ended. POWER ends with the host's power, CLUSTERD
 * with its clusterd process, AGENT with its agent process. A QEMU is no such thing: it has an identity of its own. */
enum sim_life { LIFE_POWER, LIFE_CLUSTERD, LIFE_AGENT, LIFE_KINDS };

struct sim_host {
	struct sim *sim;
	uint32_t id;                       /* node id, 1.. */
	char name[16];                     /* "host1" */
	bool powered, frozen;              /* frozen: everything of it stops and later goes on */
	uint64_t life[LIFE_KINDS];
	uint64_t powered_us, healthy_us;   /* since when it has power; since when nothing is wrong with it (0: something is) */
	bool lied_about;                   /* a fence device said "off" although it was on */
	bool store_cut;                    /* cannot reach the shared pool */
	uint64_t memory_bytes;
	double drift;                      /* of its clocks: 1.0 is true */
	int64_t wall_skew_ms;
	struct sim_member *member;         /* sim_host.c: its clusterd and disk */
	struct sim_agent *agent;
	struct sim_port *port;             /* sim_group.c: its corosync */
};

/* ---- options and results ------------------------------------------------------ */

enum sim_fault {
	FAULT_POWER_LOSS, FAULT_ALL_DOWN, FAULT_FROZEN_HOST, FAULT_PARTITION, FAULT_ONE_WAY, FAULT_FLAP, FAULT_COROSYNC_CRASH,
	FAULT_CLUSTERD_CRASH, FAULT_CLUSTERD_HUNG, FAULT_AGENT_CRASH, FAULT_AGENT_HUNG, FAULT_ROLLING_RESTART,
	FAULT_SLOW_DISK, FAULT_FULL_DISK, FAULT_LOST_DISK, FAULT_CLOCK,
	FAULT_FENCE_SLOW, FAULT_FENCE_FAILS, FAULT_FENCE_LIES,
	FAULT_QEMU_CRASH, FAULT_QEMU_HANG, FAULT_QEMU_START_FAILS, FAULT_STORE_CUT,
	FAULT_MIGRATION_DEATH,             /* one of those who take part in a migration dies in the middle of it */
	FAULT_KINDS
};
extern const char *const sim_fault_names[FAULT_KINDS];

#define SIM_TAIL_LINES 64
/* The last lines of a trace, for a run that is told only if it fails. */
struct sim_tail { char lines[SIM_TAIL_LINES][400]; size_t next; };

struct sim_options {
	uint64_t seed;
	unsigned hosts, domains, minutes;
	bool watchdogs;                    /* every second host has one */
	const struct sim_profile *profile;
	bool trace;
	struct sim_tail *tail;             /* the trace goes here; NULL: to standard output */
	const bool *without;               /* faults of the list that do not happen (--shrink); NULL: all happen */
	size_t n_without;
};

struct sim_result {
	char violation[512];               /* empty: none; the invariant's name, a colon, what was seen */
	uint64_t faults[FAULT_KINDS];
	uint64_t hash, simulated_ms;
	/* what happened: a run in which nothing did proves nothing */
	uint64_t commands, acknowledged, retries, epochs, snapshots, fences, failovers, halves, starts, migrations, migrations_done, migrations_aborted;
#define SIM_COUNTERS 12
};

/* ---- sim_clock.c, sim_world.c ------------------------------------------------- */

typedef void (*sim_fn)(struct sim *s, struct sim_host *h, uint64_t arg, void *p);

struct sim_event;

struct sim {
	uint64_t disarmed_us;              /* when automatic action was switched off last */
	struct sim_options o;
	struct sim_result *r;
	uint64_t rng, now_us, seq;
	struct sim_event *heap;
	size_t n_heap, cap_heap;
	struct sim_event *parked;          /* of frozen hosts */
	size_t n_parked, cap_parked;
	struct sim_host host[SIM_HOSTS_MAX + 1];   /* [1..o.hosts] */
	struct sim_store *store;
	bool quiet;                        /* the faults are over */
	/* each module's own */
	struct sim_group *group;
	struct sim_users *users;
	struct sim_faults *faults;
	struct sim_checks *checks;
	struct sim_fences *fences;
	struct sim_domain_checks *domain_checks;
};

uint64_t sim_random(struct sim *s, uint64_t below);
bool sim_chance(struct sim *s, double p);
/* Only with --trace is the text made and printed; cheap otherwise. Everything that happens should be told once, in words. */
#define sim_trace(s, ...) ((s)->o.trace ? sim_say(s, __VA_ARGS__) : (void)0)
void sim_say(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Goes into the hash of the run, by which two runs of a seed are compared. */
void sim_hash(struct sim *s, uint64_t what);
/* The first one ends the run. invariant: a name of docs/proof.md ("two-writers"). */
void sim_violation(struct sim *s, const char *invariant, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* fn in `us` from now. With a host, the event is void once that life of it has ended (p is then given to drop(), if not NULL), and waits
 * while the host is frozen. h NULL: of the world. */
void sim_run(const struct sim_options *o, struct sim_result *r);
/* Lets the world go on until then (microseconds), or to the first violation. */
void sim_run_until(struct sim *s, uint64_t us);
void sim_thawed(struct sim *s, struct sim_host *h);       /* its parked events go on */
void sim_after(struct sim *s, uint64_t us, struct sim_host *h, enum sim_life life, sim_fn fn, uint64_t arg, void *p, void (*drop)(void *));
/* Drops all events there are, with their memory. */
void sim_events_drop(struct sim *s);
struct sim_host *sim_host_by_name(struct sim *s, const char *name);
/* The host's own clocks, ms: monotonic (since boot) and wall. */
uint64_t sim_clock_ms(const struct sim *s, const struct sim_host *h);
uint64_t sim_wall_ms(const struct sim *s, const struct sim_host *h);

/* ---- sim_group.c: cables -------------------------------------------------------- */
/* A packet sent now from one to the other arrives (both have power, no cable is cut in that direction). */
bool net_reaches(const struct sim *s, const struct sim_host *from, const struct sim_host *to);
/* The host and the shared pool (and the fence devices) reach each other. */
bool net_reaches_store(const struct sim *s, const struct sim_host *h);

/* ---- sim_host.c: what an agent and a power controller ask of a host ---------------- */
/* The agent says what is, on its connection to clusterd. Taken over. */
void host_agent_report(struct sim *s, struct sim_host *h, Gantry__AgentReport *report);
void host_power_off(struct sim *s, struct sim_host *h, const char *why);
void host_power_on(struct sim *s, struct sim_host *h);
/* The answer of a fence run that `by`'s clusterd asked for. rc 0: text is the proof. */
void host_fence_answer(struct sim *s, struct sim_host *by, const char *target, int rc, const char *text, bool by_time);
/* Every second host has a watchdog, as its second fence device. */
bool host_has_watchdog(const struct sim_host *h);
bool host_has_power_control(const struct sim_host *h);   /* one host of some clusters has its watchdog only */
void watchdog_feed(struct sim *s, const struct sim_host *h);

/* ---- sim_agent.c ------------------------------------------------------------------ */
void agent_start(struct sim *s, struct sim_host *h);        /* the process begins; QEMUs that run are found again */
void agent_stop(struct sim *s, struct sim_host *h);         /* the process dies; QEMUs go on */
void agent_power_lost(struct sim *s, struct sim_host *h);   /* with all QEMUs */
void agent_hang(struct sim *s, struct sim_host *h, bool hung);
void agent_connected(struct sim *s, struct sim_host *h, bool connected);   /* its clusterd came or went */
void agent_take_goals(struct sim *s, struct sim_host *h, const Gantry__AgentGoals *goals);
void agent_take_quorum(struct sim *s, struct sim_host *h, bool quorate, uint64_t epoch);
bool agent_is_running(const struct sim_host *h);
void agent_free(struct sim *s, struct sim_host *h);

/* ---- sim_qemu.c: for faults, users and checkers ------------------------------------- */
enum qemu_phase { QEMU_STARTING, QEMU_RUNNING, QEMU_PAUSED, QEMU_INCOMING, QEMU_COMPLETE, QEMU_DEAD };
struct sim_qemu {
	struct sim_qemu *next;             /* of its host */
	struct sim_host *host;
	uint64_t serial;                   /* which process: never used again */
	char uuid[37];
	char name[32];
	uint64_t generation;               /* that it was started for */
	uint64_t job_id;                   /* of an incoming copy */
	enum qemu_phase phase;
	bool hung;                         /* answers no QMP */
	uint64_t started_us;
};
struct sim_qemu *qemu_first(const struct sim_host *h);
/* How many fault kinds need a victim: crash or hang one that runs somewhere; false if there is none. */
bool qemu_fault_crash(struct sim *s);
bool qemu_fault_hang(struct sim *s);
void qemu_fault_starts_fail(struct sim *s, struct sim_host *h, uint64_t for_us);
/* A guest of its own accord: shuts down (poweroff) or panics. */
bool qemu_guest_ends(struct sim *s, const char *uuid, bool panic);

/* ---- sim_store.c ---------------------------------------------------------------------- */
void store_new(struct sim *s);
void store_free(struct sim *s);

/* ---- sim_migrate.c ---------------------------------------------------------------------- */
/* A job that is between two stages somewhere, 0 if none; its two hosts. For FAULT_MIGRATION_DEATH. */
uint64_t migration_in_progress(struct sim *s, struct sim_host **ret_source, struct sim_host **ret_destination);

/* ---- sim_fence.c -------------------------------------------------------------------------- */
void fences_new(struct sim *s);
void fences_free(struct sim *s);
/* `by`'s clusterd runs the fence devices of target (asked: a person wants it): answered by host_fence_answer(), unless cancelled. */
void fence_run(struct sim *s, struct sim_host *by, const char *target, bool asked);
void fence_cancel_all(struct sim *s, struct sim_host *by);
enum fence_mood { FENCE_WORKS, FENCE_SLOW, FENCE_FAILS, FENCE_LIES };
void fence_set_mood(struct sim *s, struct sim_host *target, enum fence_mood mood);

/* ---- sim_group.c: corosync ------------------------------------------------------------------- */
void group_port_new(struct sim_host *h);
void group_new(struct sim *s);
void group_free(struct sim *s);
/* The corosync process of a host begins or ends; its clusterd joins or leaves the process group. */
void group_corosync(struct sim *s, struct sim_host *h, bool up);
void group_join(struct sim *s, struct sim_host *h);
void group_leave(struct sim *s, struct sim_host *h);
void group_send(struct sim *s, struct sim_host *h, const uint8_t *data, size_t len);
void group_kick(struct sim *s, struct sim_host *h);       /* it goes on after a hang or a freeze */
void group_tell_ring(struct sim *s, struct sim_host *h);
void group_changed(struct sim *s, uint64_t detect_us);    /* something of it changed: looked at after so long; what is lost is noticed when the token is missed */
void group_cut(struct sim *s, const struct sim_host *from, const struct sim_host *to, bool cut);
void group_heal_cables(struct sim *s);
bool group_is_connected(const struct sim_host *h);        /* its corosync runs and its clusterd is in the group */
/* A quorum device's vote: for the ring of the lowest node id that it reaches, if the host was told of this ring. */
bool group_device_votes(const struct sim *s, const struct sim_host *h);
/* In the same ring now, as corosync sees it. */
bool group_same_ring(const struct sim_host *a, const struct sim_host *b);

/* ---- sim_disk.c ------------------------------------------------------------------------------- */
#define SIM_DISK_KEPT 400    /* entries behind a snapshot: few, so that snapshots are sent */
enum disk_mood { DISK_WORKS, DISK_SLOW, DISK_FULL };
struct sim_disk;
struct clog_disk_batch;
struct clog_disk_state;
struct buf;
typedef void (*disk_done_fn)(struct sim *s, struct sim_host *h, bool snapshot, uint64_t serial_or_index, int rc);
struct sim_disk *disk_new(disk_done_fn done);
void disk_free(struct sim_disk *d);
void disk_write(struct sim *s, struct sim_host *h, struct sim_disk *d, const struct clog_disk_batch *b);
void disk_snapshot(struct sim *s, struct sim_host *h, struct sim_disk *d, uint64_t index, uint64_t epoch, const uint8_t *data, size_t len,
		   const uint32_t *voters, size_t n_voters);
void disk_remember(struct sim *s, struct sim_host *h, struct sim_disk *d);
/* The process or the power is gone: some of what was under way got there, in order, the rest did not. */
void disk_cut(struct sim *s, struct sim_disk *d);
void disk_lose(struct sim_disk *d);                       /* the file is corrupt: set aside, begun anew, marked as lost */
void disk_set_mood(struct sim_disk *d, enum disk_mood mood);
/* Why no clusterd would begin with what is there, as it looks at it (check_state() of store_db.c); NULL: it would. */
const char *disk_fault(const struct sim_disk *d);
/* What is there, as copies for clog_new(). False: nothing but an empty log. */
bool disk_load(const struct sim_disk *d, struct clog_disk_state *ret, struct buf *ret_snapshot, bool *ret_forgetful);
void disk_mark_forgetful(struct sim_disk *d);
bool disk_is_forgetful(const struct sim_disk *d);
bool disk_is_ahead(const struct sim_disk *a, const struct sim_disk *b);   /* the log of a ends later */

/* ---- sim_host.c: the rest ------------------------------------------------------------------------ */
struct node;
void host_new(struct sim *s, struct sim_host *h);
void host_free(struct sim *s, struct sim_host *h);
struct node *host_node(const struct sim_host *h);         /* NULL: its clusterd does not run */
bool host_clusterd_answers(const struct sim_host *h);     /* runs, not hung, not frozen */
struct sim_disk *host_disk(const struct sim_host *h);
void host_clusterd_start(struct sim *s, struct sim_host *h);
void host_clusterd_stop(struct sim *s, struct sim_host *h);
void host_clusterd_hang(struct sim *s, struct sim_host *h, bool hung);
void host_agent_start(struct sim *s, struct sim_host *h);
void host_agent_stop(struct sim *s, struct sim_host *h);
void host_freeze(struct sim *s, struct sim_host *h);
void host_thaw(struct sim *s, struct sim_host *h);
/* For the group: what corosync delivers. */
void host_on_view(struct sim *s, struct sim_host *h, uint64_t id, const uint32_t *members, size_t n);
void host_on_ring(struct sim *s, struct sim_host *h, const uint32_t *nodes, size_t n);
void host_on_message(struct sim *s, struct sim_host *h, uint32_t sender, const uint8_t *data, size_t len);
/* healthy_us is kept up here: called by whatever makes or ends a fault of the host. */
void host_ailing(struct sim *s, struct sim_host *h);

/* ---- sim_user.c ------------------------------------------------------------------------------------- */
void users_new(struct sim *s);
void users_free(struct sim *s);
/* Makes the cluster: hosts, fence devices, pool, volumes, domains. False: it did not come up in time. */
bool users_set_up(struct sim *s);
void users_begin(struct sim *s);
void users_host_gone(struct sim *s, struct sim_host *h);  /* its clusterd died: what was asked there has no answer */
void users_burst(struct sim *s, struct sim_host *h, unsigned n);   /* n commands at once, of which some will be on their way when it happens */
void users_stop(struct sim *s);                           /* no new wishes; what is under way is ended */
void users_check(struct sim *s);                          /* every acknowledged command is in the log, once */

/* ---- sim_faults.c ------------------------------------------------------------------------------------- */
struct sim_profile {
	const char *name;
	double per_s;                      /* faults a simulated second */
	unsigned weight[FAULT_KINDS];
};
const struct sim_profile *faults_profile(const char *name);
const char *faults_profile_names(void);
void faults_new(struct sim *s);
void faults_free(struct sim *s);
void faults_heal_all(struct sim *s);
size_t faults_count(const struct sim_options *o);         /* of the list that a seed gives */

/* ---- sim_check.c: the log -------------------------------------------------------------------------------- */
struct node_action;
void checks_new(struct sim *s);
void checks_free(struct sim *s);
void check_applied(struct sim *s, struct sim_host *h, const struct node_action *a);
/* A client was told that it is done. */
void check_acknowledged(struct sim *s, const char *client, uint64_t seq, uint64_t log_index);
void check_member_began(struct sim *s, struct sim_host *h);   /* a clusterd process: it applies from its snapshot on */
void check_settled(struct sim *s);

/* ---- sim_check_domains.c ------------------------------------------------------------------------------ */
/* A guest's vCPUs begin (or stop) to run; a QEMU opens its volume for writing. Called by sim_qemu.c. */
void check_vcpus_run(struct sim *s, const struct sim_qemu *q);
void check_writer(struct sim *s, const struct sim_qemu *q);
/* A QEMU process begins for a generation. */
void check_started(struct sim *s, const struct sim_qemu *q);

/* ---- sim_check_domains.c: invariants 1, 3, 4, 5, 6 as far as domains and power are concerned ------------- */
/* Some member is the first to apply COMMIT, or to see the job of a migration end without one (ABORT, the death of a host, a
 * destroy). Called before any goals follow from it. */
void check_declared_dead(struct sim *s, const struct sim_host *h, const char *proof);
void check_committed(struct sim *s, uint64_t job_id, const char *uuid, uint64_t generation);
void check_aborted(struct sim *s, uint64_t job_id, const char *uuid, uint64_t generation);
/* Faults are over and all is still: is everything as the model says? */
void check_domains_settled(struct sim *s, const Gantry__ClusterModel *model);
void check_domains_free(struct sim *s);
