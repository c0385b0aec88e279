/* The inside of a simulated host's agent, shared by these files:
 *
 *   sim_agent.c    the process: goals in, the pass, reports out, self-fence       (agent/daemon: agent_pass, agent_goals, reporter)
 *   sim_domain.c   one domain: its note, its end, its adoption, what the pass asks  (domain_note, domain_end, domain_adopt)
 *   sim_domain_run.c  how it starts and runs                                     (domain_start, domain_run)
 *   sim_migrate.c  one side of a migration                                       (migration_host, migrate/)
 *   sim_channel.c  the connection between the two
 *   sim_qemu.c     the processes and what they answer
 *   sim_store.c    the pool; leases over the shipped storage/lease.c             (storage_leases)
 *   sim_check_domains.c  the checkers
 *
 * What decides is agent/core; here is only what the daemon does about it. Identities are numbers, never pointers: an event looks up what
 * it is for, and finds nothing if that has ended. Owner of all: the agent of the host. */
#pragma once

#include <string.h>

#include "agent/core/domain_fate.h"
#include "agent/core/domain_word.h"
#include "agent/core/goals_order.h"
#include "agent/core/migration_rule.h"
#include "agent/core/reconcile.h"
#include "agent/core/selffence.h"
#include "lib/buf.h"
#include "proto/pb.h"
#include "tests/sim/sim.h"

#define MS 1000ull
#define SECOND 1000000ull
#define SIM_DOMAIN_VOLUMES 4       /* writable volumes of a simulated domain */
#define SIM_TEXT 160
#define NEVER UINT64_MAX

#define SIM_HOST(a) ((a)->host)
#define STATE(x) GANTRY__DOMAIN_STATE__DOMAIN_STATE_##x
#define GOAL(x) GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_##x
#define STAGE(x) GANTRY__MIGRATION_STAGE__STAGE_##x

struct sim_volume;
struct sim_domain;
struct sim_migration;

/* A whole number of microseconds from low to high. */
static inline uint64_t sim_between(struct sim *s, uint64_t low, uint64_t high) { return low + sim_random(s, high - low + 1); }

/* ---- what a domain is made of: of its specification only what the simulation needs */
struct sim_shape {
	char uuid[37], name[32];
	uint64_t key;                      /* of the uuid: compared first */
	uint64_t memory_bytes;
	struct sim_volume *volumes[SIM_DOMAIN_VOLUMES];
	size_t n_volumes;
};
uint64_t shape_key(const char *uuid);
void shape_of(struct sim *s, const Gantry__DomainSpec *spec, struct sim_shape *ret);

/* ---- QEMU (sim_qemu.c) */
/* Where the stream of an outgoing migration is: ACTIVE the guest runs on, PRESWITCH it is paused, DEVICE the images are given up, SENT all bytes
 * are out and confirmed. */
enum vm_stream { STREAM_NONE, STREAM_ACTIVE, STREAM_PRESWITCH, STREAM_DEVICE, STREAM_SENT };
struct sim_vm {
	struct sim_qemu q;                 /* first */
	struct sim_shape shape;
	bool copy;                         /* began with -incoming */
	bool image_whole;                  /* a copy that has all bytes */
	bool activated;                    /* a copy whose COMMIT was carried out */
	bool open_rw;                      /* has the volumes open for writing */
	bool paused_before;                /* the guest was paused when its migration began */
	bool dying;                        /* a signal or a quit is on its way */
	enum vm_stream stream;
	uint64_t stream_no;                /* which migration of this process */
	uint64_t answers_from_us;          /* hung until then */
};
/* What an agent asks by QMP. The name says also what the agent wants to know it for: the answer comes to domain_answered(). */
enum vm_command {
	VM_FIRST_CONT, VM_STOP, VM_CONT, VM_RESTOP, VM_ACTIVATE_CONT, VM_POWERDOWN, VM_QUIT, VM_STATUS, VM_ADOPT_STATUS,
	VM_MIGRATE, VM_CONTINUE, VM_CANCEL, VM_RESCUE, VM_INCOMING, VM_VERIFY,
};
enum vm_event { EVENT_STOP, EVENT_RESUME, EVENT_SHUTDOWN, EVENT_PANIC, EVENT_PRESWITCH, EVENT_SENT, EVENT_MIGRATION_FAILED };
struct sim_vm *vm_of(const struct sim_qemu *q);
struct sim_vm *vm_find(const struct sim_host *h, uint64_t serial);
/* The process is made; domain_vm_ready() when QMP answers, domain_vm_exited() when it has died. Returns its serial. */
uint64_t vm_start(struct sim *s, struct sim_host *h, const struct sim_shape *shape, uint64_t generation, bool copy, uint64_t job_id);
void vm_kill(struct sim *s, struct sim_vm *vm);
void vm_adopt(struct sim *s, struct sim_vm *vm);
void vm_ask(struct sim *s, struct sim_host *h, uint64_t serial, enum vm_command command);
/* The copy is complete, verified and noted. / COMMIT was carried out, the guest is to stay paused. */
void vm_is_complete(struct sim *s, struct sim_vm *vm);
void vm_is_activated(struct sim *s, struct sim_vm *vm);
/* The agent that fed a copy has gone: what is not whole ends by itself. */
void vm_feeder_gone(struct sim *s, struct sim_host *h);
void vm_all_lost(struct sim *s, struct sim_host *h);

