/* The inside of the manager, shared by the manager*.c files only.
 *   manager.c          what is under way, proposals, migrations, the step
 *   manager_hosts.c    who is lost, who is back, whom to fence
 *   manager_domains.c  whom to place, in which order, who gives way, who must leave a host */
#pragma once

#include "clusterd/core/manager.h"
#include "clusterd/core/model_internal.h"

/* A decision that is under way, and the state that it was made for. */
struct pending {
	char key[LIMIT_NAME_CHARS + 16];
	uint64_t state;
	uint64_t again_ms;
	uint64_t since_ms;        /* manager__since() */
};

struct fence_state {
	char host[LIMIT_NAME_CHARS + 1];
	uint64_t incarnation;
	bool running, proven;
	bool came_back;           /* seen alive during the run: no proof by time is one */
	unsigned failures;
	uint64_t again_ms;
	char text[256];           /* the proof, or the last failure */
};

struct manager {
	uint64_t now_ms, wall_ms, epoch;
	uint32_t *members, *synced, *nodes, *seen;
	size_t n_members, n_synced, n_nodes, n_seen;
	uint64_t patience_until_ms;
	struct pending *pending;
	size_t n_pending;
	struct fence_state *fences;
	size_t n_fences;
	/* of the step */
	struct manager_action *actions;
	size_t n_actions;
	Gantry__Command **commands;
	char **texts;
	size_t n_commands, n_texts;
	struct placement_extra *extra;
	size_t n_extra;
};

/* ---- manager.c */
/* Made if it is new; PENDING_NONE is a state that no thing is ever in. */
#define PENDING_NONE UINT64_MAX
struct pending *manager__pending(struct manager *mgr, const char *kind, const char *name);
/* True if this has not been proposed for this state of the thing, or long ago. */
bool manager__may_propose(struct manager *mgr, const char *kind, const char *name, uint64_t state);
/* Since when (monotonic) the thing has been in this state, as this leader saw it: now, when it was not before. Asked at each look, or it begins anew. */
uint64_t manager__since(struct manager *mgr, const char *kind, const char *name, uint64_t state);
/* A command of this epoch with a reason; the caller fills its body. */
Gantry__Command *manager__propose(struct manager *mgr, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* An event "SUBJECT NAME". */
void manager__note(struct manager *mgr, Gantry__EventSeverity severity, const char *subject, const char *name, const char *kind, const char *text);
struct manager_action *manager__action(struct manager *mgr, enum manager_action_type type, const char *reason);
bool manager__contains(const uint32_t *ids, size_t n, uint32_t id);

/* Automatic action is off. */
static inline bool manager__is_off(const struct model *m) { return model__disarmed(m) && !MUTANT(disarmed_acts); }

/* ---- manager_hosts.c */
void manager__decide_hosts(struct manager *mgr, const struct model *m);
void manager__fenced(struct manager *mgr, const struct model *m, const struct manager_event *event);

/* ---- manager_domains.c */
void manager__decide_domains(struct manager *mgr, const struct model *m);
