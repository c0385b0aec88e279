/* The replicated model: what every synced host agrees on. Pure. model_apply() is deterministic: the same
 * commands in the same order give the same model, result and events on every host; the only time it knows is
 * the proposer's (command->time_ms). The state is the ClusterModel message itself: its packed form is the snapshot. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "proto/agent.pb-c.h"
#include "proto/model.pb-c.h"

#define MODEL_FORMAT 1          /* of ClusterModel */
#define MODEL_COMMAND_VERSION 2 /* of Command */
#define MODEL_WATCHDOG_DEVICE "watchdog" /* as FenceDevice.agent: the host's own, proven by time */

struct model_requests;
struct model_use;

/* What is beside the state is no part of it. */
struct model {
	Gantry__ClusterModel *state;
	struct model_requests *requests;   /* an index of state->requests (model_requests.c); NULL: made when it is needed */
	struct model_use *use;             /* sums of what is promised on each host (model_use.c); NULL: counted each time */
	const char *own_host;              /* or NULL. Whoever sets it is told by `touched` that a command may have changed what concerns that host */
	bool touched;                      /* (its goals, what its agent's report asks for), and clears it */
};

void model_init(struct model *m);
void model_free(struct model *m);
/* Applies entry (index, epoch). A command that is refused (bad precondition, older epoch, unknown thing, taken name...) changes
 * nothing but applied_index and says why in the result; it is still "applied". A repeated (client, seq) gives the first result again.
 * -ENOTSUP: command or format newer than this program: the caller must step out of the cluster (nothing was changed).
 * *ret: the result, owner: caller (gantry__command_result__free_unpacked). */
int model_apply(struct model *m, uint64_t index, uint64_t epoch, const uint8_t *command, size_t len, Gantry__CommandResult **ret, struct err *err);
void model_snapshot(const struct model *m, struct buf *out);
int model_install(struct model *m, const uint8_t *data, size_t len, struct err *err);
/* For clog: clog_voters_fn. Voters change with CLUSTER_INIT, HOST_ADD, HOST_REMOVE. */
bool model_voters_of(const uint8_t *command, size_t len, const uint32_t *old, size_t n_old, uint32_t **ret, size_t *ret_n);

/* Look-ups; borrowed, NULL if absent. domain by name, uuid or "id". */
Gantry__Host *model_host(const struct model *m, const char *name);
Gantry__Host *model_host_by_node(const struct model *m, uint32_t node_id);
Gantry__Domain *model_domain(const struct model *m, const char *name_uuid_or_id);
Gantry__Pool *model_pool(const struct model *m, const char *name);
Gantry__Volume *model_volume(const struct model *m, const char *pool, const char *name);
Gantry__Job *model_job(const struct model *m, uint64_t id);

/* The goals of one host's agent, derived from the model. Owner: caller (gantry__agent_goals__free_unpacked). */
Gantry__AgentGoals *model_goals(const struct model *m, const char *host, uint64_t epoch, uint64_t index);
/* The same, borrowed from the model but for its lists: valid until the next command is applied. model_goals_view_free() ends it. */
Gantry__AgentGoals *model_goals_view(const struct model *m, const char *host, uint64_t epoch, uint64_t index);
void model_goals_view_free(Gantry__AgentGoals *view);
/* Compares an agent's report with the model and lists the commands that should be proposed for it (packed Command bodies without
 * header fields), e.g. DOMAIN_REPORT on a state change, JOB_STAGE, MIGRATE_COMMIT when the destination is ready, MIGRATE_ABORT when a side failed,
 * JOB_DONE, VOLUME_REPORT, HOST_INFO. Idempotent: the same report against a model that already says so lists nothing. Owner: caller. */
void model_commands_for_report(const struct model *m, const char *host, const Gantry__AgentReport *report, Gantry__Command ***ret, size_t *ret_n);
/* Memory that the model has promised on a host (domains owned and incoming migrations), bytes; vCPUs likewise. */
void model_host_use(const struct model *m, const char *host, uint64_t *ret_memory, uint32_t *ret_vcpus);
/* What applying the command now would answer, without applying it: 0, or the refusal's errno and status. For commands whose mere
 * place in the log has an effect (HOST_ADD, HOST_REMOVE change the voters even when the model refuses them): ask first. */
int model_check(const struct model *m, const Gantry__Command *command, struct err *err);