/* ---- what is asked of the pool (sim_store.c) */
enum store_what { STORE_CHECK, STORE_ACQUIRE, STORE_HAND_OVER, STORE_TAKE_BACK, STORE_RELEASE };
/* The answer, on the agent. pending_store counts it down before. text "" if all is well. */
typedef void (*store_done)(struct sim *s, struct sim_domain *d, int rc, const char *text);

/* ---- a domain (sim_domain.c, sim_domain_run.c) */
struct sim_leases {
	uint64_t no, generation;
	uint64_t seen[SIM_DOMAIN_VOLUMES]; /* version of each volume's records after our last look: nothing new, nothing to do */
	bool held;
};
/* What is kept in the run folder, beside QEMU's sockets: survives the agent, not the power. */
struct sim_note {
	struct sim_note *next;
	struct sim_shape shape;
	uint64_t generation, job_id, vm;
	enum note_stage stage;
	bool ha, has_run;
};
/* Likewise: how a generation ended. */
struct sim_ended {
	struct sim_ended *next;
	struct sim_shape shape;
	uint64_t generation;
	Gantry__DomainState state;
	char reason[SIM_TEXT];
	bool guest_shutdown;
};
struct sim_domain {
	struct sim_domain *next;
	struct sim_agent *agent;
	uint64_t no;                       /* of this struct */
	struct sim_shape shape;
	bool dirty;
	/* its goal; the strings of `goal` are ours */
	bool has_goal;
	uint64_t goal_seen;
	Gantry__DomainGoal goal;
	Gantry__HaPolicy policy;           /* of the goal */
	char lease_from[32], lease_proof[SIM_TEXT];

	uint64_t generation;               /* of the QEMU that is here */
	bool ha, adopted, cut_short;
	enum actual_state actual;
	uint64_t vm;                       /* serial, 0 none */
	bool qmp_ready, vm_dead;
	unsigned pending_qmp, pending_store;
	struct sim_leases *leases;
	bool leases_handed, leases_asked;
	uint64_t job_id;
	bool copy, activating, settling, has_run;
	bool stop_asked, guest_shutdown, guest_panicked;
	enum domain_end end;
	char end_reason[SIM_TEXT], trouble[SIM_TEXT];
	/* simulated time, 0 none */
	uint64_t ready_at, powerdown_at, quit_at, cont_at, not_before, retry_until, lease_retry;
	unsigned tries;

