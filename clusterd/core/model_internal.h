/* The inside of the model, shared by the model*.c files only.
 *   model.c          init, look-ups, snapshot, apply: dispatch, refusals, events
 *   model_requests.c exactly-once
 *   model_hosts.c    cluster, members, their states, fence devices
 *   model_domains.c  what users ask of domains: create, undefine, start, stop, pause
 *   model_place.c    who runs a domain: the one mover, placing, waiting, reports, the end of a run
 *   model_ha.c       policies, automatic action on and off, evictions, domains that kill hosts
 *   model_jobs.c     jobs, migrations
 *   model_storage.c  pools, volumes
 *   model_use.c      what is promised on each host
 *   model_goals.c    what one agent shall do
 *   model_report.c   what an agent's report asks to be proposed
 *
 * A handler checks everything first and changes something only when nothing can be refused any more: a refused
 * command leaves no trace. It returns 0, or what model__refuse() returned. */
#pragma once

#include <string.h>

#include "clusterd/core/model.h"
#include "lib/limits.h"
#include "lib/mutant.h"
#include "proto/pb.h"

/* The generated names are long: these stand for them in the core. */
#define HOST(x) GANTRY__HOST_STATE__HOST_STATE_##x
#define DOM(x) GANTRY__DOMAIN_STATE__DOMAIN_STATE_##x
#define GOAL(x) GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_##x
#define JOB(x) GANTRY__JOB_STATE__JOB_STATE_##x
#define KIND(x) GANTRY__JOB_KIND__JOB_KIND_##x
#define STAGE(x) GANTRY__MIGRATION_STAGE__STAGE_##x
#define VOL(x) GANTRY__VOLUME_STATE__VOLUME_STATE_##x
#define STATUS(x) GANTRY__STATUS__STATUS_##x
#define INFO GANTRY__EVENT_SEVERITY__EVENT_INFO
#define WARNING GANTRY__EVENT_SEVERITY__EVENT_WARNING
#define ERROR GANTRY__EVENT_SEVERITY__EVENT_ERROR

/* One command on its way into the model. */
struct model_apply {
	struct model *m;
	Gantry__ClusterModel *s;              /* m->state */
	const Gantry__Command *cmd;
	uint64_t index, epoch;
	Gantry__CommandResult *result;
};

