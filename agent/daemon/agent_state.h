/* What the agent knows: itself, the domains that are on this host, the migrations in which it has a part.
 *
 * Everything runs on one loop. Callbacks only write down what happened and call agent_wake(); the pass
 * (agent_pass.h) then compares goals with what is and begins operations. Ownership: `struct agent` owns all lists;
 * a domain stays in its list while it has a QEMU, an operation under way (`pending`), a goal or an end to report,
 * so that callbacks may hold a pointer to it. Limits: LIMIT_DOMAINS. No function here fails but where it says so. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "agent/core/domain_fate.h"
#include "agent/core/guest_watch.h"
#include "agent/core/reconcile.h"
#include "agent/core/selffence.h"
#include "hypervisor/accel.h"
#include "hypervisor/qemu_process.h"
#include "lib/err.h"
#include "lib/hostconf.h"
#include "network/bridge.h"
#include "proto/agent.pb-c.h"
#include "proto/rpc.h"
#include "proto/tls.h"
#include "storage/storage_async.h"

struct agent;
struct client;
struct console;
struct goals_writer;
struct guest_agent;
struct migration;
struct port_probe;
struct reporter;
struct volume_task;

struct domain {
	struct domain *next;
	struct agent *agent;
	char *uuid, *name;
	Gantry__DomainSpec *spec; /* of the QEMU that is here; NULL before the first */
	uint64_t generation;	  /* of that QEMU */
	bool ha;
	bool left; /* not ended by the self-fence of a host without a watchdog */
	bool adopted;	/* found by this agent, not started by it; its leases are not ours yet */
	bool cut_short; /* adopted in the middle of its start */
	enum actual_state actual;
	struct qemu_process *qemu;
	bool qmp_ready;	  /* QMP was up once; it may be lost for a while and come back */
	bool qemu_dead;	  /* on_exit came; freed in the next pass */
	unsigned pending; /* operations that will still call back with this domain */
	char **taps;	  /* NULL-terminated; made for this QEMU */
	struct storage_lease_set *leases;
	struct storage_lease_set *leases_new; /* being acquired */
	bool leases_handed; /* to the destination: the guest must not run before they are taken back */
	bool leases_asked;  /* an acquisition is under way */
	struct console *console;
	uint64_t job_id;	   /* migration whose copy or source this QEMU is; 0 none */
	bool copy;		   /* this QEMU began as the copy of an incoming migration */
	bool activating;	   /* committed: leases and cont are under way */
	bool settling;		   /* the abort is being carried out: RESUME is right */
	uint64_t running_since_ms; /* wall clock */
	char *vnc;
	char *trouble; /* for people: why it is not as it shall be, yet; NULL none */

	/* domain_ready.h, guest_agent.h */
	struct guest_agent *guest_agent;
	struct guest_watch guest_watch;
	struct port_probe *probe;
	bool ready;
	char *ready_trouble;
	uint64_t run_at_ms, probe_at_ms; /* monotonic; the first look at which it ran */

	/* domain_io.h */
	char *io_error; /* NULL: none */
	int io_disk;	/* index in the spec, -1: not known */
	uint64_t io_again_ms, io_steady_ms;

	bool hung; /* it is ended for that */
	bool stop_asked, guest_shutdown, guest_reboot, guest_panicked;
	enum domain_end end;
	char *end_reason;

	/* Monotonic ms, 0 none. */
	uint64_t powerdown_at_ms, quit_at_ms, cont_at_ms, not_before_ms, retry_until_ms, lease_retry_ms, status_at_ms;
	unsigned tries;

	/* How the last QEMU of `ended_generation` ended; reported until a newer goal comes. */
	uint64_t ended_generation;
	Gantry__DomainState ended_state;
	char *ended_reason;
	bool ended_guest_shutdown, ended_guest_reboot, ended_hung;
};

struct host_watchdog {
	int fd;	     /* -1: not open */
	bool wanted; /* a quorum was seen, or an older agent armed it */
	bool trouble_told;
	uint64_t at_ms; /* of the last feed or try */
};

struct agent {
	uv_loop_t *loop;
	struct hostconf conf;
	struct accel_info accel;
	bool accel_known;
	char *accel_trouble;
	bool accel_busy;
	uint64_t accel_retry_ms;
	struct storage *storage;
	struct tls_context *tls; /* NULL until the host's certificate is there */
	struct rpc_listener *local, *remote;
	struct client *clients;
	size_t n_clients;

	Gantry__AgentGoals *goals;	   /* the newest obeyed; NULL since the start of this agent */
	struct goals_writer *goals_writer; /* goals_note.h */
	char *known_cluster;		   /* whose goals were seen last, over restarts */
	uint64_t known_epoch, known_index;
	struct selffence selffence;
	bool fenced;
	struct host_watchdog watchdog;

	struct domain *domains;
	struct migration *migrations;
	struct volume_task *volumes;
	struct reporter *reporter;
	bool taps_swept;
	uint64_t tls_retry_ms;

	uv_idle_t wake;
	uv_timer_t tick;
	uint64_t started_ms;
	bool stopping;
};

/* A pass is made in the next turn of the loop. */
void agent_wake(struct agent *a);
uint64_t agent_now_ms(const struct agent *a);
/* Replaces an owned string by a copy (NULL: by nothing). */
void agent_set_text(char **field, const char *text);

struct domain *agent_find_domain(const struct agent *a, const char *uuid);
struct domain *agent_find_domain_named(const struct agent *a, const char *name_or_uuid);
/* Found or made (absent). -ENOSPC at LIMIT_DOMAINS. */
int agent_get_domain(struct agent *a, const char *uuid, const char *name, struct domain **ret, struct err *err);
/* Frees those that nothing refers to any more. */
void agent_forget_domains(struct agent *a);

/* Of the goals in force; borrowed, NULL if there is none. */
const Gantry__DomainGoal *agent_goal(const struct agent *a, const char *uuid);
const Gantry__MigrationGoal *agent_migration_goal(const struct agent *a, const char *uuid);

/* Bytes that the domains here were promised. */
uint64_t agent_memory_used(const struct agent *a);
/* kvm or tcg for this domain on this host. -EAGAIN while the host has not found out what works; -ENOTSUP. */
int agent_accel_for(const struct agent *a, const Gantry__DomainSpec *spec, const char **ret, struct err *err);
/* Folders and logs of a domain. Owner: caller. */
char *agent_run_dir(const char *uuid);
char *agent_log_path(const char *name);
char *agent_console_log_path(const char *name);