	uint64_t ended_generation;
	Gantry__DomainState ended_state;
	char ended_reason[SIM_TEXT];
	bool ended_guest_shutdown;
};
static inline unsigned domain_pending(const struct sim_domain *d) { return d->pending_qmp + d->pending_store; }
struct sim_domain *domain_find(const struct sim_agent *a, const char *uuid, uint64_t key);
struct sim_domain *domain_by_no(const struct sim_agent *a, uint64_t no);
struct sim_domain *domain_of_vm(const struct sim_agent *a, uint64_t vm);
struct sim_domain *domain_get(struct sim *s, struct sim_agent *a, const struct sim_shape *shape);
void domain_free(struct sim_domain *d);
void domain_pass(struct sim *s, struct sim_domain *d);
/* Something of it is otherwise: the pass looks at it, a report goes out. */
void domain_changed(struct sim *s, struct sim_domain *d);
void domain_set_trouble(struct sim_domain *d, const char *text);
int domain_start_copy(struct sim *s, struct sim_domain *d, const struct sim_migration *m, const char **ret_reason);
void domain_end_begin(struct sim *s, struct sim_domain *d, enum domain_end end, const char *reason);
void domain_settled(struct sim *s, struct sim_domain *d, int rc, const char *reason);
void domain_held(struct sim *s, struct sim_domain *d);
void domain_note(struct sim *s, struct sim_domain *d, enum note_stage stage);
void domain_ended_forget(struct sim_domain *d);
void domain_adopt_all(struct sim *s, struct sim_agent *a);
/* Of its two files: */
struct sim_vm *domain_vm(const struct sim_domain *d);   /* NULL: none that lives */
void domain_ask(struct sim *s, struct sim_domain *d, enum vm_command command);
void domain_ask_store(struct sim *s, struct sim_domain *d, enum store_what what, store_done done);
void domain_look_in(struct sim *s, struct sim_domain *d, uint64_t us);   /* what the daemon sees at a tick: that a time has come */
void domain_leases_ask(struct sim *s, struct sim_domain *d, store_done done);
void domain_leases_done(struct sim *s, struct sim_domain *d, int rc);
void domain_start(struct sim *s, struct sim_domain *d);
void domain_pause(struct sim *s, struct sim_domain *d);
void domain_unpause(struct sim *s, struct sim_domain *d);
void domain_shut_down(struct sim *s, struct sim_domain *d);
void domain_activate(struct sim *s, struct sim_domain *d);
void domain_settle_abort(struct sim *s, struct sim_domain *d);
/* From QEMU, on the agent. */
void domain_vm_ready(struct sim *s, struct sim_domain *d);
void domain_vm_exited(struct sim *s, struct sim_domain *d);
void domain_vm_event(struct sim *s, struct sim_domain *d, enum vm_event event);
void domain_answered(struct sim *s, struct sim_domain *d, enum vm_command command, int rc, bool running);

/* ---- the agent (sim_agent.c) */
struct sim_agent_event { sim_fn fn; uint64_t arg; void *p; void (*drop)(void *); };
struct sim_task {                          /* a volume to make or delete */
	struct sim_task *next;
	uint64_t no, goal_seen, job_id, size_bytes;
	char pool[64], name[64];
	bool deleting, done;
	int rc;
};
struct sim_agent {
	struct sim_host *host;
	struct sim_vm *vms;                /* processes of the host */
	struct sim_note *notes;
	struct sim_ended *ended;
	uint64_t last_quorum_ms;           /* in /run; 0 none */
	char disk_cluster[64];             /* on the disk: survives the power */
	uint64_t disk_epoch, disk_index;
	uint64_t made[16];                 /* jobs whose volume this host made */
	size_t n_made;
	uint64_t starts_fail_until;
	Gantry__AgentGoals *past;          /* some that were obeyed: offered again when newer ones were */
	uint64_t past_us;

	/* the process */
	bool running, hung, connected;
	struct sim_agent_event *parked;    /* while it hangs */
	size_t n_parked, cap_parked;
	bool has_goals;
	char cluster[64];
	uint64_t epoch, index, goals_no;
	struct selffence selffence;
	bool fenced;
	struct sim_domain *domains, **domains_end;
	struct sim_migration *migrations;
	struct sim_task *tasks;
	bool pass_soon, report_now;
	uint64_t reported_us;
	char pool[32];                     /* of the goals; one is enough */
	bool pool_lost, disarmed;
	uint64_t pool_looked_us;
};
void agent_wake(struct sim *s, struct sim_agent *a);
/* An event of the agent's process. Handlers begin with AGENT_EVENT: an agent that hangs does it later. */
void agent_after(struct sim *s, struct sim_agent *a, uint64_t us, sim_fn fn, uint64_t arg, void *p);
bool agent_parks(struct sim_agent *a, sim_fn fn, uint64_t arg, void *p, void (*drop)(void *));
#define AGENT_EVENT(fn) \
	do { \
		if (agent_parks(h->agent, fn, arg, p, free)) \
			return; \
	} while (0)