/* ---- model.c */
/* Sets the result and returns its status. */
int model__refuse(struct model_apply *a, Gantry__Status status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void model__event(struct model_apply *a, Gantry__EventSeverity severity, const char *subject_kind, const char *subject_name,
		  const char *kind, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
static inline bool model__is(const char *a, const char *b) { return strcmp(a, b) == 0; }
static inline bool model__empty(const char *s) { return !s || !*s; }
bool model__name_ok(const char *name);
/* What the cluster's own commands name; NULL if absent. */
Gantry__Domain *model__domain_by_uuid(const struct model *m, const char *uuid);
const char *model__host_word(Gantry__HostState state);
const char *model__domain_word(Gantry__DomainState state);
bool model__is_voter(const Gantry__ClusterModel *s, uint32_t node_id);

/* ---- model_requests.c */
/* What this request was answered when it was applied; NULL: it was not, or has no id. */
const Gantry__CommandResult *model__request_find(struct model *m, const Gantry__Command *c);
void model__request_keep(struct model *m, const Gantry__Command *c, const Gantry__CommandResult *result);
void model__requests_free(struct model *m);   /* the index only */

/* ---- model_hosts.c */
int model__cluster_init(struct model_apply *a, const Gantry__CmdClusterInit *c);
int model__epoch_start(struct model_apply *a, const Gantry__CmdEpochStart *c);
int model__host_admit(struct model_apply *a, const Gantry__CmdHostAdmit *c);
int model__host_add(struct model_apply *a, const Gantry__CmdHostAdd *c);
int model__host_remove(struct model_apply *a, const Gantry__CmdHostRemove *c);
int model__host_state(struct model_apply *a, const Gantry__CmdHostState *c);
int model__host_info(struct model_apply *a, const Gantry__CmdHostInfo *c);
int model__fence_set(struct model_apply *a, const Gantry__CmdFenceSet *c);
int model__fence_confirm(struct model_apply *a, const Gantry__CmdFenceConfirm *c);

/* ---- model_domains.c */
int model__domain_create(struct model_apply *a, const Gantry__CmdDomainCreate *c);
int model__domain_start(struct model_apply *a, const Gantry__CmdDomainStart *c);
int model__domain_undefine(struct model_apply *a, const Gantry__CmdDomainUndefine *c);
int model__domain_goal(struct model_apply *a, const Gantry__CmdDomainGoal *c);

/* ---- model_place.c */
int model__domain_place(struct model_apply *a, const Gantry__CmdDomainPlace *c);
int model__domain_wait(struct model_apply *a, const Gantry__CmdDomainWait *c);
int model__domain_report(struct model_apply *a, const Gantry__CmdDomainReport *c);
/* The only way to change a domain's state, owner and generation. Asserts what must never be otherwise:
 * the transition is one of the table, the generation never falls, a new owner has a new generation (+1), and
 * a domain has an owner exactly in the states in which a host has it in hand. host "": nobody. */
void model__domain_move(struct model_apply *a, Gantry__Domain *d, Gantry__DomainState to, const char *host, uint64_t generation,
			const char *reason);
/* The owner gives the domain up: `proof` is why it cannot write any more. */
void model__domain_leave(struct model_apply *a, Gantry__Domain *d, Gantry__DomainState to, const char *reason, const char *proof);
/* A domain that shall run, and may be placed by the leader. */
bool model__domain_wants_place(const Gantry__Domain *d);
/* Its owner is proven dead. */
void model__domain_host_died(struct model_apply *a, Gantry__Domain *d, const char *proof);

/* ---- model_ha.c */
int model__ha_set(struct model_apply *a, const Gantry__CmdHaSet *c);
int model__ha_arm(struct model_apply *a, const Gantry__CmdHaArm *c);
int model__cluster_set(struct model_apply *a, const Gantry__CmdClusterSet *c);
int model__domain_evict(struct model_apply *a, const Gantry__CmdDomainEvict *c);
int model__fence_run(struct model_apply *a, const Gantry__CmdFenceRun *c);
/* Every domain of the model has a policy. */
void model__policy_default(Gantry__Domain *d);
bool model__disarmed(const struct model *m);
unsigned model__fence_share(const struct model *m);   /* per cent */
/* Its host has died: was that one too many? */
bool model__death_counted(struct model_apply *a, Gantry__Domain *d);
void model__deaths_forget(Gantry__Domain *d);

/* ---- model_jobs.c */
int model__migrate_start(struct model_apply *a, const Gantry__CmdMigrateStart *c);
int model__job_stage(struct model_apply *a, const Gantry__CmdJobStage *c);
int model__migrate_commit(struct model_apply *a, const Gantry__CmdMigrateCommit *c);
int model__migrate_abort(struct model_apply *a, const Gantry__CmdMigrateAbort *c);
int model__job_cancel(struct model_apply *a, const Gantry__CmdJobCancel *c);
int model__job_done(struct model_apply *a, const Gantry__CmdJobDone *c);
/* A new RUNNING job; sets the result's job id. d may be NULL. */
Gantry__Job *model__job_new(struct model_apply *a, Gantry__JobKind kind, Gantry__Domain *d);
/* Ends a RUNNING job and takes it out of its domain's hands. */
void model__job_end(struct model_apply *a, Gantry__Job *job, Gantry__JobState state, const char *reason);
/* The job that has the domain in hand, NULL if none. */
Gantry__Job *model__domain_job(const struct model *m, const Gantry__Domain *d);
/* The same, if it is a migration. */
Gantry__Job *model__domain_migration(const struct model *m, const Gantry__Domain *d);
void model__job_host_died(struct model_apply *a, Gantry__Job *job, const char *host);
/* "being started by task 3": for refusals. buf holds the text. */
const char *model__job_doing(const Gantry__Job *job, char *buf, size_t size);

/* ---- model_storage.c */
int model__pool_add(struct model_apply *a, const Gantry__CmdPoolAdd *c);
int model__pool_remove(struct model_apply *a, const Gantry__CmdPoolRemove *c);
int model__volume_create(struct model_apply *a, const Gantry__CmdVolumeCreate *c);
int model__volume_delete(struct model_apply *a, const Gantry__CmdVolumeDelete *c);
int model__volume_report(struct model_apply *a, const Gantry__CmdVolumeReport *c);
/* A domain may use its volumes: they exist, are ready, and nobody else has them. */
int model__volumes_check(struct model_apply *a, const Gantry__DomainSpec *spec);
/* The volume that only one host can reach, NULL if there is none (it is on `host` if host is not NULL). */
const Gantry__Volume *model__volume_elsewhere(const struct model *m, const Gantry__DomainSpec *spec, const char *host);

/* ---- model_use.c */
/* Kept beside the state, and of no effect on it. */
struct model_use {
	bool valid;
	struct { uint64_t memory; uint32_t vcpus, domains; } host[LIMIT_HOSTS];   /* promised; in the order of state->hosts */
	size_t hint;                                                              /* the domain that was looked up last */
};
struct model_use *model__use_new(void);
/* The hosts have changed: count again when it is asked for. */
void model__use_forget(const struct model *m);
/* A domain comes to a host or leaves it (owned), or a migration promises its room there or does not any more. */
void model__use_add(const struct model *m, const char *host, const Gantry__DomainSpec *spec, bool owned);
void model__use_remove(const struct model *m, const char *host, const Gantry__DomainSpec *spec, bool owned);
void model__host_use(const struct model *m, const char *host, uint64_t *ret_memory, uint32_t *ret_vcpus, uint32_t *ret_domains);

/* ---- placement.c */
/* What is promised but not yet in the model: placements that are proposed. */
struct placement_extra { const char *host; uint64_t memory_bytes; uint32_t vcpus; };
struct placement_wish {
	const char *host;          /* this one or none; NULL or "": any */
	const char *prefer;        /* this one if it can; with the reason why */
	const char *prefer_why;
	const char *exclude[2];    /* not these, for the reasons beside them */
	const char *exclude_why[2];
	const struct placement_extra *extra;
	size_t n_extra;
};
/* ret_reason: why this host, or why none. */
const Gantry__Host *placement__choose(const struct model *m, const Gantry__DomainSpec *spec, const struct placement_wish *wish, struct buf *ret_reason);
/* Whether the wish allows this host. */
bool placement__is_wished(const struct placement_wish *wish, const char *host);
/* Why a host cannot take the spec; NULL: it can. buf holds the text. */
const char *placement__obstacle(const struct model *m, const Gantry__Host *h, const Gantry__DomainSpec *spec,
				const struct placement_extra *extra, size_t n_extra, char *buf, size_t size);
/* The same but for room: it could take it if there were enough. */
const char *placement__hindrance(const struct model *m, const Gantry__Host *h, const Gantry__DomainSpec *spec, char *buf, size_t size);
/* What is left of a host; nothing, not less, where too much is promised. */
void placement__room(const struct model *m, const Gantry__Host *h, const struct placement_extra *extra, size_t n_extra, uint64_t *ret_memory,
		     uint32_t *ret_vcpus);
/* A pool that the spec needs and this host cannot reach now; NULL: none. */
const char *placement__lost_pool(const Gantry__Host *h, const Gantry__DomainSpec *spec);