/* ---- migrations (sim_migrate.c) */
enum side_state {
	SIDE_GREETING, SIDE_RESERVING, SIDE_PREPARING, SIDE_COPYING, SIDE_HANDING_OVER, SIDE_SWITCHING, SIDE_VERIFYING, SIDE_COMPLETE, SIDE_FAILED,
	SIDE_SETTLING, SIDE_SETTLED,
};
struct sim_migration {
	struct sim_migration *next;
	struct sim_agent *agent;
	uint64_t no, goal_seen;
	bool listed;                       /* in the goals in force */
	struct sim_shape shape;
	Gantry__MigrationGoal goal;        /* goal.job is &job; no strings, no specification */
	Gantry__Job job;
	bool incoming;
	struct sim_host *peer;
	char peer_name[32];
	bool tried, engine, decided, committed, settled, aborting, reserve_wanted, hand_over_wanted;
	int settle_rc;
	enum side_state state;
	uint64_t peer_no;                  /* the other side, 0: not connected */
	unsigned letters_out, letters_in;
	uint64_t moved_us, silent_us;      /* since when nothing has moved; since when the peer is silent, 0: it is not */
	/* the report */
	Gantry__MigrationStage stage;
	bool ready, failed, said_settled, running;
	char reason[SIM_TEXT];
};
struct sim_migration *migration_listed(const struct sim_agent *a, const struct sim_domain *d);
void migration_take_goal(struct sim *s, struct sim_agent *a, const Gantry__MigrationGoal *goal);
void migrations_update(struct sim *s, struct sim_agent *a);
bool migrations_active(const struct sim_agent *a);
void migrations_report(const struct sim_agent *a, Gantry__AgentReport *report);
void migrations_free(struct sim_agent *a);
void migration_reserved(struct sim *s, struct sim_domain *d, int rc, const char *reason);
void migration_activated(struct sim *s, struct sim_domain *d);
void migration_vm_event(struct sim *s, struct sim_domain *d, enum vm_event event);
void migration_vm_answered(struct sim *s, struct sim_domain *d, enum vm_command command, int rc);
void migration_vm_died(struct sim *s, struct sim_domain *d);
void migration_drop_vm(struct sim_domain *d);
/* ABORT: domain_settled() is called when the guest is free to run. False: it cannot be done. */
void migration_abort_source(struct sim *s, struct sim_domain *d);
/* Between sim_migrate.c and sim_channel.c: */
enum letter_what { LETTER_HELLO, LETTER_WELCOME, LETTER_RESERVE, LETTER_RESERVED, LETTER_STOPPED, LETTER_END, LETTER_COMPLETE, LETTER_FAILED };
struct sim_migration *migration_by_job(const struct sim_agent *a, uint64_t job_id);
struct sim_migration *migration_by_no(const struct sim_agent *a, uint64_t no);
void migration_fail(struct sim *s, struct sim_migration *m, const char *reason);
void migration_receive(struct sim *s, struct sim_migration *m, enum letter_what what);
void channel_open(struct sim *s, struct sim_migration *m);
void channel_post(struct sim *s, struct sim_migration *m, enum letter_what what);
const struct sim_migration *channel_peer(const struct sim_migration *m);   /* the side that this one is connected with */
/* Do the bytes of this QEMU's stream reach the other QEMU? ret: the copy, NULL if there is none. */
bool migration_stream_moves(struct sim *s, const struct sim_vm *source, struct sim_vm **ret_copy);

/* ---- the pool (sim_store.c) */
struct sim_volume *store_volume(struct sim *s, const char *pool, const char *name);
const char *store_volume_name(const struct sim_volume *v);
/* For the leases of the domain's own generation; next: the destination of a hand-over. */
void store_ask(struct sim *s, struct sim_domain *d, enum store_what what, const char *next_host, uint64_t next_generation, store_done done);
/* Begins (again) the renewal of what the domain holds. */
void store_renewal_begin(struct sim *s, struct sim_domain *d);
void store_lease_lost(struct sim *s, struct sim_domain *d, const char *text);
/* Makes or deletes a volume; 0 or a negative errno. */
int store_make(struct sim *s, struct sim_host *h, const char *pool, const char *name);
int store_delete(struct sim *s, struct sim_host *h, const char *pool, const char *name);
/* Is the newest live record of the volume that of this host and generation, held? For the checkers. */
bool store_is_held_by(struct sim_volume *v, const char *host, uint64_t generation);

/* ---- checkers (sim_check_domains.c) */
void check_goals_obeyed(struct sim *s, const struct sim_host *h, const Gantry__AgentGoals *goals);
void check_lease_taken(struct sim *s, const struct sim_host *h, const char *volume, const char *uuid, uint64_t generation);
/* At each look of the agent at its clock; at each word of a quorum that counts. */
void check_selffence(struct sim *s, const struct sim_host *h);
void check_quorum_heard(struct sim *s, const struct sim_host *h);
/* A source QEMU is ended because "it is another host's". */
void check_source_given_up(struct sim *s, const struct sim_vm *vm);
void check_copy_complete(struct sim *s, const struct sim_vm *vm);
bool check_fence_asked(struct sim *s, const struct sim_host *target);   /* true: it was healthy for long */
void check_fenced(struct sim *s, const struct sim_host *by, const struct sim_host *target, bool was_healthy);
